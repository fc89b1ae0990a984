// bf16 patterns by vector: maxima, halves as f32, signs. AssemblyScript, not TypeScript.
import { clampScale } from "./scales.as";
import { limit, top } from "./state.as";

/** Four of eight bf16 patterns as f32. */
// @ts-ignore: decorator
@inline
export function low4(v: v128): v128 {
  return v128.shuffle<u16>(i16x8.splat(0), v, 0, 8, 1, 9, 2, 10, 3, 11);
}

// @ts-ignore: decorator
@inline
export function high4(v: v128): v128 {
  return v128.shuffle<u16>(i16x8.splat(0), v, 4, 12, 5, 13, 6, 14, 7, 15);
}

/** Two vectors of codes as 16 bytes of nibbles. */
// @ts-ignore: decorator
@inline
export function nibbles(p: v128, q: v128): v128 {
  const mask = i16x8.splat(0x0f0f);
  const low = i16x8.splat(0x00ff);
  p = v128.and(p, mask);
  q = v128.and(q, mask);
  return i8x16.narrow_i16x8_u(v128.and(v128.or(p, i16x8.shr_u(p, 4)), low), v128.and(v128.or(q, i16x8.shr_u(q, 4)), low));
}

/** Largest magnitude of 32 bf16 patterns, lane by lane. */
// @ts-ignore: decorator
@inline
export function max32(x: usize, mask: v128): v128 {
  return i16x8.max_s(
    i16x8.max_s(v128.and(v128.load(x), mask), v128.and(v128.load(x, 16), mask)),
    i16x8.max_s(v128.and(v128.load(x, 32), mask), v128.and(v128.load(x, 48), mask)));
}

// @ts-ignore: decorator
@inline
export function widest(m: v128): i32 {
  m = i16x8.max_s(m, v128.shuffle<u64>(m, m, 1, 1));
  m = i16x8.max_s(m, i64x2.shr_u(m, 32));
  m = i16x8.max_s(m, i32x4.shr_u(m, 16));
  return i16x8.extract_lane_u(m, 0);
}

/** Exponent of the scale of a normal maximum, a bf16 pattern. */
// @ts-ignore: decorator
@inline
export function scaleOfPattern(pattern: i32): i32 {
  return clampScale((pattern >> 7) - 127 - top + i32((pattern & 0x7f) << 16 > limit));
}

/** 16 codes of two such vectors, with the signs of their patterns. */
// @ts-ignore: decorator
@inline
export function signed16(a: v128, b: v128, p: v128, q: v128, most: v128, sign: v128): v128 {
  const signs = v128.and(i8x16.narrow_i16x8_s(i16x8.shr_s(p, 15), i16x8.shr_s(q, 15)), sign);
  return v128.or(i8x16.min_u(i8x16.narrow_i16x8_u(a, b), most), signs);
}
