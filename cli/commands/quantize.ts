/**
 * `quantize` (the default command) and `plan`: the main job.
 * @module
 */
import { type Command, Option } from "commander";
import { InputError } from "../../core/errors.ts";
import type { QuantizeOptions } from "../../quantize/quantize.ts";
import type { Recipe } from "../../quantize/types.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { collect, parseBytes, parseGroupSize, parseInteger, parseList, parsePairs } from "../options.ts";
import { addDataOptions, sampleOptions, type DataOptions } from "./data-options.ts";
import { addEngineOptions, openEngine, workerCount, type EngineOptions } from "./engine-options.ts";
import { loadConfig, type ConfigFile } from "./config-file.ts";
import { printOutcome } from "./quantize-result.ts";
import { planText } from "./quantize-text.ts";

export interface QuantizeCommandOptions extends GlobalOptions, EngineOptions, DataOptions {
  readonly method?: string;
  readonly out?: string;
  readonly bits?: string;
  readonly scheme?: readonly string[];
  readonly groupSize?: string;
  readonly kv?: string;
  readonly calibration?: string;
  readonly to?: readonly string[];
  readonly config?: string;
  readonly protect?: string;
  readonly ignore?: readonly string[];
  readonly gate?: readonly string[];
  readonly eval?: readonly string[];
  readonly window?: string;
  readonly maxMemory?: string;
  readonly maxShardSize?: string;
  readonly dryRun?: boolean;
  readonly force?: boolean;
  readonly codec?: string;
  readonly level?: string;
  readonly pattern?: readonly string[];
  readonly cast?: string;
  readonly kernels?: readonly string[];
}

const EXAMPLES = `
Examples:
  $ bitwright ./llama --method smoothquant --data calib.txt --out ./llama-w8a8
  $ bitwright ./llama --method smoothquant --scheme alpha=auto --protect auto --data calib.txt --out ./llama-w8a8
  $ bitwright ./llama --method rtn --bits w4a16 --group-size 128 --out ./llama-w4a16
  $ bitwright ./llama --method rtn --bits fp8 --out ./llama-fp8 --dry-run
  $ bitwright ./llama --method dfloat11 --kernels c,wasm,wgsl,cuda --out ./llama-df11
  $ bitwright ./llama --method smoothquant --data calib.txt --eval test.txt --gate perplexity=1.01 --out ./llama-w8a8

Interrupted (Ctrl-C, a crash, kill -9)? The same command again continues where it stopped and gives the same bytes.`;

export function addQuantize(program: Command, io: Io): void {
  const command = program
    .command("quantize <model>", { isDefault: true })
    .description("compress a model: HF directory, .onnx or .safetensors → an artifact that a runtime loads (the default command)");
  addRecipeOptions(command);
  command
    .option("--dry-run", "print the resolved plan with memory, disk, time and size; write nothing")
    .addHelpText("after", EXAMPLES)
    .action((path: string, options: QuantizeCommandOptions) => runQuantize(path, options, io));
  const plan = program.command("plan <model>").description("the resolved plan of a quantize command, as --dry-run prints it");
  addRecipeOptions(plan);
  plan.action((path: string, options: QuantizeCommandOptions) => runQuantize(path, { ...options, dryRun: true }, io));
}

