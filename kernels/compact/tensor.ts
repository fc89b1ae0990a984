/**
 * Ranges of tensors through the compact coder, checked before they are handed on, as a job for workers.
 * @module
 */
import { VerifyError } from "../../core/errors.ts";
import type { BlockCoder } from "../../formats/encodings/compact/coder.ts";
import { encodeRange, type RangeResult, type RangeTask, type TensorPlan } from "../../formats/encodings/compact/ranges.ts";
import { blockBytes } from "../../formats/encodings/compact/block.ts";
import { BLOCK_ELEMENTS, RANGE_ELEMENTS, type MatrixView } from "../../formats/encodings/compact/view.ts";
import { wasm } from "../generated/compact.wasm.ts";
import type { Region, Workspace } from "../load-wasm.ts";
import type { JobContext } from "../pool.ts";
import { createCompactCoder } from "./coder.ts";
import { copyOut } from "./copies.ts";
import type { CompactKernel } from "./kernel.ts";

/**
 * Encode a range, decode what came out, compare.
 *
 * @param keep - sees each block once it is checked, in memory that the next one overwrites, and gives what is to be kept of it; elements of
 *   blocks up to there are not read any more. A copy when absent.
 * @param decoded - memory for the decoded elements of a block, best in the coder's workspace.
 * @throws {VerifyError} `verify.mismatch` when it does not decode to what was encoded: then the machine or this program is broken.
 */
export function encodeVerified(
  task: RangeTask,
  bytes: Uint8Array,
  coder: BlockCoder,
  keep: (block: Uint8Array) => Uint8Array = (block) => new Uint8Array(block),
  decoded: (bytes: number) => Uint8Array = (length) => new Uint8Array(length),
): RangeResult | undefined {
  const { name, view, level } = task;
  const unit = blockBytes(view, 0);
  return encodeRange(task, bytes, coder, (b, block, checksum, model) => {
    const part = bytes.subarray(b * unit, (b + 1) * unit);
    const out = decoded(part.length);
    const found = coder.decodeBlock(`tensor ${name}, block ${b}`, view, model, level, b, block, out);
    if (found !== checksum || Buffer.compare(out, part) !== 0) {
      throw new VerifyError("verify.mismatch", `tensor ${name}: block ${b} does not decode to what was encoded; nothing was written`, {
        tensor: name,
        block: b,
      });
    }
    return keep(block);
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

/** What a thread keeps for the coder's workspace. */
interface Kept {
  readonly coder: BlockCoder;
  readonly kernel: CompactKernel;
  /** Room for a range's elements and for a decoded block. */
  readonly elements: Region;
  readonly decoded: Region;
}

const kept = new WeakMap<Workspace, Kept>();

function keptFor(workspace: Workspace): Kept {
  let found = kept.get(workspace);
  if (found === undefined) {
    const elements = workspace.take(2 * RANGE_ELEMENTS);
    const decoded = workspace.take(2 * BLOCK_ELEMENTS);
    found = { elements, decoded, coder: createCompactCoder(workspace), kernel: workspace.kernel<CompactKernel>(wasm) };
    kept.set(workspace, found);
  }
  return found;
}

/** A pool's job. */
export async function run(task: CompactTask, { workspace, breathe }: JobContext): Promise<CompactAnswer> {
  await breathe();
  const { coder, kernel, elements, decoded } = keptFor(workspace);
  if (task.kind === "columns") return { columns: coder.fitColumns(task.view, task.bytes) };
  if (task.kind === "count") return { counts: coder.countBytes(task.bytes) };
  let bytes = task.bytes;
  if (bytes.length <= elements.byteLength) {
    // Everything that follows works on them where they lie then.
    bytes = workspace.bytes({ at: elements.at, byteLength: bytes.length });
    bytes.set(task.bytes);
  }
  let at = 0;
  const encoded = encodeVerified(
    task.range,
    bytes,
    coder,
    (block) => {
      // Blocks are never longer than their elements, padded: what is overwritten has been read.
      const to = task.blocks.subarray(at, (at += block.length));
      copyOut(workspace, kernel, block, to);
      return to;
    },
    (byteLength) => workspace.bytes({ at: decoded.at, byteLength }),
  );
  if (encoded === undefined) return {};
  const { plan, rows, blocks, checksums } = encoded;
  return { encoded: { plan, rows, lengths: blocks.map(({ length }) => length), checksums } };
}
