/**
 * What works on the elements themselves: the definition here, its fast twin in `kernels/compact`.
 * Both give the same bytes.
 * @module
 */
import { decodeBlock, encodeBlock, type CompactLevel } from "./block.ts";
import { checksum } from "./checksum.ts";
import { fitColumns, fitRows } from "./classes.ts";
import { cheapestRows } from "./row-costs.ts";
import type { TensorModel } from "./symbols.ts";
import type { MatrixView } from "./view.ts";

/** An encoded block and the checksum of its elements. The block may lie in memory that the coder's next encoding overwrites. */
export interface CheckedBlock {
  readonly block: Uint8Array;
  readonly checksum: number;
}

export interface BlockCoder {
  /** Classes of a tensor's columns. @param sample - its sampled rows, see `sampleRows`. */
  fitColumns(view: MatrixView, sample: Uint8Array): Int16Array;
  /** Classes of rows. @param columns - classes of the columns, all 0 when they have none. @param bytes - all elements of the view. */
  fitRows(view: MatrixView, columns: Int16Array, level: CompactLevel, bytes: Uint8Array): Int16Array;
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

// A copy, since the bytes may lie at an odd address.
const patternsOf = (bytes: Uint8Array): Uint16Array => new Uint16Array(new Uint8Array(bytes).buffer);

export const definition: BlockCoder = {
  fitColumns: (view, sample) => fitColumns(view, patternsOf(sample)),
  fitRows(view, columns, level, bytes) {
    const patterns = patternsOf(bytes);
    const rows = fitRows(view, columns, patterns);
    return level === "fast" ? cheapestRows(view, { rows, columns }, patterns) : rows;
  },
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
