/**
 * Whole tensors through the compact coder, checked before they are handed on; and the same as a job for workers.
 * @module
 */
import { VerifyError } from "../../core/errors.ts";
import type { Tensor } from "../../core/tensor.ts";
import type { CompactLevel } from "../../formats/encodings/compact/block.ts";
import type { BlockCoder } from "../../formats/encodings/compact/coder.ts";
import { decodeBlocks, encodePayload, headLength, parseHead } from "../../formats/encodings/compact/payload.ts";
import type { JobContext } from "../pool.ts";
import { createCompactCoder } from "./coder.ts";

/**
 * Encode a tensor, decode what came out, compare.
 *
 * @returns the payload in pieces: head, blocks.
 * @throws {VerifyError} `verify.mismatch` when it does not decode to the tensor: then the machine or this program is broken.
 */
export function encodeVerified(
  name: string,
  { dtype, shape, bytes }: Tensor,
  level: CompactLevel,
  coder: BlockCoder,
): readonly Uint8Array[] {
  const pieces = encodePayload(dtype, shape, bytes, level, coder);
  const total = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const head = parseHead(name, dtype, shape, pieces[0]!.subarray(0, headLength(name, pieces[0]!, total)), total);
  // A raw payload holds the very bytes.
  if (head.coded === undefined) return pieces;
  const { view } = head.coded;
  const blockRows = view.rowsPerBlock * view.cols * view.elementBytes;
  const decoded = new Uint8Array(Math.min(blockRows, bytes.length));
  for (let b = 0, at = 0; b < view.blocks; b++) {
    const part = bytes.subarray(at, (at += blockRows));
    const out = decoded.subarray(0, part.length);
    decodeBlocks(name, head, b, b + 1, pieces[b + 1]!, coder, out);
    if (Buffer.compare(out, part) !== 0) {
      throw new VerifyError("verify.mismatch", `tensor ${name}: block ${b} does not decode to what was encoded; nothing was written`, {
        tensor: name,
        block: b,
      });
    }
  }
  return pieces;
}

/** Plain data for a worker. */
export interface EncodeTask {
  readonly name: string;
  readonly tensor: Tensor;
  readonly level: CompactLevel;
}

/** A pool's job: `EncodeTask` to payload pieces. */
export async function run({ name, tensor, level }: EncodeTask, { workspace, breathe }: JobContext): Promise<readonly Uint8Array[]> {
  await breathe();
  const mark = workspace.mark();
  try {
    return encodeVerified(name, tensor, level, createCompactCoder(workspace));
  } finally {
    workspace.release(mark);
  }
}
