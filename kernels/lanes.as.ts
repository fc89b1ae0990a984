// What several kernels share: loads of bf16 and f32 alike, and rounding to bf16. AssemblyScript, not TypeScript.
// `T` is u16 for bf16 patterns and f32 for f32; it is known at compile time, so the branches cost nothing.

/** Four consecutive values at `x` as f32. */
// @ts-ignore: decorator
@inline
export function load4<T>(x: usize): v128 {
  if (sizeof<T>() == 2) return i32x4.shl(v128.load_ext<u16>(x), 16);
  return v128.load(x);
}

/** One value at `x` as f32. */
// @ts-ignore: decorator
@inline
export function load1<T>(x: usize): f32 {
  if (sizeof<T>() == 2) return reinterpret<f32>((<u32>load<u16>(x)) << 16);
  return load<f32>(x);
}

/** Finite f32 lanes rounded to bf16, ties to even. */
// @ts-ignore: decorator
@inline
export function roundBf16x4(v: v128): v128 {
  const odd = v128.and(i32x4.shr_u(v, 16), i32x4.splat(1));
  return v128.and(i32x4.add(v, i32x4.add(odd, i32x4.splat(0x7fff))), i32x4.splat(0xffff0000));
}

/** A finite f32 rounded to bf16, ties to even. */
// @ts-ignore: decorator
@inline
export function roundBf16(x: f32): f32 {
  const bits = reinterpret<u32>(x);
  return reinterpret<f32>((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000);
}

/** Adds four f32 sums to the f64 sums at `p`, four of them. */
// @ts-ignore: decorator
@inline
export function addBlock(p: usize, v: v128): void {
  v128.store(p, f64x2.add(v128.load(p), f64x2.promote_low_f32x4(v)));
  v128.store(p, f64x2.add(v128.load(p, 16), f64x2.promote_low_f32x4(v128.shuffle<u64>(v, v, 1, 1))), 16);
}

/** Adds the four f64 sums at `p`, in units of scale², to the total at `total`. */
// @ts-ignore: decorator
@inline
export function addRun(total: usize, p: usize, scale: f32): void {
  const pairs = f64x2.add(v128.load(p), v128.load(p, 16));
  const sum = f64x2.extract_lane(pairs, 0) + f64x2.extract_lane(pairs, 1);
  store<f64>(total, load<f64>(total) + sum * (<f64>scale * <f64>scale));
}

/** Eight codes of `bits` bits, a byte each, as 8 · `bits` bits without gaps: neighbours are joined three times. */
// @ts-ignore: decorator
@inline
export function joinEight(codes: u64, bits: u64): u64 {
  const pairs = (codes & 0x00ff00ff00ff00ff) | ((codes & 0xff00ff00ff00ff00) >> (8 - bits));
  const quads = (pairs & 0x0000ffff0000ffff) | ((pairs & 0xffff0000ffff0000) >> (16 - 2 * bits));
  return (quads & 0xffffffff) | ((quads >> 32) << (4 * bits));
}
