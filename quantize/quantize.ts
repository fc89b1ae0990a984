/**
 * The main job: source and recipe → verified artifact.
 * @module
 */
import { resolve } from "node:path";
import { InputError, throwIfAborted, VerifyError } from "../core/errors.ts";
import { loadTokenIds } from "../calibrate/samples.ts";
import type { Engine } from "../model/engines/engine.ts";
import { createEngine, REPRODUCIBLE_THREADS } from "../model/engines/index.ts";
import { cutWindows, evaluate } from "../model/evaluate.ts";
import { withActivations } from "../model/fake-quant.ts";
import { withKvCache } from "../model/kv/apply.ts";
import { openModel } from "../model/sources/open.ts";
import type { Model } from "../model/model.ts";
import { firstSamples, type Samples } from "../model/sample-list.ts";
import { loadCalibration, loadSamples } from "./calibration-inputs.ts";
import { decide, needsKeys } from "./decide.ts";
import { NO_DECISIONS, type Decisions } from "./decisions.ts";
import { readDecisions, writeDecisions } from "./decisions-file.ts";
import { checkGate } from "./gate.ts";
import { journalPath, readJournalHead } from "./journal.ts";
import { isLossless, quantizeLossless } from "./lossless/run.ts";
import { onnxSource } from "./onnx/prepare.ts";
import { quantizeOnnx } from "./onnx/run.ts";
import { quantizeToOnnx, wantsOnnxDirectory } from "./onnx-directory.ts";
import { checkSeparate, claimOutput, finishOutput, type ClaimedOutput } from "./output-directory.ts";
import { layoutOutput } from "./output-layout.ts";
import { checkBudgets } from "./budgets.ts";
import { makePlan } from "./plan.ts";
import { createKvScheme } from "./kv/scheme.ts";
import { needsCalibration, parseKv } from "./kv/spec.ts";
import { refuseKernels } from "./kernels/artifact.ts";
import { reorderedModel } from "./reordered.ts";
import { prepare, type Prepared, type Target } from "./prepare.ts";
import { runKey } from "./run-key.ts";
import type { Plan, QuantizeOptions, QuantizeReport, VerifyReport } from "./types.ts";
import { verifyArtifact } from "./verify.ts";
import { writeArtifact, type WrittenArtifact } from "./write-artifact.ts";

export type { QuantizeOptions, QuantizeReport } from "./types.ts";

/** Beyond this many source bytes the artifact is checked by its hashes alone; `verify --source` compares every weight. */
const COMPARE_BYTES = 2 ** 30;
/** In the journal folder, until the run is finished. */
const CALIBRATION_FILE = "calibration.safetensors";

/**
 * Quantize a model and verify what was written.
 *
 * Interrupted (signal, crash, `kill -9`), the same call goes on where it stopped and gives the same bytes.
 *
 * @param source - HF directory, an .onnx file, a bare .safetensors file (data-free recipes), or an open model.
 * @throws {InputError}, {UnsupportedError}, {FormatError}, {BudgetError} before anything is written.
 * @throws {VerifyError} `verify.mismatch` when the artifact is not what was meant, `verify.gate` when it misses the gate.
 * @throws {InterruptedError} when the signal is aborted; finished work is kept.
 */
