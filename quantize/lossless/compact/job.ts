/**
 * What a worker thread does with a compact file: decode tensors, check them, and write them where they were in the source.
 * @module
 */
import { open } from "node:fs/promises";
import { FormatError } from "../../../core/errors.ts";
import { writeRange } from "../../../formats/containers/atomic.ts";
import { openCompactFile } from "../../../formats/containers/compact/open.ts";
import type { CompactFile } from "../../../formats/containers/compact/read.ts";
import { threadCompactCoder } from "../../../kernels/compact/thread-coder.ts";
import type { JobContext } from "../../../kernels/pool.ts";

/** Tensors of one file, or some blocks of one tensor. */
export type DecodeTask = TensorsTask | BlocksTask;

export interface TensorsTask {
  readonly path: string;
  readonly tensors: readonly {
    readonly name: string;
    /** First byte in the source file. */
    readonly offset: number;
    readonly bytes: number;
  }[];
  /** File to write them to, there already; without it they are only checked. */
  readonly to?: string;
}

export interface BlocksTask {
  readonly path: string;
  /** The same for parts of one decoding, in which the file stays as it is. */
  readonly run: number;
  readonly tensor: string;
  readonly from: number;
  readonly to: number;
  /** Room for their bytes, in shared memory. */
  readonly into: Uint8Array;
  /** Where they are written, too. */
  readonly place?: { readonly path: string; readonly offset: number };
}

/** What is wrong with each tensor that does not decode. */
export type DecodeResult = readonly { readonly tensor: string; readonly code: string; readonly problem: string }[];

/**
 * A pool's job. With `to`, the first damage is thrown; without, all of it is returned.
 *
 * @throws {FormatError} `format.checksum`, `format.field` naming the tensor.
 */
export async function run(task: DecodeTask, context: JobContext): Promise<DecodeResult> {
  return await ("tensors" in task ? decodeTensors(task, context) : decodeBlocks(task, context));
}

/** The file of this thread's last part: a large tensor's classes take long to read. */
let opened: { readonly run: number; readonly path: string; readonly file: CompactFile } | undefined;

async function decodeBlocks(
  { path, run: number, tensor, from, to, into, place }: BlocksTask,
  { breathe, progress }: JobContext,
): Promise<DecodeResult> {
  await breathe();
  if (opened?.run !== number || opened.path !== path)
    opened = { run: number, path, file: await openCompactFile(path, threadCompactCoder()) };
  await opened.file.readBlocks(tensor, from, to, into);
  if (place !== undefined) {
    const target = await open(place.path, "r+");
    try {
      await writeRange(target, place.offset, into);
    } finally {
      await target.close();
    }
  }
  progress(into.length);
  return [];
}

async function decodeTensors({ path, tensors, to }: TensorsTask, { breathe, progress }: JobContext): Promise<DecodeResult> {
  const target = to === undefined ? undefined : await open(to, "r+");
  const damaged: { tensor: string; code: string; problem: string }[] = [];
  try {
    const file = await openCompactFile(path, threadCompactCoder());
    for (const { name, offset, bytes } of tensors) {
      await breathe();
      try {
        let at = offset;
        for await (const piece of file.readPieces(name)) {
          if (target !== undefined) await writeRange(target, at, piece);
          at += piece.length;
          await breathe();
        }
      } catch (error) {
        if (target !== undefined || !(error instanceof FormatError)) throw error;
        damaged.push({ tensor: name, code: error.code, problem: error.message });
      }
      progress(bytes);
    }
    await file.close();
    return damaged;
  } finally {
    await target?.close();
  }
}
