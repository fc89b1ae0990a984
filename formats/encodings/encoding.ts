/**
 * Encodings: how the codes of a weight matrix sit in bytes. No scales, no file, no method.
 * @module
 */
import type { DType } from "../../core/dtype.ts";

/** One way to store the codes of a matrix of [rows, cols]; every row starts on a whole stored element. */
export interface CodeEncoding {
  /** Kebab-case, e.g. "int-packed-4". */
  readonly name: string;
  /** Specification or reference implementation it follows. */
  readonly source: string;
  /** Element type of the stored tensor. */
  readonly dtype: DType;
  /** Bits of one code. */
  readonly bits: number;
  /** Stored elements of one row. */
  storedCols(cols: number): number;
  /**
   * @param codes - int: signed codes; float: bit patterns. Row-major, rows · cols of them.
   * @returns rows · storedCols(cols) elements of `dtype`.
   * @throws {InputError} `input.shape` when there are not rows · cols codes, `input.value` for a code that does not fit.
   */
  encode(codes: Int8Array | Uint8Array, rows: number, cols: number): Uint8Array;
  /**
   * The inverse of `encode`.
   *
   * @param out - receives rows · cols codes.
   * @throws {InputError} `input.shape` when a length does not fit.
   */
  decode(bytes: Uint8Array, rows: number, cols: number, out: Int8Array | Uint8Array): void;
}