function addRecipeOptions(command: Command): void {
  command
    .option(
      "--method <m[+m...]>",
      "smoothquant, reorder, rtn, bfp, mxfp4, nvfp4, smoothquant+reorder+bfp, dfloat11; see `bitwright methods`",
    )
    .option("--out <dir>", "directory to write; must not exist or be empty (see --force)")
    .option("--bits <bits>", "w8a8, w4a16, fp8, bfp12, mxfp8, mxfp4, nvfp4, ...; with a16 behind: weights only, e.g. nvfp4a16")
    .option("--group-size <n>", "input channels a weight scale: a number, channel or tensor")
    .option("--scheme <key=value,...>", "preset, act, level, alpha, arithmetic, qkv-outputs, ...; see `bitwright methods`", collect)
    .option("--kv <scheme>", "how the key-value cache is meant to be stored, e.g. bfp12:block=32,v=f16; --eval runs with it")
    .option("--calibration <file>", "statistics from `bitwright calibrate`, in place of --data")
    .option("--to <formats>", "compressed-tensors (default); several go to <out>/<format>/", collect)
    .option("--protect <sites>", "none, auto, or patterns: sites that stay weight-only, listed with the reason")
    .option("--ignore <patterns>", "sites left in float: names or re:<regex>", collect)
    .option("--gate <key=value,...>", "exit 3 when missed: perplexity=1.01 (ratio to the source), sqnr=30 (dB, worst site)", collect)
    .option("--eval <file>", "report perplexity before and after on this text", collect)
    .option("--window <n>", "tokens a window for --eval; default min(2048, the model's positions)")
    .option("--config <file>", "recipe from a file: quantize.config.ts, .js or .json; flags win")
    .option("--max-memory <size>", "stay under this, e.g. 2GB")
    .option("--max-shard-size <size>", "largest file to write (default 5GB)")
    .option("--force", "replace an existing artifact in --out")
    .option("--codec <codec>", "lossless: df11 (default; what the official DFloat11 package loads) or compact (smaller)")
    .option("--level <level>", "lossless, --codec compact: max (smallest, default) or fast")
    .option(
      "--pattern <regex[=names]>",
      "lossless: modules that become units, with their layers in stream order; found without it",
      collect,
    )
    .option("--cast <dtype>", "lossless: bf16 rounds wider weights first, which is lossy")
    .option(
      "--kernels <languages>",
      "put kernels beside the artifact: c, wasm (bfp, mx, nvfp4 and lossless), wgsl, cuda (dfloat11 with --codec df11)",
      collect,
    );
  addDataOptions(command);
  addEngineOptions(command);
  command.addOption(new Option("--log-level <level>").hideHelp());
}

async function runQuantize(path: string, flags: QuantizeCommandOptions, io: Io): Promise<void> {
  const reporter = createReporter(io, flags);
  const file = flags.config === undefined ? {} : await loadConfig(flags.config);
  const options = mergeConfig(file, flags);
  const recipe = recipeOf(options);
  const request = await requestOf(options, recipe);
  if (options.dryRun === true) {
    const { planQuantization } = await import("../../quantize/plan.ts");
    const plan = await planQuantization(path, { ...request, out: request.out ?? "." });
    reporter.result(plan, () => planText(plan, reporter.palette));
    return;
  }
  if (request.out === undefined || request.out === "")
    throw new InputError("input.option", "quantize needs --out <dir>, the directory to write (or --dry-run)");
  const { quantize } = await import("../../quantize/quantize.ts");
  const engine = options.engine === undefined || options.engine === "auto" ? undefined : await openEngine(options, reporter);
  try {
    const job = quantize(path, {
      ...request,
      out: request.out,
      ...(engine === undefined ? {} : { engine }),
      signal: reporter.signal,
      onProgress: reporter.progress.report,
    });
    await printOutcome(job, reporter, gateNotes(options));
  } finally {
    await engine?.close();
  }
}

/** Flags win over the file. */
function mergeConfig(file: ConfigFile, flags: QuantizeCommandOptions): QuantizeCommandOptions {
  return { ...file, ...flags };
}

function recipeOf(options: QuantizeCommandOptions): Recipe {
  if (options.method === undefined) {
    throw new InputError(
      "input.option",
      "quantize needs --method, for example --method smoothquant or --method rtn; `bitwright methods` lists all",
    );
  }
  const protect = options.protect;
  return {
    method: options.method.split("+").map((name) => name.trim()),
    ...(options.bits === undefined ? {} : { bits: options.bits }),
    ...(options.groupSize === undefined ? {} : { groupSize: parseGroupSize(options.groupSize) }),
    ...(options.kv === undefined ? {} : { kv: options.kv }),
    ...(options.scheme === undefined ? {} : { scheme: parsePairs("--scheme", options.scheme) }),
    ...(options.ignore === undefined ? {} : { ignore: parseList(options.ignore) }),
    ...(protect === undefined ? {} : { protect: protect === "none" || protect === "auto" ? protect : parseList([protect]) }),
    seed: sampleOptions(options).seed,
    ...losslessOptions(options),
  };
}

