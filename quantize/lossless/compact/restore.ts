/**
 * Restore a compact artifact: its safetensors files as they were, every other file as it is.
 * @module
 */
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { inflateSync } from "node:zlib";
import { FormatError } from "../../../core/errors.ts";
import { replaceFile, syncDirectory, writeFully } from "../../../formats/containers/atomic.ts";
import { openCompactFile } from "../../../formats/containers/compact/open.ts";
import { MANIFEST_FILE } from "../../manifest.ts";
import { PARTIAL } from "../../output-directory.ts";
import type { ProgressEvent } from "../../types.ts";
import { claimEmpty } from "../claim.ts";
import { followFiles, type FollowingHashes } from "../following-hash.ts";
import { shortHash, sourceName, type CompactRecord } from "./record.ts";
import { createDecodePool, decodeFiles, type FileWork } from "./tasks.ts";

/** A manifest of this tool is never larger. */
const MAX_ORIGINAL_BYTES = 2 ** 28;

interface Options {
  readonly out: string;
  readonly workers?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

interface Restored {
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly sha256: string }[];
  readonly others: readonly string[];
  readonly notes: readonly string[];
}

/**
 * Every tensor is compared with its SHA-256 before any file gets its name; on an error nothing is left behind.
 *
 * @throws {FormatError} `format.checksum` / `format.field` naming the tensor that is damaged, `format.missing`, `format.truncated`;
 *   {InputError} `input.output-exists` when `out` is not empty; {InterruptedError}.
 */
export async function restoreCompact(artifact: string, record: CompactRecord, options: Options): Promise<Restored> {
  const { out, workers = 2, signal, onProgress } = options;
  const isNew = await claimEmpty(artifact, out);
  const written: string[] = [];
  const hashes = followFiles();
  try {
    const files = await writeWeights(
      artifact,
      record,
      { out, workers, ...(signal && { signal }), ...(onProgress && { onProgress }) },
      written,
      hashes,
    );
    const others = await writeOthers(artifact, record, out, written);
    const hashed = [];
    for (const { name, bytes } of files) hashed.push({ name, bytes, sha256: await hashes.digest(join(out, name + PARTIAL)) });
    for (const name of written) await rename(join(out, name + PARTIAL), join(out, name));
    await syncDirectory(out);
    const notes =
      record.cast === undefined
        ? []
        : ["the weights were rounded to bf16 when the artifact was made (--cast bf16): this is the rounded model, not the source"];
    return { files: hashed, others, notes };
  } catch (error) {
    await hashes.close();
    for (const name of written) await rm(join(out, name + PARTIAL), { force: true });
    if (isNew) await rm(out, { recursive: true, force: true });
    throw error;
  }
}

async function writeWeights(
  artifact: string,
  { weights }: CompactRecord,
  { out, workers, signal, onProgress }: Options & { readonly workers: number },
  written: string[],
  hashes: FollowingHashes,
): Promise<readonly { readonly name: string; readonly bytes: number }[]> {
  const files = [];
  const work: FileWork[] = [];
  for (const stored of weights) {
    const path = join(artifact, stored);
    if ((await stat(path).catch(() => undefined)) === undefined)
      throw new FormatError("format.missing", `the artifact lacks ${stored}`, { file: stored });
    const file = await openCompactFile(path);
    const name = sourceName(stored);
    const target = join(out, name + PARTIAL);
    await mkdir(dirname(target), { recursive: true });
    written.push(name);
    const handle = await open(target, "w");
    try {
      await writeFully(handle, file.header);
      await handle.truncate(file.fileBytes);
    } finally {
      await handle.close();
    }
    hashes.add(target, file.fileBytes, file.header.length);
    work.push({ path, file, to: target });
    files.push({ name, bytes: file.fileBytes });
  }
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  const pool = createDecodePool(workers, total);
  try {
    await decodeFiles(work, pool, {
      onWritten: hashes.wrote,
      ...(signal && { signal }),
      onProgress: (bytes) => onProgress?.({ phase: "write", done: (done += bytes), total, unit: "bytes" }),
    });
  } finally {
    // Nothing is under way any more when `decodeFiles` throws.
    await pool.close();
  }
  return files;
}

async function writeOthers(
  artifact: string,
  { files, original }: CompactRecord,
  out: string,
  written: string[],
): Promise<readonly string[]> {
  const put = async (name: string, content: Uint8Array): Promise<void> => {
    await mkdir(dirname(join(out, name)), { recursive: true });
    written.push(name);
    await replaceFile(join(out, name + PARTIAL), (handle) => writeFully(handle, content));
  };
  for (const [name, hash] of Object.entries(files)) {
    const content = await readFile(join(artifact, name)).catch((cause: unknown) => {
      throw new FormatError("format.missing", `the artifact lacks ${name}`, { file: name }, { cause });
    });
    if (shortHash(content) !== hash)
      throw new FormatError("format.checksum", `${name} has changed since the artifact was written (sha256)`, { file: name });
    await put(name, content);
  }
  if (original === undefined) return Object.keys(files);
  await put(MANIFEST_FILE, unpackOriginal(original));
  return [...Object.keys(files), MANIFEST_FILE];
}

function unpackOriginal(text: string): Uint8Array {
  try {
    return inflateSync(Buffer.from(text, "base64"), { maxOutputLength: MAX_ORIGINAL_BYTES });
  } catch (cause) {
    throw new FormatError(
      "format.field",
      `${MANIFEST_FILE}: what is kept of the source's does not unpack`,
      { name: MANIFEST_FILE },
      { cause },
    );
  }
}
