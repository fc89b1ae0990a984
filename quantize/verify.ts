/**
 * Verify: re-read an artifact and compare it with its manifest, its plan and its source.
 * @module
 */
import { readdir } from "node:fs/promises";
import { FormatError, QuantError, throwIfAborted } from "../core/errors.ts";
import { schemeName } from "../core/scheme.ts";
import { toFloat32, type LazyTensor } from "../core/tensor.ts";
import { openCheckpoint, type Checkpoint } from "../formats/checkpoint.ts";
import { findLayout } from "../formats/layouts/index.ts";
import type { LayoutReading } from "../formats/layouts/layout.ts";
import { checkFiles } from "./check-files.ts";
import { orderedSource, readFold } from "./fold-records.ts";
import { foldWeight } from "./fold-state.ts";
import { hashBytes, MANIFEST_FILE, readManifest, type Manifest } from "./manifest.ts";
import { CHECKPOINT_TOOLS } from "../model/sources/tools.ts";
import { JOURNAL_DIRECTORY } from "./journal.ts";
import { readCompactRecord } from "./lossless/compact/record.ts";
import { verifyCompact } from "./lossless/compact/verify.ts";
import { losslessPart } from "./lossless/manifest.ts";
import { verifyLossless } from "./lossless/verify.ts";
import { verifyOnnx } from "./onnx/verify.ts";
import { hashRanges } from "./streaming/hash.ts";
import type { ProgressEvent, VerifyReport } from "./types.ts";

