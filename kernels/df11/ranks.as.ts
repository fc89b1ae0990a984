// Exponents by rank, four at a time. AssemblyScript, not TypeScript.
//
// Rank 0 to 14: exponent base, base + 1, …; rank 15 stands for every other one. Four ranks, the first element's lowest, are an index of 16 bits
// into a table of u32. A rank is kept where the exponent stands in a pattern, from bit 7 on.
export const OTHER: u32 = 15;

/** Base of ranks, for 8 patterns. */
// @ts-ignore: decorator
@inline
export function basesOf(base: u32): v128 {
  return i16x8.splat(<i16>(base << 7));
}

/** Ranks of 8 patterns. */
// @ts-ignore: decorator
@inline
export function ranksOf(patterns: v128, bases: v128): v128 {
  return i16x8.min_u(i16x8.sub(v128.and(patterns, i16x8.splat(0x7f80)), bases), i16x8.splat(<i16>(OTHER << 7)));
}

/** Addresses of the table's entries for 16 ranks, four u32. */
// @ts-ignore: decorator
@inline
export function addressesOf(a: v128, b: v128, table: v128): v128 {
  const join = i16x8(1, 16, 1, 16, 1, 16, 1, 16);
  const pairs = i16x8.narrow_i32x4_s(i32x4.dot_i16x8_s(a, join), i32x4.dot_i16x8_s(b, join));
  const quads = i32x4.dot_i16x8_s(pairs, i16x8(1, 256, 1, 256, 1, 256, 1, 256));
  return i32x4.add(i32x4.shr_u(quads, 5), table);
}
