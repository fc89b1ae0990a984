/**
 * Quantizing an .onnx file as a job: plan, calibrate, rewrite, write, verify, report.
 * @module
 */
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import type { OpenSamplesOptions } from "../../calibrate/inputs/open.ts";
import { InputError, throwIfAborted, VerifyError } from "../../core/errors.ts";
import { version } from "../../core/version.ts";
import { writeFileAtomic } from "../../formats/containers/atomic.ts";
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import { writeOnnxModel } from "../../formats/containers/onnx/write.ts";
import type { Engine } from "../../model/engines/engine.ts";
import { createEngine, REPRODUCIBLE_THREADS } from "../../model/engines/index.ts";
import type { Model } from "../../model/model.ts";
import { bodiesOf } from "../../model/onnx/bodies.ts";
import { checkBudgets } from "../budgets.ts";
import { checkGate } from "../gate.ts";
import { journalPath } from "../journal.ts";
import { checkApart, requestOf } from "../lossless/claim.ts";
import { canonicalJson, hashBytes, hashFile, MANIFEST_FILE, type Manifest } from "../manifest.ts";
import { claimOutput, finishOutput, PARTIAL, publish, type ClaimedOutput } from "../output-directory.ts";
import type { Plan, QuantizeOptions, QuantizeReport, SiteReport } from "../types.ts";
import { sitePlanOf, type ChosenSite } from "./actions.ts";
import { applyActions, type Rewritten } from "./apply.ts";
import { decideOnnx, type OnnxDecisions } from "./decide.ts";
import { onnxSource, planOnnxOf, prepareOnnx, type PreparedOnnx } from "./prepare.ts";
import { RewriteContext } from "./rewrites/context.ts";
import { rewriteToFloat16 } from "./half.ts";
import { quantizeToBnb4 } from "./rewrites/bnb4.ts";
import { loadOnnxSamples, NO_SAMPLES, type OnnxSamples } from "./samples.ts";
import { needsSamples } from "./settings.ts";
import type { SmoothedValue } from "./smooth.ts";
import { compareOutputs, verifyOnnx, type OutputComparison } from "./verify.ts";
import { schemeName } from "../../core/scheme.ts";

export { onnxSource } from "./prepare.ts";

/** Format of the manifest. */
export const ONNX_FORMAT = "onnx";

/** The plan of a run on an .onnx source; writes nothing. @throws as {@link quantizeOnnx} before it starts. */
export async function planOnnx(source: string | OnnxModel, options: QuantizeOptions): Promise<Plan> {
  return planOnnxOf(await prepareOnnx(source, options), options);
}

/**
 * Quantize an ONNX model into `<out>/<its name>.onnx`.
 *
 * @throws {InputError}, {FormatError}, {UnsupportedError}, {BudgetError} before anything is written; {NumericError} for data that is
 *   no numbers; {VerifyError} when what was written does not run or misses the gate; {InterruptedError}.
 */
export async function quantizeOnnx(source: string | OnnxModel, options: QuantizeOptions): Promise<QuantizeReport> {
  const started = performance.now();
  const cpuBefore = process.cpuUsage();
  throwIfAborted(options.signal);
  const prepared = await prepareOnnx(source, options);
  const { settings, file } = prepared;
  const plan = planOnnxOf(prepared, options);
  if (file !== undefined) await checkApart(file, options.out);
  if (needsSamples(settings)) requireData(options);
  await checkBudgets(plan, options);
  const samples =
    options.data === undefined || options.data.length === 0
      ? NO_SAMPLES
      : await loadOnnxSamples(prepared.source, options.data, sampleOptions(options));
  const output = await claimOutput({
    directory: options.out,
    key: await keyOf(prepared, options),
    request: file === undefined ? { reason: "its source was a model object" } : requestOf(file, options),
    force: options.force === true,
  });
  const engine = options.engine ?? (await createEngine("auto", { threads: REPRODUCIBLE_THREADS }));
  try {
    const decisions = await decideOnnx(prepared, samples, engine, options);
    const { model, context, choices, notes } = await rewrite(decisions, prepared, samples, engine, options);
    const files = await writeModel(model, prepared, output, options);
    const recorded = planOnnxOf(prepared, { ...options, workers: 1 }, choices);
    const final = { ...recorded, sites: choices.map(sitePlanOf), notes: [...prepared.notes, ...decisions.notes, ...notes] };
    const outliers = new Map(decisions.smoothed.map((value) => [value.input, value]));
    const sites = prepared.choices.map(({ site }, i) => siteReport(choices[i]!, context, outliers.get(site.input)));
    await finishFiles(files, final, sites, prepared, output);
    const written = join(output.directory, files[0]!);
    const verified = await verifyOnnx(output.directory, { engine });
    if (!verified.ok) throw mismatch(output.directory, verified.problems);
    const compared = await compareOutputs(prepared.source, written, samples, engine, options.signal);
    await finishOutput(output);
    const report = await reportOf({ prepared, options, output, files, final, sites, verified, compared, started, cpuBefore });
    gate(report, compared, options);
    return report;
  } finally {
    await output.journal.close();
    if (options.engine === undefined) await engine.close();
  }
}

