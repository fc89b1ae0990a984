/**
 * What turns ranges of tensors into blocks: this thread, or workers.
 * @module
 */
import type { BlockCoder } from "../../encodings/compact/coder.ts";
import { encodeRange, type RangeTask, type TensorPlan } from "../../encodings/compact/ranges.ts";
import type { MatrixView } from "../../encodings/compact/view.ts";

/** A range once encoded. */
export interface EncodedRange {
  readonly plan: TensorPlan;
  readonly rows: Int16Array;
  /** Bytes of each block. */
  readonly lengths: readonly number[];
  /** The blocks one after another, in pieces; they may lie where the elements were. */
  readonly blocks: readonly Uint8Array[];
  readonly checksums: readonly number[];
}

/** A piece of memory for the elements of a range, and then for its blocks. */
export interface RangeBuffer {
  /** Starts a little before the elements: a block may be up to three bytes longer than its elements. */
  readonly whole: Uint8Array;
  /** Room for the elements. */
  readonly elements: Uint8Array;
}

/** Bytes before the elements: there are fewer than 64 blocks in a range. */
const SLACK = 256;

export function createRangeBuffer(bytes: number): RangeBuffer {
  const whole = new Uint8Array(new SharedArrayBuffer(SLACK + bytes));
  return { whole, elements: whole.subarray(SLACK) };
}

/** Several calls may be under way at a time. */
export interface RangeEncoder {
  fitColumns(view: MatrixView, sample: Uint8Array): Promise<Int16Array>;
  countBytes(bytes: Uint8Array): Promise<Float64Array>;
  /** @param elements - the first bytes of `buffer.elements`. @returns undefined as `encodeRange`. */
  encode(task: RangeTask, elements: Uint8Array, buffer: RangeBuffer): Promise<EncodedRange | undefined>;
  checksum(bytes: Uint8Array): number;
}

/** Encodes with `coder` in this thread. */
export function encodeWith(coder: BlockCoder): RangeEncoder {
  return {
    fitColumns: async (view, sample) => coder.fitColumns(view, sample),
    countBytes: async (bytes) => coder.countBytes(bytes),
    async encode(task, elements) {
      const encoded = encodeRange(task, elements, coder);
      return encoded && { ...encoded, lengths: encoded.blocks.map(({ length }) => length) };
    },
    checksum: (bytes) => coder.checksum(bytes),
  };
}
