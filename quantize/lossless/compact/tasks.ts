/**
 * Threads for compact files, and the decoding of one file as tasks for them.
 * @module
 */
import { createHash } from "node:crypto";
import { extname } from "node:path";
import { FormatError } from "../../../core/errors.ts";
import type { CompactFile } from "../../../formats/containers/compact/read.ts";
import type { RangeEncoder } from "../../../formats/containers/compact/encoder.ts";
import { run as encode, type CompactAnswer, type CompactTask } from "../../../kernels/compact/tensor.ts";
import { threadCompactCoder } from "../../../kernels/compact/thread-coder.ts";
import { createPool, type Pool } from "../../../kernels/pool.ts";
import { isLarge, PART_BYTES, runInOrder } from "../in-order.ts";
import { run as decode, type DecodeResult, type DecodeTask, type TensorsTask } from "./job.ts";

/** Decoded bytes of one task, about. */
const TASK_BYTES = 2 ** 25;
/** Below this, starting threads takes longer than the work. */
const THREADED_BYTES = 2 ** 23;

const extension = extname(new URL(import.meta.url).pathname);

/** @param bytes - of the whole work. */
export function createEncodePool(workers: number, bytes: number): Pool<CompactTask, CompactAnswer> {
  const module = new URL(`../../../kernels/compact/tensor${extension}`, import.meta.url);
  return createPool({ workers: bytes < THREADED_BYTES ? 0 : workers, module, run: encode });
}

/** The threads of a pool as what a writer needs. */
export function rangeEncoder(pool: Pool<CompactTask, CompactAnswer>, signal?: AbortSignal): RangeEncoder {
  const ask = async <K extends keyof Answers>(task: CompactTask, key: K): Promise<Answers[K]> =>
    ((await pool.run(task, { signal })) as Answers)[key];
  return {
    fitColumns: (view, bytes) => ask({ kind: "columns", view, bytes }, "columns"),
    countBytes: (bytes) => ask({ kind: "count", bytes }, "counts"),
    async encode(range, bytes, { whole }) {
      const encoded = await ask({ kind: "encode", range, bytes, blocks: whole }, "encoded");
      if (encoded === undefined) return undefined;
      const { plan, rows, lengths, checksums } = encoded;
      const total = lengths.reduce((sum, length) => sum + length, 0);
      return { plan, rows, lengths, checksums, blocks: [whole.subarray(0, total)] };
    },
    checksum: (bytes) => threadCompactCoder().checksum(bytes),
  };
}

type Answers = Extract<CompactAnswer, { columns: unknown }> &
  Extract<CompactAnswer, { counts: unknown }> &
  Pick<Extract<CompactAnswer, { encoded?: unknown }>, "encoded">;

/** @param bytes - of the whole work. */
export function createDecodePool(workers: number, bytes: number): Pool<DecodeTask, DecodeResult> {
  const module = new URL(`./job${extension}`, import.meta.url);
  return createPool({ workers: bytes < THREADED_BYTES ? 0 : workers, module, run: decode });
}

/** What is to be decoded of a file. */
export interface FileWork {
  readonly path: string;
  readonly file: CompactFile;
  /** File that receives it. */
  readonly to?: string;
}

export interface DecodeOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (bytes: number) => void;
  /** Told of decoded bytes that are in their file. */
  readonly onWritten?: (path: string, offset: number, bytes: number) => void;
}

type Tensors = TensorsTask["tensors"];

/** All but the large tensors of a file, in tasks, the largest first, so that no thread is left with one at the end. */
function tasksOf({ path, to }: FileWork, places: Tensors): readonly TensorsTask[] {
  const tasks: TensorsTask[] = [];
  let group: Tensors[number][] = [];
  let bytes = 0;
  const flush = (): void => {
    if (group.length > 0) tasks.push({ path, tensors: group, ...(to !== undefined && { to }) });
    [group, bytes] = [[], 0];
  };
  for (const place of places.toSorted((a, b) => b.bytes - a.bytes)) {
    group.push(place);
    bytes += place.bytes;
    if (bytes >= TASK_BYTES) flush();
  }
  flush();
  return tasks;
}

/** Places of a file's tensors in the file it stands for. */
function placesOf({ header, tensors }: CompactFile): Tensors {
  let offset = header.length;
  return [...tensors.values()].map(({ name, byteLength }) => {
    offset += byteLength;
    return { name, offset: offset - byteLength, bytes: byteLength };
  });
}

/**
 * Decode files and check every tensor's SHA-256. A large tensor is decoded by all threads.
 *
 * @returns what is wrong with tensors that do not decode, when nothing is written.
 * @throws {FormatError} for the first one that does not, when it is.
 */
export async function decodeFiles(
  work: readonly FileWork[],
  pool: Pool<DecodeTask, DecodeResult>,
  options: DecodeOptions,
): Promise<DecodeResult> {
  const total = work.reduce((sum, { file }) => sum + file.fileBytes, 0);
  const inParts = ({ bytes }: Tensors[number]): boolean => isLarge(bytes, total, pool.workers);
  const damaged: DecodeResult[number][] = [];
  for (const item of work) {
    for (const place of placesOf(item.file).filter(inParts)) {
      try {
        await decodeLarge(item, place, pool, options);
      } catch (error) {
        if (item.to !== undefined || !(error instanceof FormatError)) throw error;
        damaged.push({ tensor: place.name, code: error.code, problem: error.message });
      }
    }
  }
  const tasks = work.flatMap((item) =>
    tasksOf(
      item,
      placesOf(item.file).filter((place) => !inParts(place)),
    ),
  );
  const { onWritten, ...rest } = options;
  const results = await pool.map(tasks, {
    ...rest,
    onResult(_result, i) {
      const { tensors, to } = tasks[i]!;
      if (to !== undefined) for (const { offset, bytes } of tensors) onWritten?.(to, offset, bytes);
    },
  });
  return [...damaged, ...results.flat()];
}

/** Numbers the decodings of large tensors. */
let runs = 0;

async function decodeLarge(
  { path, file, to: target }: FileWork,
  { name, offset, bytes }: Tensors[number],
  pool: Pool<DecodeTask, DecodeResult>,
  { onWritten, ...options }: DecodeOptions,
): Promise<void> {
  const { sha256, tail } = await file.stored(name);
  const { unitBytes } = tail;
  const blocks = tail.checksums.length;
  const most = Math.max(1, Math.floor(PART_BYTES / unitBytes));
  const parts = Array.from({ length: Math.ceil(blocks / most) }, (_, i) => {
    const [from, to] = [i * most, Math.min((i + 1) * most, blocks)];
    return { from, to, at: from * unitBytes, length: Math.min(to * unitBytes, bytes) - from * unitBytes };
  });
  const hash = createHash("sha256");
  const run = ++runs;
  await runInOrder(
    parts,
    2 * pool.workers + 1,
    most * unitBytes,
    async ({ from, to, at, length }, into) => {
      const place = target === undefined ? {} : { place: { path: target, offset: offset + at } };
      await pool.run({ path, run, tensor: name, from, to, into: into.subarray(0, length), ...place }, options);
    },
    ({ at, length }, into) => {
      hash.update(into.subarray(0, length));
      if (target !== undefined) onWritten?.(target, offset + at, length);
    },
  );
  const found = hash.digest();
  if (!found.equals(sha256))
    throw new FormatError("format.checksum", `tensor ${name}: SHA-256 is ${found.toString("hex")}, not what was stored`, { tensor: name });
}
