/**
 * What works on the elements themselves: the definition here, its fast twin in `kernels/compact`.
 * Both give the same bytes.
 * @module
 */
import { decodeBlock, encodeBlock, type CompactLevel } from "./block.ts";
import { checksum } from "./checksum.ts";
import { fitClasses, type Classes } from "./classes.ts";
import type { TensorModel } from "./symbols.ts";
import type { MatrixView } from "./view.ts";

/** An encoded block (fresh memory) and the checksum of its elements. */
export interface CheckedBlock {
  readonly block: Uint8Array;
  readonly checksum: number;
}

export interface BlockCoder {
  /** @param bytes - all elements of a float tensor. */
  fitClasses(view: MatrixView, bytes: Uint8Array): Classes;
  /** Occurrences by byte value. */
  countBytes(bytes: Uint8Array): Float64Array;
  /** @param bytes - the elements of block `b`. */
  encodeBlock(view: MatrixView, model: TensorModel, level: CompactLevel, b: number, bytes: Uint8Array): CheckedBlock;
  /**
   * @param out - receives the elements of block `b`.
   * @returns their checksum.
   * @throws {FormatError} `format.field` when the block does not hold together.
   */
  decodeBlock(
    name: string,
    view: MatrixView,
    model: TensorModel,
    level: CompactLevel,
    b: number,
    block: Uint8Array,
    out: Uint8Array,
  ): number;
  /** See `checksum.ts`. */
  checksum(bytes: Uint8Array): number;
}

export const definition: BlockCoder = {
  // A copy, since the bytes may lie at an odd address.
  fitClasses: (view, bytes) => fitClasses(view, new Uint16Array(new Uint8Array(bytes).buffer)),
  countBytes(bytes) {
    const counts = new Float64Array(256);
    for (const byte of bytes) counts[byte]!++;
    return counts;
  },
  encodeBlock: (view, model, level, b, bytes) => ({
    block: encodeBlock(view, model, level, b, bytes),
    checksum: checksum(bytes),
  }),
  decodeBlock(name, view, model, level, b, block, out) {
    decodeBlock(name, view, model, level, b, block, out);
    return checksum(out);
  },
  checksum,
};
