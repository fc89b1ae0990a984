/**
 * `--codec compact`: each safetensors file of the source becomes a compact file, every other file goes along as it is.
 * @module
 */
import { mkdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { deflateSync } from "node:zlib";
import { throwIfAborted } from "../../../core/errors.ts";
import { replaceFile, syncDirectory, writeFully } from "../../../formats/containers/atomic.ts";
import { openCompactFile } from "../../../formats/containers/compact/open.ts";
import { writeCompact } from "../../../formats/containers/compact/write.ts";
import type { Model } from "../../../model/model.ts";
import { checkBudgets } from "../../budgets.ts";
import { MANIFEST_FILE } from "../../manifest.ts";
import { claimOutput, finishOutput, PARTIAL, publish, type ClaimedOutput } from "../../output-directory.ts";
import type { Plan, QuantizeOptions, QuantizeReport } from "../../types.ts";
import { checkApart, keyOf, pathOf, requestOf } from "../claim.ts";
import type { CodecName } from "../codec.ts";
import { emitCompactKernels } from "./emit.ts";
import { prepareCompact, type PreparedCompact } from "./prepare.ts";
import { encodeRecord, shortHash } from "./record.ts";
import { createEncodePool, rangeEncoder } from "./tasks.ts";
import { verifyCompact } from "./verify.ts";

/** Up to this many source bytes the finished artifact is read back as a whole; above it, each tensor was decoded before it was written. */
const REREAD_BYTES = 2 ** 28;

type CompactCodec = Exclude<CodecName, "df11">;

/** The plan: samples are read, nothing is written. */
export async function planCompact(source: string | Model, codec: CompactCodec, options: QuantizeOptions): Promise<Plan> {
  const { plan } = await prepareCompact(pathOf(source), codec, options);
  return { ...plan, notes: [...plan.notes, "sizes are estimated from samples of the largest tensors"] };
}

/**
 * Compress without loss. Every tensor is decoded and compared before its file counts as written; interrupted, the same call goes on with
 * the file it was at.
 *
 * @throws {InputError}, {UnsupportedError}, {FormatError}, {BudgetError} before anything is written; {VerifyError}; {InterruptedError}.
 */
export async function quantizeCompact(source: string | Model, codec: CompactCodec, options: QuantizeOptions): Promise<QuantizeReport> {
  const started = performance.now();
  const cpuBefore = process.cpuUsage();
  throwIfAborted(options.signal);
  const path = pathOf(source);
  const { out: directory } = options;
  await checkApart(path, directory);
  const prepared = await prepareCompact(path, codec, options);
  const { plan } = prepared;
  await checkBudgets(plan, options);
  const key = await keyOf(prepared.source, codec, options);
  const output = await claimOutput({ directory, key, request: requestOf(path, options), force: options.force === true });
  try {
    const sizes = await writeWeights(prepared, output, options);
    const files = await writeOthers(prepared, directory);
    await publish(directory, files);
    const { signal, onProgress, workers } = options;
    const verified =
      plan.source.bytes <= REREAD_BYTES
        ? await verifyCompact(directory, {
            ...(signal && { signal }),
            ...(onProgress && { onProgress }),
            ...(workers !== undefined && { workers }),
          })
        : { ok: true, tensors: prepared.targets.reduce((sum, target) => sum + target.source.tensors.length, 0), problems: [] };
    await finishOutput(output);
    const all = await Promise.all(files.map(async (name) => (await stat(join(directory, name))).size));
    const outputBytes = all.reduce((sum, bytes) => sum + bytes, 0);
    const units = plan.lossless!.units.map((unit, i) => ({ ...unit, bitsPerWeight: (8 * sizes[i]!) / Math.max(1, unit.elements) }));
    const weightBytes = sizes.reduce((sum, bytes) => sum + bytes, 0);
    const parameters = Math.max(1, plan.source.parameters);
    const cpu = process.cpuUsage(cpuBefore);
    return {
      out: [{ format: codec, directory, bytes: outputBytes, files }],
      plan: { ...plan, lossless: { codec, units } },
      sites: units.map(({ name, bitsPerWeight }) => ({ name, scheme: `${codec} ${bitsPerWeight.toFixed(4)} bits`, sqnr: Infinity })),
      sourceBytes: plan.source.bytes,
      outputBytes,
      bitsPerWeight: { weights: (8 * weightBytes) / parameters, directory: (8 * outputBytes) / parameters },
      seconds: (performance.now() - started) / 1000,
      cpuSeconds: (cpu.user + cpu.system) / 1e6,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      resumed: output.resumed,
      verified,
      warnings: plan.notes,
    };
  } finally {
    await prepared.close();
    await output.journal.close();
  }
}

/** @returns bytes of each file. */
async function writeWeights(
  { level, targets }: PreparedCompact,
  { directory, journal }: ClaimedOutput,
  { signal, onProgress, workers = 2 }: QuantizeOptions,
): Promise<readonly number[]> {
  const total = targets.reduce((sum, { bytes }) => sum + bytes, 0);
  const pool = createEncodePool(workers, total);
  const sizes: number[] = [];
  let done = 0;
  try {
    for (const target of targets) {
      const { name, source, bytes } = target;
      const task = `file ${name}`;
      const finished = journal.finished.get(task)?.["bytes"];
      // Under its final name when an earlier process was killed after it had begun to publish.
      const places = [join(directory, name + PARTIAL), join(directory, name)];
      if (typeof finished === "number" && (await Promise.all(places.map(sizeOf))).includes(finished)) {
        sizes.push(finished);
        done += bytes;
        continue;
      }
      throwIfAborted(signal);
      const path = join(directory, name + PARTIAL);
      await mkdir(dirname(path), { recursive: true });
      const size = await writeCompact(path, source, {
        level,
        // Each worker has a range and the next one waiting; one is read, one is written.
        ahead: 2 * pool.workers + 2,
        encoder: rangeEncoder(pool, signal),
        onTensor: (facts) => onProgress?.({ phase: "quantize", done: (done += facts.bytes), total, unit: "bytes", detail: facts.name }),
      });
      await syncDirectory(dirname(path));
      await journal.append([{ task, record: { bytes: size } }]);
      sizes.push(size);
    }
    return sizes;
  } finally {
    await pool.close();
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    ({ size }) => size,
    () => undefined,
  );
}

/** Everything but the weights, each under its partial name. @returns all files in the order in which they appear. */
async function writeOthers({ source, level, targets, plan }: PreparedCompact, directory: string): Promise<readonly string[]> {
  const files = new Map<string, string>();
  let original: string | undefined;
  const put = async (name: string, content: Uint8Array): Promise<void> => {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await replaceFile(join(directory, name + PARTIAL), (handle) => writeFully(handle, content));
  };
  const weights = targets.map(({ name }) => name);
  for (const name of source.others) {
    const content = await readFile(join(source.root, name));
    if (name === MANIFEST_FILE) original = deflateSync(content, { level: 9 }).toString("base64");
    else {
      await put(name, content);
      files.set(name, shortHash(content));
    }
  }
  const { cast } = plan.recipe;
  const kernels =
    plan.recipe.kernels === undefined || plan.recipe.kernels.length === 0
      ? new Map<string, Uint8Array>()
      : await decoders(plan.recipe.kernels, directory, weights[0]!);
  for (const [name, content] of kernels) await put(name, content);
  const record = encodeRecord({
    level,
    weights,
    files: Object.fromEntries(files),
    ...(kernels.size > 0 && { kernels: [...kernels.keys()] }),
    ...(original !== undefined && { original }),
    ...(cast !== undefined && { cast }),
  });
  await put(MANIFEST_FILE, record);
  const small = [...files.keys()].filter((name) => name !== "config.json");
  return [...weights, ...kernels.keys(), ...small, ...(files.has("config.json") ? ["config.json"] : []), MANIFEST_FILE];
}

/** Decoders with a self-test on a file of the artifact, which may have its final name already. */
async function decoders(languages: readonly string[], directory: string, name: string): Promise<ReadonlyMap<string, Uint8Array>> {
  const partial = join(directory, name + PARTIAL);
  const file = await openCompactFile((await sizeOf(partial)) === undefined ? join(directory, name) : partial);
  return await emitCompactKernels(languages, name, file);
}
