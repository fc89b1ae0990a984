/**
 * DFloat11 splits a bf16 pattern into an exponent, which is entropy coded, and
 * a byte of sign and mantissa, which is stored as it is.
 *
 * Source: DFloat11 0.5.0 (LeanModels/DFloat11), `dfloat11_utils`; arXiv 2504.11651 §2.
 * @module
 */

/** Bytes of the bit stream one GPU thread owns; the compiled official kernel has it built in. */
export const BYTES_PER_THREAD = 8;
/** GPU threads a block; one block owns 4096 bytes of the stream. */
export const THREADS_PER_BLOCK = 512;
export const BLOCK_BYTES: number = BYTES_PER_THREAD * THREADS_PER_BLOCK;
/** Bytes of 512 gaps of 5 bits. */
export const GAP_BYTES_PER_BLOCK: number = (THREADS_PER_BLOCK * 5) / 8;
/** Look-up values from here on point to another row, so exponents from here on have no code. */
export const FIRST_POINTER = 240;
/** Row 0 and the rows that pointers 255 … 240 can name. */
export const MAX_DECODE_ROWS = 17;
/** Longest code the kernel follows: three pointers beyond the first byte. */
export const MAX_CODE_BITS = 32;
/**
 * Elements of one 4096-byte block that fit the official launch: CUDA's 48 KiB of
 * dynamic shared memory less 512·4 + 4 bytes of counters, two bytes an element.
 */
export const MAX_BLOCK_ELEMENTS: number = Math.floor((48 * 1024 - 512 * 4 - 4) / 2);
/** The kernel takes lengths as 32-bit ints. */
export const MAX_UNIT_ELEMENTS: number = 2 ** 31 - 1;

/** The six tensors of one unit, as raw bytes; names are the suffixes in a file. */
export interface Df11Unit {
  /** Shape [rows, 256]: decode rows, then one row of code lengths by exponent. */
  readonly luts: Uint8Array;
  /** Huffman bit stream, most significant bit first. */
  readonly encodedExponent: Uint8Array;
  /** One byte an element: bit 7 sign, bits 6–0 mantissa. */
  readonly signMantissa: Uint8Array;
  /** First element of each block, then the element count. */
  readonly outputPositions: Uint32Array;
  /** Offset of the first code that starts in each 64-bit window, 5 bits each, most significant first. */
  readonly gaps: Uint8Array;
  /** Where the tensors of the unit end in the element stream, the last one left out. */
  readonly splitPositions: readonly number[];
}

/** Why a unit cannot be held, as a stable word and a sentence. */
export interface Df11Refusal {
  readonly reason: "empty" | "exponent" | "symbols" | "rows" | "end-code" | "shared-memory" | "size" | "code-length";
  readonly text: string;
}

/** How often each exponent occurs. @param patterns - bf16 bit patterns. */
export function countExponents(patterns: Uint16Array): Float64Array {
  const counts = new Float64Array(256);
  for (const pattern of patterns) counts[(pattern >> 7) & 0xff]!++;
  return counts;
}

/** Sign and mantissa of a bf16 pattern as one byte. */
export function signMantissaOf(pattern: number): number {
  return ((pattern >> 8) & 0x80) | (pattern & 0x7f);
}

/** The bf16 pattern of an exponent and a sign-and-mantissa byte. */
export function joinPattern(exponent: number, signMantissa: number): number {
  return ((signMantissa & 0x80) << 8) | (exponent << 7) | (signMantissa & 0x7f);
}