export async function quantize(source: string | Model, options: QuantizeOptions): Promise<QuantizeReport> {
  if (isLossless(options.recipe)) return quantizeLossless(source, options);
  const onnx = await onnxSource(source);
  if (onnx !== undefined || wantsOnnxDirectory(options)) refuseKernels(options.recipe.kernels, "ONNX");
  if (onnx !== undefined) return quantizeOnnx(onnx, options);
  if (wantsOnnxDirectory(options)) return quantizeToOnnx(source, options, quantize);
  const started = performance.now();
  const cpuBefore = process.cpuUsage();
  throwIfAborted(options.signal);
  const prepared = await prepare(source, options);
  const plan = makePlan(prepared, options);
  if ((prepared.statistics.length > 0 && options.calibration === undefined) || needsKeys(prepared.settings)) requireData(options);
  await checkSeparate(prepared.model, options.out);
  await checkBudgets(plan, options);
  const heldOut = await loadHeldOut(prepared.model, options);
  const engines = new EngineHolder(options.engine);
  const outputs: ClaimedOutput[] = [];
  try {
    const request = requestOf(source, options);
    for (const target of prepared.targets) {
      const key = await runKey(prepared, target, options);
      outputs.push(await claimOutput({ directory: target.directory, key, request, force: options.force === true }));
    }
    const resumed = outputs.some((output) => output.resumed);
    const decisions = await decisionsFor(prepared, options, engines, outputs);
    const decided = applyDecisions(prepared, plan, decisions, options);
    // What is stored must not depend on this machine's threads and memory.
    const { workers: _workers, maxMemory: _maxMemory, ...portable } = options;
    const recorded: Plan = { ...makePlan(prepared, portable), sites: decided.plan.sites };
    const written: WrittenArtifact[] = [];
    for (const [i, target] of decided.prepared.targets.entries()) {
      written.push(await writeArtifact({ prepared: decided.prepared, plan: recorded, decisions, target, output: outputs[i]!, options }));
    }
    const verified = await verifyAll(decided.prepared, written, options);
    const evaluation = await evaluateBoth(prepared, written[0]!.directory, heldOut, options, engines);
    for (const output of outputs.splice(0)) await finishOutput(output);
    const report: QuantizeReport = {
      out: written.map(({ directory, bytes, files }, i) => ({ format: prepared.targets[i]!.export.name, directory, bytes, files })),
      plan: decided.plan,
      sites: written[0]!.sites,
      sourceBytes: prepared.sourceBytes,
      outputBytes: written.reduce((sum, { bytes }) => sum + bytes, 0),
      seconds: (performance.now() - started) / 1000,
      cpuSeconds: cpuSince(cpuBefore),
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      resumed,
      verified,
      ...(evaluation && { evaluation }),
      warnings: decided.plan.notes,
    };
    gateReport(report, options);
    return report;
  } finally {
    for (const { journal } of outputs) await journal.close();
    await engines.close();
  }
}

/**
 * Go on with an unfinished run from its directory alone.
 *
 * @throws {InputError} `input.path` when there is none, or when it was started with data that no file holds.
 */
export async function resume(
  out: string,
  overrides: Pick<QuantizeOptions, "workers" | "signal" | "onProgress" | "engine"> = {},
): Promise<QuantizeReport> {
  const head = await readJournalHead(out);
  if (head === undefined) throw new InputError("input.path", `${out} holds no unfinished run; start one with quantize`, { directory: out });
  const { source, options, reason } = head.request as { source?: string; options?: QuantizeOptions; reason?: string };
  if (source === undefined || options === undefined) {
    throw new InputError(
      "input.path",
      `the run in ${out} cannot be resumed from its directory alone (${reason}); repeat the original call`,
      { directory: out },
    );
  }
  return quantize(source, { ...options, ...overrides });
}

/** What `resume` needs: the options that are plain data, with paths made absolute. */
function requestOf(source: string | Model, options: QuantizeOptions): Readonly<Record<string, unknown>> {
  if (typeof source !== "string") return { reason: "its source was a model object" };
  if (typeof options.calibration === "object") return { reason: "its calibration was an object" };
  const { signal: _signal, onProgress: _onProgress, engine: _engine, ...plain } = options;
  const absolute = (paths: readonly string[]): string[] => paths.map((path) => resolve(path));
  return {
    source: resolve(source),
    options: {
      ...plain,
      out: resolve(options.out),
      ...(options.data && { data: absolute(options.data) }),
      ...(options.calibration !== undefined && { calibration: resolve(options.calibration) }),
      ...(options.evaluate && { evaluate: { ...options.evaluate, data: absolute(options.evaluate.data) } }),
    },
  };
}