function requireData({ data, recipe }: QuantizeOptions): void {
  if (data !== undefined && data.length > 0) return;
  throw new InputError(
    "input.no-data",
    `--method ${recipe.method.join("+")} with these settings looks at activations: give --data <inputs.npz or a directory of them>, ` +
      "arrays named as the graph's inputs; --method rtn --bits w8a8 needs none",
    { option: "data" },
  );
}

function sampleOptions({ samples, sequenceLength, packing, shuffle, roundInputs, signal, recipe }: QuantizeOptions): OpenSamplesOptions {
  return {
    ...(samples !== undefined && { samples }),
    ...(sequenceLength !== undefined && { sequenceLength }),
    ...(packing !== undefined && { packing }),
    ...(shuffle !== undefined && { shuffle }),
    ...(roundInputs !== undefined && { roundInputs }),
    ...(signal !== undefined && { signal }),
    seed: recipe.seed ?? 0,
  };
}

/** Equal keys, equal bytes. */
async function keyOf({ file, fileName, sourceBytes }: PreparedOnnx, options: QuantizeOptions): Promise<string> {
  const facts = file === undefined ? undefined : await stat(file);
  const parts = {
    version: version(),
    recipe: options.recipe,
    data: options.data?.map((path) => resolve(path)),
    samples: { ...sampleOptions(options), signal: undefined },
    fileName,
    sourceBytes,
    modified: facts?.mtimeMs,
    size: facts?.size,
  };
  return hashBytes(canonicalJson(parts));
}

/** The model with every decided change; weights are read when the result is written. */
async function rewrite(
  decisions: OnnxDecisions,
  { settings }: PreparedOnnx,
  samples: OnnxSamples,
  engine: Engine,
  options: QuantizeOptions,
): Promise<Rewritten & { readonly notes: readonly string[] }> {
  const { model, choices } = decisions;
  const { signal, onProgress } = options;
  let done = 0;
  const total = choices.filter(({ action }) => action.kind !== "float").length;
  const report = (site: string): void =>
    onProgress?.({ phase: "quantize", done: Math.min(total, ++done), total, unit: "tensors", detail: site });
  const rewriteOptions = { ...(signal && { signal }), onWeight: report };
  if (settings.target === "sites") return { ...applyActions(decisions, rewriteOptions), notes: [] };
  const context = new RewriteContext(model, rewriteOptions);
  if (settings.target === "bnb4") return { model: quantizeToBnb4(model), context, choices, notes: [] };
  const half = await rewriteToFloat16(model, samples, { engine, ...(signal && { signal }), ...(onProgress && { onProgress }) });
  return { ...half, context, choices };
}

function hasExternalData(model: OnnxModel): boolean {
  return bodiesOf(model).some(({ initializers }) => [...initializers.values()].some(({ external }) => external !== undefined));
}

/** Write beside the journal, then under partial names. @returns names of the files, the model first. */
async function writeModel(
  model: OnnxModel,
  { fileName, settings, model: source }: PreparedOnnx,
  { directory }: ClaimedOutput,
  { signal }: QuantizeOptions,
): Promise<readonly string[]> {
  const stage = journalPath(directory, "onnx");
  await rm(stage, { recursive: true, force: true });
  await mkdir(stage, { recursive: true });
  const named = { ...model, producerName: "bitwright", producerVersion: version() };
  const files = await writeOnnxModel(join(stage, fileName), named, {
    external: settings.external === "auto" && hasExternalData(source) ? "always" : settings.external,
  });
  throwIfAborted(signal);
  const names = files.map((path) => basename(path));
  for (const name of names) await rename(join(stage, name), join(directory, name + PARTIAL));
  await rm(stage, { recursive: true, force: true });
  return names;
}

