/**
 * Verify a compact artifact: every tensor decoded and compared with its checksums, every other file hashed, and all with the source when there is one.
 * @module
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { QuantError } from "../../../core/errors.ts";
import type { LazyTensor } from "../../../core/tensor.ts";
import { COMPACT_EXTENSION, openCompactFile } from "../../../formats/containers/compact/open.ts";
import type { ProgressEvent, VerifyReport } from "../../types.ts";
import { compareSource } from "../compare-source.ts";
import { readCompactRecord, shortHash, type CompactRecord } from "./record.ts";
import { createDecodePool, decodeFiles, type FileWork } from "./tasks.ts";

export interface VerifyCompactOptions {
  readonly source?: string | { readonly tensors: ReadonlyMap<string, LazyTensor> };
  readonly workers?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

type Problem = VerifyReport["problems"][number];

/** @returns problems as data; a damaged artifact is a report, not an error. */
export async function verifyCompact(directory: string, options: VerifyCompactOptions = {}): Promise<VerifyReport> {
  const record = (await readCompactRecord(directory))!;
  const { signal, onProgress, workers = 2 } = options;
  const problems: Problem[] = [...(await checkFiles(directory, record))];
  const sizes = await Promise.all(
    record.weights.map(async (name) => (await stat(join(directory, name)).catch(() => undefined))?.size ?? 0),
  );
  const pool = createDecodePool(
    workers,
    sizes.reduce((sum, size) => sum + size, 0),
  );
  // SHA-256 of each tensor as the files have it, by component folder.
  const hashes = new Map<string, Map<string, string>>();
  let tensors = 0;
  let done = 0;
  try {
    const work: FileWork[] = [];
    let total = 0;
    for (const name of record.weights) {
      const path = join(directory, name);
      try {
        const file = await openCompactFile(path);
        tensors += file.tensors.size;
        total += file.fileBytes;
        work.push({ path, file });
        if (options.source !== undefined) await collectHashes(file, folderOf(name), hashes);
      } catch (error) {
        if (!(error instanceof QuantError)) throw error;
        problems.push({ tensor: name, problem: error.message });
      }
    }
    const damaged = await decodeFiles(work, pool, {
      ...(signal && { signal }),
      onProgress: (bytes) => onProgress?.({ phase: "verify", done: (done += bytes), total, unit: "bytes" }),
    });
    for (const { tensor, problem } of damaged) problems.push({ tensor, problem });
  } finally {
    await pool.close();
  }
  if (options.source !== undefined) problems.push(...(await compareSource(hashes, options.source, signal)));
  return { ok: problems.length === 0, tensors, problems: problems.toSorted((a, b) => (a.tensor < b.tensor ? -1 : 1)) };
}

const folderOf = (name: string): string => (name.includes("/") ? `${dirname(name)}/` : "");

async function collectHashes(
  file: Awaited<ReturnType<typeof openCompactFile>>,
  folder: string,
  into: Map<string, Map<string, string>>,
): Promise<void> {
  const own = into.get(folder) ?? new Map<string, string>();
  into.set(folder, own);
  for (const name of file.tensors.keys()) own.set(name, Buffer.from((await file.stored(name)).sha256).toString("hex"));
}

async function checkFiles(directory: string, { files, weights }: CompactRecord): Promise<readonly Problem[]> {
  const problems: Problem[] = [];
  for (const [name, hash] of Object.entries(files)) {
    const content = await readFile(join(directory, name)).catch(() => undefined);
    if (content === undefined) problems.push({ tensor: name, problem: "file is missing" });
    else if (shortHash(content) !== hash) problems.push({ tensor: name, problem: "file has changed (sha256)" });
  }
  const wanted = new Set(weights);
  for (const folder of new Set(weights.map(folderOf))) {
    for (const name of await readdir(join(directory, folder)).catch(() => [])) {
      const isWeights = name.endsWith(".safetensors") || name.endsWith(COMPACT_EXTENSION);
      if (isWeights && !wanted.has(folder + name))
        problems.push({ tensor: folder + name, problem: "a weight file that is not in the manifest; loaders would read it" });
    }
  }
  return problems;
}