function requireData({ data, sequences, recipe }: QuantizeOptions): void {
  if (sequences !== undefined || (data !== undefined && data.length > 0)) return;
  throw new InputError(
    "input.no-data",
    `--method ${recipe.method.join("+")} looks at activations: give --data <text, jsonl, parquet or ids> or --calibration <file>; ` +
      "a small text to try it with is bundled as fixtures/data/calib.txt",
    { option: "data", sample: "fixtures/data/calib.txt" },
  );
}

/** Arrays and images that a search looks at, at most; text is held in memory and cut by the search itself. */
const SEARCH_SAMPLES = 32;

/** Decisions of an earlier process where it left them, else made now and stored before anything is written. */
async function decisionsFor(
  prepared: Prepared,
  options: QuantizeOptions,
  engines: EngineHolder,
  outputs: readonly ClaimedOutput[],
): Promise<Decisions> {
  const { statistics, needsSearch, model, choices, settings, scaleDType } = prepared;
  const ordersChannels = settings.transforms.some(({ name }) => name === "reorder");
  if (statistics.length === 0 && !needsSearch && !ordersChannels) return NO_DECISIONS;
  const stored = await readDecisions(outputs[0]!.directory);
  let decisions = stored;
  if (decisions === undefined) {
    let loaded: Promise<Samples> | undefined;
    const samples = (): Promise<Samples> => (loaded ??= loadSamples(prepared, options));
    const kept = journalPath(outputs[0]!.directory, CALIBRATION_FILE);
    const calibration =
      statistics.length === 0 && !needsSearch ? undefined : await loadCalibration(prepared, options, samples, () => engines.get(), kept);
    decisions = await decide(model, choices, settings, {
      ...(calibration && { calibration }),
      scaleDType,
      orderKeys: prepared.targets.every((target) => target.export.keyOrderRefusal === undefined),
      ...((needsSearch || needsKeys(settings)) && {
        search: { samples: await firstSamples(await samples(), SEARCH_SAMPLES), engine: await engines.get() },
      }),
      ...(options.signal && { signal: options.signal }),
      ...(options.onProgress && { onProgress: options.onProgress }),
    });
  }
  for (const { directory } of outputs) await writeDecisions(directory, decisions);
  return decisions;
}

/** The prepared run with protected sites made weight-only. */
function applyDecisions(
  prepared: Prepared,
  plan: Plan,
  decisions: Decisions,
  options: QuantizeOptions,
): { prepared: Prepared; plan: Plan } {
  const choices = prepared.choices.map(({ site, plan: sitePlan }) => {
    const reason = decisions.protected.get(site.name);
    if (reason === undefined) return { site, plan: sitePlan };
    const { input: _input, ...weightOnly } = sitePlan;
    return { site, plan: { ...weightOnly, reason } };
  });
  const model = reorderedModel(prepared.model, decisions);
  const targets: Target[] = prepared.targets.map((target) => ({
    ...target,
    layout: layoutOutput(model, choices, target.export, prepared.scaleDType, options.maxShardBytes, prepared.widened),
  }));
  const decided: Prepared = { ...prepared, model, choices, targets };
  return {
    prepared: decided,
    plan: { ...plan, notes: [...plan.notes, ...decisions.orderNotes], sites: choices.map((choice) => choice.plan) },
  };
}