async function finishFiles(
  names: readonly string[],
  plan: Plan,
  sites: readonly SiteReport[],
  { model }: PreparedOnnx,
  { directory }: ClaimedOutput,
): Promise<void> {
  const files: Record<string, { bytes: number; sha256: string }> = {};
  for (const name of names) {
    const path = join(directory, name + PARTIAL);
    files[name] = { bytes: (await stat(path)).size, sha256: await hashFile(path) };
  }
  const manifest: Manifest & { readonly onnx: unknown } = {
    tool: "bitwright",
    version: version(),
    format: ONNX_FORMAT,
    // What is stored must not depend on this machine.
    plan: { ...plan, estimate: { ...plan.estimate, memoryBytes: 0, seconds: 0 } },
    sites: sites.map(({ sqnr, ...site }) => ({ ...site, sqnr: Number.isFinite(sqnr) ? sqnr : null })),
    tensors: {},
    files,
    pairs: [],
    factors: {},
    folds: {},
    replaced: [],
    onnx: { model: names[0]!, outputs: model.graph.outputs.map(({ name }) => name) },
  };
  await writeFileAtomic(join(directory, MANIFEST_FILE + PARTIAL), Buffer.from(`${JSON.stringify(manifest, undefined, 1)}\n`));
  await publish(directory, [...names, MANIFEST_FILE]);
}

function siteReport(choice: ChosenSite, context: RewriteContext, smoothed: SmoothedValue | undefined): SiteReport {
  const plan = sitePlanOf(choice);
  const parts = [
    plan.weight === undefined ? "float" : schemeName(plan.weight),
    ...(plan.input === undefined ? [] : [`in ${schemeName(plan.input)}`]),
  ];
  return {
    name: plan.name,
    scheme: parts.join(", "),
    sqnr: context.sqnr(plan.name),
    ...(smoothed && plan.weight !== undefined && { outlierBefore: smoothed.outlierBefore, outlierAfter: smoothed.outlierAfter }),
    ...(plan.reason !== undefined && { note: plan.reason }),
  };
}

function mismatch(directory: string, problems: readonly { readonly tensor: string; readonly problem: string }[]): VerifyError {
  const first = problems.slice(0, 3).map(({ tensor, problem }) => `${tensor}: ${problem}`);
  return new VerifyError("verify.mismatch", `${directory} is not what was meant to be written: ${first.join("; ")}`, { problems });
}

async function reportOf(parts: {
  readonly prepared: PreparedOnnx;
  readonly options: QuantizeOptions;
  readonly output: ClaimedOutput;
  readonly files: readonly string[];
  readonly final: Plan;
  readonly sites: readonly SiteReport[];
  readonly verified: QuantizeReport["verified"];
  readonly compared: OutputComparison;
  readonly started: number;
  readonly cpuBefore: NodeJS.CpuUsage;
}): Promise<QuantizeReport> {
  const { prepared, output, files, final, sites, verified, compared, started, cpuBefore } = parts;
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(output.directory, name))).size));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  const cpu = process.cpuUsage(cpuBefore);
  const sourceBytes = prepared.file === undefined ? prepared.sourceBytes : Math.max(prepared.sourceBytes, (await stat(prepared.file)).size);
  return {
    out: [{ format: ONNX_FORMAT, directory: output.directory, bytes, files: [...files, MANIFEST_FILE] }],
    plan: final,
    sites,
    sourceBytes,
    outputBytes: bytes,
    seconds: (performance.now() - started) / 1000,
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
    peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
    resumed: output.resumed,
    verified,
    warnings: [...final.notes, ...compared.notes],
    ...(compared.cosine !== undefined && {
      fidelity: { samples: compared.samples, cosine: compared.cosine, worstCosine: compared.worst! },
    }),
  };
}

/** @throws {VerifyError} `verify.gate`, with the report in its details. */
function gate(report: QuantizeReport, { cosine }: OutputComparison, options: QuantizeOptions): void {
  if (options.gate === undefined) return;
  const sqnr = report.sites.reduce((worst, site) => Math.min(worst, site.sqnr), Infinity);
  checkGate(options.gate, { sqnr, ...(cosine !== undefined && { cosine }) }, { report });
}

/** For `quantize`: whether a source goes here. */
export async function isOnnxSource(source: string | Model): Promise<boolean> {
  return (await onnxSource(source)) !== undefined;
}
