/**
 * Threads for compact files, and the decoding of one file as tasks for them.
 * @module
 */
import { extname } from "node:path";
import type { CompactFile } from "../../../formats/containers/compact/read.ts";
import type { RangeEncoder } from "../../../formats/containers/compact/encoder.ts";
import { run as encode, type CompactAnswer, type CompactTask } from "../../../kernels/compact/tensor.ts";
import { threadCompactCoder } from "../../../kernels/compact/thread-coder.ts";
import { createPool, type Pool } from "../../../kernels/pool.ts";
import { run as decode, type DecodeResult, type DecodeTask } from "./job.ts";

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

/** All tensors of a file, in tasks, the largest first, so that no thread is left with one at the end. @param to - file that receives them. */
export function decodeTasks(path: string, { header, tensors }: CompactFile, to?: string): readonly DecodeTask[] {
  const places: DecodeTask["tensors"][number][] = [];
  let offset = header.length;
  for (const { name, byteLength } of tensors.values()) {
    places.push({ name, offset, bytes: byteLength });
    offset += byteLength;
  }
  const tasks: DecodeTask[] = [];
  let group: DecodeTask["tensors"][number][] = [];
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
