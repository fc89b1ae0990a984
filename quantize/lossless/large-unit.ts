/**
 * Decoding of stored units on a pool: one thread each, or all threads where one unit is most of the work.
 * @module
 */
import { byteLength } from "../../core/dtype.ts";
import { isLarge, PART_BYTES, runInOrder } from "./in-order.ts";
import { checkHashes, createHashes, splitUnit, type DecodeTask } from "./job.ts";
import type { LosslessPool } from "./prepare.ts";
import type { DecodeWork } from "./stored.ts";

interface Options {
  readonly signal?: AbortSignal;
  /** Told of decoded bytes that are in their file. */
  readonly onWritten?: (path: string, offset: number, bytes: number) => void;
}

/** What a finished task has written. */
export function tellWritten({ task }: DecodeWork, onWritten: NonNullable<Options["onWritten"]>): void {
  if (task.kind === "decode")
    for (const { spec, to } of task.members) if (to !== undefined) onWritten(to.path, to.offset, byteLength(spec.dtype, spec.shape));
  if (task.kind === "copy") for (const { from, to } of task.copies) if (to !== undefined) onWritten(to.path, to.offset, from.byteLength);
}

/** Work whose parts go to all threads, which is to be done first, and the rest. */
export function partition(
  work: readonly DecodeWork[],
  workers: number,
): { readonly large: readonly DecodeWork[]; readonly rest: readonly DecodeWork[] } {
  const total = work.reduce((sum, item) => sum + decodedBytes(item), 0);
  const inParts = (item: DecodeWork): boolean => item.task.kind === "decode" && isLarge(decodedBytes(item), total, workers);
  return { large: work.filter(inParts), rest: work.filter((item) => !inParts(item)) };
}

function decodedBytes({ task, bytes }: DecodeWork): number {
  if (task.kind !== "decode") return bytes;
  return task.members.reduce((sum, { spec }) => sum + byteLength(spec.dtype, spec.shape), 0);
}

/** As the task, by all threads of the pool. @throws what the task throws. */
export async function decodeLarge({ task }: DecodeWork, pool: LosslessPool, { signal, onWritten }: Options): Promise<void> {
  const whole = task as DecodeTask;
  const parts = (await splitUnit(whole, PART_BYTES)).map((part) => ({ part, bytes: part.runs.reduce((sum, run) => sum + run.bytes, 0) }));
  const hashes = createHashes(whole.members);
  await runInOrder(
    parts,
    2 * pool.workers + 1,
    parts.reduce((most, { bytes }) => Math.max(most, bytes), 0),
    async ({ part, bytes }, into) => void (await pool.run({ ...whole, part, into: into.subarray(0, bytes) }, { signal })),
    ({ part }, into) => {
      let at = 0;
      for (const { member, offset, bytes } of part.runs) {
        hashes.add(member, into.subarray(at, (at += bytes)));
        const { to } = whole.members[member]!;
        if (to !== undefined) onWritten?.(to.path, to.offset + offset, bytes);
      }
    },
  );
  checkHashes(whole, hashes);
}