/** Options of lossless methods; `codecOf` and its like check what goes together. */
function losslessOptions({ codec, level, pattern, cast, kernels }: QuantizeCommandOptions): Partial<Recipe> {
  return {
    ...(codec === undefined ? {} : { codec: oneOf("--codec", codec, ["df11", "compact"]) }),
    ...(level === undefined ? {} : { level: oneOf("--level", level, ["max", "fast"]) }),
    ...(pattern === undefined ? {} : { patterns: pattern.map(parsePattern) }),
    ...(cast === undefined ? {} : { cast: oneOf("--cast", cast, ["bf16"]) }),
    ...(kernels === undefined ? {} : { kernels: parseList(kernels) }),
  };
}

function oneOf<T extends string>(flag: string, value: string, known: readonly T[]): T {
  const found = known.find((word) => word === value);
  if (found !== undefined) return found;
  throw new InputError("input.option", `${flag} ${value}: must be ${known.join(" or ")}`, { option: flag, given: value, known });
}

/** "regex=a,b" → pattern and attributes; an "=" that belongs to the expression ("(?=") does not count. */
function parsePattern(text: string): { readonly pattern: string; readonly attributes?: readonly string[] } {
  const match = /^(.*[^?<])=([\w.\-, ]*)$/s.exec(text);
  if (match === null) return { pattern: text };
  return { pattern: match[1]!, attributes: parseList([match[2]!]) };
}

type Request = Omit<QuantizeOptions, "out" | "engine" | "signal" | "onProgress"> & { readonly out?: string };

async function requestOf(options: QuantizeCommandOptions, recipe: Recipe): Promise<Request> {
  const { parseGate } = await import("../../quantize/gate.ts");
  const { seed: _, ...samples } = sampleOptions(options);
  return {
    recipe,
    ...samples,
    ...(options.out === undefined ? {} : { out: options.out }),
    ...(options.to === undefined ? {} : { to: parseList(options.to) }),
    ...(options.data === undefined ? {} : { data: options.data }),
    ...(options.calibration === undefined ? {} : { calibration: options.calibration }),
    workers: workerCount(options.workers),
    ...(options.maxMemory === undefined ? {} : { maxMemory: parseBytes("--max-memory", options.maxMemory) }),
    ...(options.maxShardSize === undefined ? {} : { maxShardBytes: parseBytes("--max-shard-size", options.maxShardSize) }),
    ...(options.gate === undefined ? {} : { gate: parseGate(parsePairs("--gate", options.gate)) }),
    ...evaluationOf(options),
    ...(options.force === true ? { force: true } : {}),
  };
}

/**
 * What `--eval` asks for; a gate that needs text and has none is measured on the calibration data.
 *
 * @throws {InputError} `input.option` for a gate that nothing could be measured for: better before the work than after it.
 */
function evaluationOf(options: QuantizeCommandOptions): Pick<Request, "evaluate"> {
  const window = options.window === undefined ? {} : { window: parseInteger("--window", options.window, 2, 2 ** 24) };
  if (options.eval !== undefined) return { evaluate: { data: options.eval, ...window } };
  if (!gateNeedsText(options)) return {};
  if (options.data === undefined) {
    throw new InputError("input.option", `--gate ${options.gate!.join(",")} needs text to measure it on: add --eval <file>`, {
      gate: options.gate,
    });
  }
  const { samples = GATE_SAMPLES, sequenceLength } = sampleOptions(options);
  const windowed = "window" in window ? window : sequenceLength === undefined ? {} : { window: Math.max(2, sequenceLength) };
  return { evaluate: { data: options.data, ...windowed, maxTokens: samples * (windowed.window ?? GATE_WINDOW) } };
}

/** Like the defaults of calibration: enough text for a gate, and never all of a large corpus. */
const GATE_SAMPLES = 128;
const GATE_WINDOW = 2048;

function gateNeedsText({ gate, eval: text }: QuantizeCommandOptions): boolean {
  return text === undefined && gate !== undefined && parseList(gate).some((pair) => /^(perplexity|kl)\s*=/.test(pair));
}

function gateNotes(options: QuantizeCommandOptions): readonly string[] {
  if (!gateNeedsText(options)) return [];
  return ["the gate was measured on the calibration data, which flatters the artifact; --eval <file> measures it on held-out text"];
}
