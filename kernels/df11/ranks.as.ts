// Ranks of exponents: base, base + 1, …; the last one stands for every other exponent. AssemblyScript, not TypeScript.
export const OTHER: u32 = 15;

/** Exponents of 16 patterns. */
// @ts-ignore: decorator
@inline
export function exponentsOf(a: v128, b: v128): v128 {
  return i8x16.narrow_i16x8_u(v128.and(i16x8.shr_u(a, 7), i16x8.splat(0xff)), v128.and(i16x8.shr_u(b, 7), i16x8.splat(0xff)));
}

/** Ranks of the exponents of 16 patterns, four bits each, the first element of a quad lowest: four indexes of 16 bits, twice. */
// @ts-ignore: decorator
@inline
export function rankQuads(a: v128, b: v128, base: v128): v128 {
  const ranks = i8x16.min_u(i8x16.sub(exponentsOf(a, b), base), i8x16.splat(<i8>OTHER));
  const pairs = v128.and(v128.or(ranks, i16x8.shr_u(ranks, 4)), i16x8.splat(0xff));
  return i8x16.narrow_i16x8_u(pairs, pairs);
}
