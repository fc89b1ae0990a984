/**
 * The four constant tables of the compact codec: how often each symbol occurs, in 4096ths,
 * when a weight's expected magnitude lies 0, 1, 2 or 3 quarter octaves above a power of two.
 *
 * Symbol `s` of a float is `relative - RELATIVE_MIN`, where `relative` = 40 * 4 + four times
 * (exponent - expected exponent) + top two mantissa bits. The last symbol is the escape:
 * everything outside the range, spelled out in bytes beside the stream.
 *
 * Derived from the histograms of two models after classes are taken out, in equal parts: all-MiniLM-L6-v2
 * (22.7 M weights) and SmolLM2-135M (134.5 M). Frequencies minimise the coded size over all integer tables in
 * which every symbol can occur. `scripts/compact-tables.ts` prints this file's numbers from such models.
 * @module
 */

/** Bits of a table: frequencies sum to 2^12. */
export const TABLE_BITS = 12;
export const TABLE_SIZE = 4096;
/** `relative` of symbol 0. */
export const RELATIVE_MIN = 116;
/** Added to a relative symbol so that it is positive: 40 octaves of four. */
export const RELATIVE_ZERO = 160;
/** Symbols 0 to 56 are relative values; this one is the escape. */
export const ESCAPE = 57;

/** By table and symbol; the escape is the last. */
export const FREQUENCIES: readonly (readonly number[])[] = [
  [
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 10, 10, 10, 10, 20, 20, 20, 20, 40, 40, 40, 40, 80, 80, 80, 80, 157, 156,
    154, 151, 291, 280, 264, 246, 433, 357, 279, 210, 260, 125, 53, 20, 10, 2, 1, 1, 1, 1,
  ],
  [
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 9, 9, 9, 17, 17, 17, 17, 34, 34, 34, 34, 68, 68, 68, 67, 133, 133, 132,
    130, 253, 246, 236, 225, 411, 360, 303, 248, 347, 201, 104, 49, 30, 5, 1, 1, 1, 1,
  ],
  [
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 7, 7, 7, 7, 14, 14, 14, 14, 29, 29, 29, 29, 57, 58, 57, 57, 113, 114, 113,
    112, 218, 215, 209, 201, 376, 343, 303, 262, 405, 275, 171, 98, 78, 18, 4, 1, 1, 1,
  ],
  [
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 6, 6, 6, 6, 12, 12, 12, 12, 24, 24, 24, 24, 48, 49, 49, 48, 96, 96, 96, 95,
    187, 185, 181, 177, 337, 317, 291, 263, 435, 327, 231, 154, 156, 54, 16, 4, 2, 2,
  ],
];

/** Bits of the Huffman codes, likewise; at most 12. */
export const LENGTHS: readonly (readonly number[])[] = [
  [
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 11, 10, 11, 11, 10, 10, 10, 9, 9, 9, 9, 9, 8, 8, 8, 8, 7, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5,
    5, 4, 4, 4, 4, 3, 3, 4, 4, 4, 5, 6, 7, 8, 11, 12, 12, 12, 12,
  ],
  [
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 11, 11, 11, 11, 10, 10, 10, 10, 9, 9, 8, 8, 8, 8, 8, 8, 7, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5,
    5, 4, 4, 4, 4, 3, 4, 4, 4, 4, 4, 5, 6, 7, 9, 12, 12, 12, 12,
  ],
  [
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 11, 11, 11, 10, 10, 10, 10, 9, 9, 9, 9, 9, 9, 9, 8, 7, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5,
    5, 4, 4, 4, 4, 4, 4, 4, 4, 3, 4, 5, 6, 6, 8, 11, 12, 12, 12,
  ],
  [
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 11, 11, 11, 10, 10, 10, 11, 10, 10, 9, 9, 8, 8, 8, 8, 8, 7, 7, 7, 6, 6, 6, 6, 5, 5,
    5, 6, 4, 4, 5, 5, 4, 4, 4, 4, 3, 4, 4, 5, 5, 6, 8, 10, 11, 12,
  ],
];