/** @throws {VerifyError} `verify.mismatch` naming the first problems. */
async function verifyAll(prepared: Prepared, written: readonly WrittenArtifact[], options: QuantizeOptions): Promise<VerifyReport> {
  const reports: VerifyReport[] = [];
  for (const { directory } of written) {
    const report = await verifyArtifact(directory, {
      ...(prepared.sourceBytes <= COMPARE_BYTES && { source: prepared.model }),
      ...(options.workers !== undefined && { workers: options.workers }),
      ...(options.signal && { signal: options.signal }),
      ...(options.onProgress && { onProgress: options.onProgress }),
    });
    if (!report.ok) {
      const first = report.problems.slice(0, 3).map(({ tensor, problem }) => `${tensor}: ${problem}`);
      throw new VerifyError("verify.mismatch", `${directory} is not what was meant to be written: ${first.join("; ")}`, {
        problems: report.problems,
      });
    }
    reports.push(report);
  }
  return { ...reports[0]!, tensors: reports.reduce((sum, { tensors }) => sum + tensors, 0) };
}

/** Ids to evaluate on, read before the work: a wrong path or too little text should not show at its end. */
async function loadHeldOut(model: Model, { evaluate: request }: QuantizeOptions): Promise<readonly number[]> {
  if (request === undefined) return [];
  const { directory, facts } = model;
  const ids = await loadTokenIds(request.data, { ...(directory !== undefined && { directory }), vocabularySize: facts.vocabularySize });
  cutWindows(ids, request, model);
  return ids;
}

async function evaluateBoth(
  prepared: Prepared,
  directory: string,
  ids: readonly number[],
  options: QuantizeOptions,
  engines: EngineHolder,
): Promise<QuantizeReport["evaluation"] | undefined> {
  const request = options.evaluate;
  if (request === undefined) return undefined;
  const { onProgress } = options;
  const result = await evaluate(await withRecipeCache(withActivations(await openModel(directory)), prepared, options, engines), ids, {
    engine: await engines.get(),
    reference: prepared.model,
    ...(request.window !== undefined && { window: request.window }),
    ...(request.maxTokens !== undefined && { maxTokens: request.maxTokens }),
    ...(options.signal && { signal: options.signal }),
    ...(onProgress && { onProgress: ({ done, total, detail }) => onProgress({ phase: "evaluate", done, total, unit: "tokens", detail }) }),
  });
  const { perplexity, tokens, window, kl = 0, top1 = 1, referencePerplexity = perplexity } = result;
  return { before: { perplexity: referencePerplexity, tokens, window }, after: { perplexity, tokens, window, kl, top1 } };
}

/** The artifact with its cache as the recipe says; as it is when it says nothing. */
async function withRecipeCache(artifact: Model, prepared: Prepared, options: QuantizeOptions, engines: EngineHolder): Promise<Model> {
  const { kv } = options.recipe;
  if (kv === undefined) return artifact;
  const spec = parseKv(kv);
  const data = needsCalibration(spec)
    ? { samples: await firstSamples(await loadSamples(prepared, options), SEARCH_SAMPLES), engine: await engines.get() }
    : undefined;
  return withKvCache(artifact, await createKvScheme(artifact, spec, data)).model;
}

/** @throws {VerifyError} `verify.gate`, with the report in its details. */
function gateReport(report: QuantizeReport, { gate }: QuantizeOptions): void {
  if (gate === undefined) return;
  const { evaluation, sites } = report;
  const measured = {
    sqnr: sites.reduce((worst, { sqnr }) => Math.min(worst, sqnr), Infinity),
    ...(evaluation && { perplexity: evaluation.after.perplexity / evaluation.before.perplexity, kl: evaluation.after.kl }),
  };
  checkGate(gate, measured, { report });
}

function cpuSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

/** Starts an engine when something first needs it, and closes what it started. */
class EngineHolder {
  readonly #given: Engine | undefined;
  #own: Promise<Engine> | undefined;

  constructor(given: Engine | undefined) {
    this.#given = given;
  }

  async get(): Promise<Engine> {
    return this.#given ?? (this.#own ??= createEngine("auto", { threads: REPRODUCIBLE_THREADS }));
  }

  async close(): Promise<void> {
    await (await this.#own?.catch(() => undefined))?.close();
  }
}
