/**
 * Ranges of tensors through the compact coder, checked before they are handed on, as a job for workers.
 * @module
 */
import { VerifyError } from "../../core/errors.ts";
import type { BlockCoder } from "../../formats/encodings/compact/coder.ts";
import { encodeRange, type RangeResult, type RangeTask, type TensorPlan } from "../../formats/encodings/compact/ranges.ts";
import { blockBytes } from "../../formats/encodings/compact/block.ts";
import type { MatrixView } from "../../formats/encodings/compact/view.ts";
import type { JobContext } from "../pool.ts";
import type { Workspace } from "../load-wasm.ts";
import { createCompactCoder } from "./coder.ts";

/**
 * Encode a range, decode what came out, compare.
 *
 * @param onBlock - sees each block once it is checked; elements of blocks up to there are not read any more.
 * @throws {VerifyError} `verify.mismatch` when it does not decode to what was encoded: then the machine or this program is broken.
 */
export function encodeVerified(
  task: RangeTask,
  bytes: Uint8Array,
  coder: BlockCoder,
  onBlock?: (block: Uint8Array) => void,
): RangeResult | undefined {
  const { name, view, level } = task;
  const unit = blockBytes(view, 0);
  const decoded = new Uint8Array(Math.min(unit, bytes.length));
  return encodeRange(task, bytes, coder, (b, block, checksum, model) => {
    const part = bytes.subarray(b * unit, (b + 1) * unit);
    const out = decoded.subarray(0, part.length);
    const found = coder.decodeBlock(`tensor ${name}, block ${b}`, view, model, level, b, block, out);
    if (found !== checksum || Buffer.compare(out, part) !== 0) {
      throw new VerifyError("verify.mismatch", `tensor ${name}: block ${b} does not decode to what was encoded; nothing was written`, {
        tensor: name,
        block: b,
      });
    }
    onBlock?.(block);
  });
}

/** Plain data for a worker; `bytes` lie in shared memory. */
export type CompactTask =
  | { readonly kind: "columns"; readonly view: MatrixView; readonly bytes: Uint8Array }
  | { readonly kind: "count"; readonly bytes: Uint8Array }
  /** `bytes` are replaced by the blocks, one after the other; there is room for four bytes more. */
  | { readonly kind: "encode"; readonly range: RangeTask; readonly bytes: Uint8Array; readonly blocks: Uint8Array };

export type CompactAnswer =
  | { readonly columns: Int16Array }
  | { readonly counts: Float64Array }
  /** Nothing when a table would not save enough. */
  | {
      readonly encoded?: {
        readonly plan: TensorPlan;
        readonly rows: Int16Array;
        readonly lengths: readonly number[];
        readonly checksums: readonly number[];
      };
    };

const coders = new WeakMap<Workspace, BlockCoder>();

/** A pool's job. */
export async function run(task: CompactTask, { workspace, breathe }: JobContext): Promise<CompactAnswer> {
  await breathe();
  let coder = coders.get(workspace);
  if (coder === undefined) {
    coder = createCompactCoder(workspace);
    coders.set(workspace, coder);
  }
  if (task.kind === "columns") return { columns: coder.fitColumns(task.view, task.bytes) };
  if (task.kind === "count") return { counts: coder.countBytes(task.bytes) };
  let at = 0;
  const encoded = encodeVerified(task.range, task.bytes, coder, (block) => {
    // Blocks are never longer than their elements, padded: what is overwritten has been read.
    task.blocks.set(block, at);
    at += block.length;
  });
  if (encoded === undefined) return {};
  const { plan, rows, blocks, checksums } = encoded;
  return { encoded: { plan, rows, lengths: blocks.map(({ length }) => length), checksums } };
}
