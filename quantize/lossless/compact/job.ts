/**
 * What a worker thread does with a compact file: decode tensors, check them, and write them where they were in the source.
 * @module
 */
import { open } from "node:fs/promises";
import { FormatError } from "../../../core/errors.ts";
import { writeRange } from "../../../formats/containers/atomic.ts";
import { openCompactFile } from "../../../formats/containers/compact/open.ts";
import { createCompactCoder } from "../../../kernels/compact/coder.ts";
import type { JobContext } from "../../../kernels/pool.ts";

/** Tensors of one file. */
export interface DecodeTask {
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

/** What is wrong with each tensor that does not decode. */
export type DecodeResult = readonly { readonly tensor: string; readonly code: string; readonly problem: string }[];

/**
 * A pool's job. With `to`, the first damage is thrown; without, all of it is returned.
 *
 * @throws {FormatError} `format.checksum`, `format.field` naming the tensor.
 */
export async function run({ path, tensors, to }: DecodeTask, { workspace, breathe, progress }: JobContext): Promise<DecodeResult> {
  const mark = workspace.mark();
  const target = to === undefined ? undefined : await open(to, "r+");
  const damaged: { tensor: string; code: string; problem: string }[] = [];
  try {
    const file = await openCompactFile(path, createCompactCoder(workspace));
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
    workspace.release(mark);
    await target?.close();
  }
}
