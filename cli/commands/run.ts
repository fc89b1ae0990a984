/**
 * `run`: text from a language model by its own tokenizer, or outputs for given inputs.
 * @module
 */
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import { createReporter, type GlobalOptions, type Io, type Reporter } from "../io.ts";
import { collect, parseInteger } from "../options.ts";
import { addEngineOptions, openEngine, type EngineOptions } from "./engine-options.ts";

interface RunOptions extends GlobalOptions, EngineOptions {
  readonly prompt?: string;
  readonly maxTokens?: string;
  readonly inputs?: readonly string[];
  readonly out?: string;
}

const EXAMPLES = `
Examples:
  $ bitwright run ./llama-w8a8 --prompt "In the beginning" --max-tokens 48
  $ bitwright run ./llama-w8a8 --inputs in.npz --out out.npz     # in: input_ids int64 [batch, tokens]; out: logits
  $ bitwright run model.onnx --inputs in.npz --out out.npz       # in: the graph's inputs; out: its outputs
  $ bitwright run vit/onnx/model.onnx --inputs cat.png --out out.npz     # prepared as vit/preprocessor_config.json says
  $ bitwright run model.onnx --inputs a=a.npy --inputs b=b.npy --out out.npz

Names in the .npz files are those of the model's inputs and outputs. Positions, segments and masks that are not given
are filled in.`;

export function addRun(program: Command, io: Io): void {
  const command = program
    .command("run <model>")
    .description("greedy text of a model or artifact, or its outputs for given inputs")
    .option("--prompt <text>", "text to continue")
    .option("--max-tokens <n>", "with --prompt: tokens to generate (default 64)")
    .option(
      "--inputs <file>",
      "arrays to run on: .npz or .json with the model's inputs by name, .npy or name=x.npy; an image or a folder of them; repeatable",
      collect,
    )
    .option("--out <file>", "with --inputs: .npz file for the model's outputs by name")
    .addHelpText("after", EXAMPLES);
  addEngineOptions(command);
  command.action((path: string, options: RunOptions) => runModel(path, options, io));
}

async function runModel(path: string, options: RunOptions, io: Io): Promise<void> {
  const reporter = createReporter(io, options);
  checkOptions(options);
  if (options.inputs !== undefined && options.out !== undefined) {
    await runOnInputs(path, options.inputs, options.out, options, reporter);
    return;
  }
  const text = options.prompt ?? "";
  const maxTokens = parseInteger("--max-tokens", options.maxTokens ?? "64", 1, 2 ** 20);
  const { openModel } = await import("../../model/sources/open.ts");
  const { withActivations } = await import("../../model/fake-quant.ts");
  const { loadTokenizer } = await import("../../model/tokenizer.ts");
  const { generate } = await import("../../model/generate.ts");
  const model = withActivations(await openModel(path));
  const tokenizer = await loadTokenizer(path);
  const engine = await openEngine(options, reporter);
  try {
    const prompt = tokenizer.encode(text);
    const start = performance.now();
    const ids = await generate(model, prompt, {
      engine,
      maxTokens,
      ...(tokenizer.eosId === undefined ? {} : { eosIds: [tokenizer.eosId] }),
      signal: reporter.signal,
    });
    const seconds = (performance.now() - start) / 1000;
    const continuation = tokenizer.decode(ids);
    reporter.result({ prompt: text, promptIds: prompt, ids, text: continuation, seconds }, () => `${text}${continuation}`);
  } finally {
    await engine.close();
  }
}

/** @throws {InputError} `input.option` unless exactly one of the two forms is asked for. */
function checkOptions({ prompt, maxTokens, inputs, out }: RunOptions): void {
  if ((inputs === undefined) !== (out === undefined)) {
    throw new InputError("input.option", "--inputs and --out go together: the arrays to run on and the file for the outputs");
  }
  if ((prompt === undefined) === (inputs === undefined)) {
    throw new InputError("input.option", 'run needs --prompt "text to continue", or --inputs in.npz with --out out.npz');
  }
  if (inputs !== undefined && maxTokens !== undefined) {
    throw new InputError("input.option", "--max-tokens counts generated tokens: it goes with --prompt, not with --inputs");
  }
}

async function runOnInputs(path: string, inputs: readonly string[], out: string, options: RunOptions, reporter: Reporter): Promise<void> {
  const { openModel } = await import("../../model/sources/open.ts");
  const { runInputs } = await import("../../model/run-inputs.ts");
  const { readNpz, writeNpz } = await import("../../formats/containers/npz/npz.ts");
  const { readInputs } = await import("../../calibrate/inputs/open.ts");
  const model = await openModel(path);
  const [first = ""] = inputs;
  // Arrays are taken as they are, whatever their axes mean; everything else is made into what the model declares.
  const arrays = inputs.length === 1 && first.endsWith(".npz") ? await readNpz(first) : await readInputs(model, inputs);
  const engine = await openEngine(options, reporter);
  try {
    const start = performance.now();
    const outputs = await runInputs(model, arrays, {
      engine,
      signal: reporter.signal,
      onProgress: ({ tokens, totalTokens, blockName }) =>
        reporter.progress.report({ phase: "evaluate", done: tokens, total: totalTokens, unit: "tokens", detail: blockName }),
    });
    await writeNpz(out, outputs);
    const seconds = (performance.now() - start) / 1000;
    const written = [...outputs].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
    reporter.result({ out, outputs: written, seconds }, () =>
      [`wrote ${out}`, ...written.map(({ name, dtype, shape }) => `  ${name} ${dtype} [${shape.join(", ")}]`)].join("\n"),
    );
  } finally {
    await engine.close();
  }
}