export interface VerifyOptions {
  /** The model it was made from: a path, or anything with its tensors. Every weight is then dequantized and compared. */
  readonly source?: string | { readonly tensors: ReadonlyMap<string, LazyTensor> };
  /** Threads that hash large artifacts. Default 2. */
  readonly workers?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

type Problem = VerifyReport["problems"][number];

const DEFAULT_WORKERS = 2;

/** SQNR measured while writing and while reading may differ by the order of additions only. */
const SQNR_TOLERANCE_DB = 0.01;

/**
 * Re-read every byte of an artifact.
 *
 * Checked: file list and hashes, tensor dtypes, shapes and hashes, schemes as planned, and with `source`: copied tensors byte for byte,
 * quantized ones by SQNR against the (folded) source and against what was measured while writing.
 *
 * @returns problems as data; a damaged artifact is a report, not an error.
 * @throws {FormatError} `format.missing` when there is no manifest.
 */
export async function verifyArtifact(directory: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  if ((await readCompactRecord(directory)) !== undefined) return verifyCompact(directory, options);
  const manifest = await readManifest(directory);
  if (losslessPart(manifest) !== undefined) return verifyLossless(directory, options);
  if (manifest.format === "onnx" && Object.hasOwn(manifest, "onnx"))
    return verifyOnnx(directory, options.signal === undefined ? {} : { signal: options.signal });
  const problems: Problem[] = [];
  let checkpoint: Checkpoint;
  try {
    checkpoint = await openCheckpoint(directory, CHECKPOINT_TOOLS);
  } catch (error) {
    if (!(error instanceof QuantError)) throw error;
    return { ok: false, tensors: 0, problems: [{ tensor: directory, problem: error.message }] };
  }
  const progress = progressOf(manifest, options);
  try {
    problems.push(...(await checkListed(directory, manifest, options)), ...(await checkTensors(checkpoint, manifest, options, progress)));
    const reading = await readLayout(checkpoint, problems);
    if (reading !== undefined) problems.push(...checkPlan(manifest, reading));
    const sound = new Set(problems.map(({ tensor }) => tensor));
    const worst =
      reading === undefined || options.source === undefined
        ? worstRecorded(manifest)
        : await compareSource(manifest, reading, sound, options, problems, progress);
    return { ok: problems.length === 0, tensors: checkpoint.tensors.size, ...(worst && { worst }), problems };
  } finally {
    await checkpoint.close();
  }
}

/** The lowest SQNR that was measured while writing. */
function worstRecorded({ sites }: Manifest): VerifyReport["worst"] {
  let worst: VerifyReport["worst"];
  for (const { name, sqnr } of sites) {
    if (sqnr !== null && (worst === undefined || sqnr < worst.sqnr)) worst = { tensor: `${name}.weight`, sqnr };
  }
  return worst;
}

function progressOf(manifest: Manifest, { source, onProgress }: VerifyOptions): () => void {
  const total = Object.keys(manifest.tensors).length + (source === undefined ? 0 : manifest.plan.sites.length);
  let done = 0;
  return () => onProgress?.({ phase: "verify", done: ++done, total: Math.max(total, done), unit: "tensors" });
}

async function checkListed(directory: string, manifest: Manifest, { signal }: VerifyOptions): Promise<readonly Problem[]> {
  const problems = await checkFiles(directory, Object.entries(manifest.files), signal);
  const known = new Set([
    ...Object.keys(manifest.files),
    ...Object.values(manifest.tensors).map(({ file }) => file),
    MANIFEST_FILE,
    JOURNAL_DIRECTORY,
  ]);
  for (const name of await readdir(directory)) {
    if (!known.has(name) && name.endsWith(".safetensors"))
      problems.push({ tensor: name, problem: "a weight file that is not in the manifest; loaders would read it" });
  }
  return problems;
}

async function checkTensors(
  { tensors }: Checkpoint,
  manifest: Manifest,
  options: VerifyOptions,
  progress: () => void,
): Promise<readonly Problem[]> {
  const problems: Problem[] = [];
  const whole: LazyTensor[] = [];
  for (const [name, { dtype, shape }] of Object.entries(manifest.tensors)) {
    const found = tensors.get(name);
    if (found === undefined) problems.push({ tensor: name, problem: "is missing" });
    else if (found.dtype !== dtype || found.shape.join() !== shape.join()) {
      problems.push({ tensor: name, problem: `is ${found.dtype} [${found.shape.join(", ")}], written was ${dtype} [${shape.join(", ")}]` });
    } else whole.push(found);
  }
  const hashes = await hashTensors(whole, options, progress);
  for (const [i, { name }] of whole.entries())
    if (hashes[i] !== manifest.tensors[name]!.sha256) problems.push({ tensor: name, problem: "has changed (sha256)" });
  for (const name of tensors.keys())
    if (!Object.hasOwn(manifest.tensors, name)) problems.push({ tensor: name, problem: "is not in the manifest" });
  return problems;
}

/** sha256 of the bytes of each tensor, without holding those that lie in files. */
async function hashTensors(
  tensors: readonly LazyTensor[],
  { workers = DEFAULT_WORKERS, signal }: VerifyOptions,
  onDone?: () => void,
): Promise<readonly string[]> {
  const ranges = tensors.flatMap(({ name, byteLength, location }) => (location === undefined ? [] : [{ name, byteLength, ...location }]));
  const inFiles = await hashRanges(ranges, { workers, signal, ...(onDone && { onDone }) });
  let next = 0;
  const hashes: string[] = [];
  for (const tensor of tensors) {
    throwIfAborted(signal);
    hashes.push(tensor.location === undefined ? hashBytes((await tensor.read()).bytes) : inFiles[next++]!);
  }
  return hashes;
}

async function readLayout(checkpoint: Checkpoint, problems: Problem[]): Promise<LayoutReading | undefined> {
  try {
    return await findLayout(checkpoint.config)?.read(checkpoint);
  } catch (error) {
    if (!(error instanceof QuantError)) throw error;
    problems.push({ tensor: "config.json", problem: error.message });
    return undefined;
  }
}

/** Every site is stored as planned. Dialects and scale dtypes choose numbers, not their meaning, so they do not count. */
function checkPlan({ plan }: Manifest, { weights, activations }: LayoutReading): readonly Problem[] {
  return plan.sites.flatMap(({ name, weight, input, output }) => {
    const stored = [weights.get(name), activations.get(name)?.input?.scheme, activations.get(name)?.output?.scheme];
    return [weight, input, output].flatMap((planned, i) => {
      const [want, found] = [planned, stored[i]].map((scheme) => (scheme === undefined ? "float" : schemeName(scheme)));
      return want === found ? [] : [{ tensor: name, problem: `${["weight", "input", "output"][i]} is ${found}, planned was ${want}` }];
    });
  });
}

async function compareSource(
  manifest: Manifest,
  reading: LayoutReading,
  broken: ReadonlySet<string>,
  options: VerifyOptions,
  problems: Problem[],
  progress: () => void,
): Promise<VerifyReport["worst"]> {
  const { source, signal } = options;
  const opened = typeof source === "string" ? await openCheckpoint(source, CHECKPOINT_TOOLS) : undefined;
  const originals =
    opened !== undefined
      ? orderedSource(manifest, opened.tensors)
      : (source as { readonly tensors: ReadonlyMap<string, LazyTensor> }).tensors;
  const sites = new Map<string, string>(
    manifest.plan.sites.flatMap((site) => (site.weight === undefined ? [] : [[`${site.name}.weight`, site.name] as const])),
  );
  const measured = new Map(manifest.sites.map(({ name, sqnr }) => [name, sqnr ?? Infinity]));
  const copied: LazyTensor[] = [];
  let worst: VerifyReport["worst"];
  try {
    for (const [name, original] of originals) {
      throwIfAborted(signal);
      const stored = reading.tensors.get(name);
      const site = sites.get(name);
      if (stored === undefined) problems.push({ tensor: name, problem: "of the source is not in the artifact" });
      else if (site !== undefined) {
        if (broken.has(name)) continue;
        const sqnr = await compareWeight(manifest, name, original, stored).catch((error: unknown) => {
          if (!(error instanceof FormatError)) throw error;
          problems.push({ tensor: name, problem: error.message });
          return undefined;
        });
        if (sqnr === undefined) continue;
        if (worst === undefined || sqnr < worst.sqnr) worst = { tensor: name, sqnr };
        const expected = measured.get(site)!;
        if (sqnr < expected - SQNR_TOLERANCE_DB || Number.isNaN(sqnr))
          problems.push({
            tensor: name,
            problem: `SQNR to the source is ${sqnr.toFixed(2)} dB, measured while writing: ${expected.toFixed(2)} dB`,
          });
        progress();
      } else if (!manifest.replaced.includes(name) && !Object.hasOwn(manifest.folds, name)) {
        copied.push(original);
      }
    }
    const hashes = await hashTensors(copied, options);
    for (const [i, { name }] of copied.entries()) {
      const kept = Object.hasOwn(manifest.tensors, name) && manifest.tensors[name]!.sha256 === hashes[i];
      if (!kept) problems.push({ tensor: name, problem: "differs from the source, but nothing was planned for it" });
    }
  } finally {
    await opened?.close();
  }
  return worst;
}

/** SQNR of a stored weight against its source with the folds applied, dB. */
async function compareWeight(manifest: Manifest, name: string, original: LazyTensor, stored: LazyTensor): Promise<number> {
  const [rows, cols] = [original.shape[0] ?? 1, original.shape[1] ?? 1];
  const fold = readFold(manifest, name);
  const values = toFloat32(await original.read());
  const wanted = fold === undefined ? values : foldWeight(values, fold, { rows, cols, channelAxis: 0 });
  const found = toFloat32(await stored.read());
  if (found.length !== wanted.length)
    throw new FormatError("format.field", `${name} dequantizes to ${found.length} values, the source has ${wanted.length}`, { name });
  let signal = 0;
  let noise = 0;
  for (let i = 0; i < wanted.length; i++) {
    signal += wanted[i]! * wanted[i]!;
    noise += (wanted[i]! - found[i]!) ** 2;
  }
  return noise === 0 ? Infinity : 10 * Math.log10(signal / noise);
}
