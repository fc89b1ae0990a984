// WASM SIMD twin of expand.ts. AssemblyScript, not TypeScript.
// Extra precondition: `out` has room for `count` rounded up to 8 values, `x` may be read as far; the loader sees to it.

/** bf16 patterns at `x` to f32 at `out`. */
export function expandBf16(x: usize, out: usize, count: i32): void {
  const zero = i32x4.splat(0);
  for (let i = 0; i < count; i += 8) {
    const v = v128.load(x);
    v128.store(out, v128.shuffle<u16>(zero, v, 0, 8, 1, 9, 2, 10, 3, 11));
    v128.store(out, v128.shuffle<u16>(zero, v, 4, 12, 5, 13, 6, 14, 7, 15), 16);
    x += 16;
    out += 32;
  }
}

/**
 * Four small floats, one in each i32 lane, to f32. `shift` brings the mantissa to its place in an f32; the product
 * with 2^(127 - bias) then moves the exponent, and is exact for subnormals too. Codes above `infinity` are NaN.
 */
// @ts-ignore: decorator
@inline
function widen(code: v128, magnitude: i32, shift: i32, scale: f32, signShift: i32, infinity: i32): v128 {
  const m = v128.and(code, i32x4.splat(magnitude));
  const sign = i32x4.shl(v128.andnot(code, i32x4.splat(magnitude)), signShift);
  const finite = f32x4.mul(i32x4.shl(m, shift), f32x4.splat(scale));
  const value = v128.bitselect(i32x4.splat(0x7f800000), finite, i32x4.eq(m, i32x4.splat(infinity)));
  return v128.bitselect(i32x4.splat(0x7fc00000), v128.or(value, sign), i32x4.gt_s(m, i32x4.splat(infinity)));
}

/** f16 patterns at `x` to f32 at `out`. */
export function expandF16(x: usize, out: usize, count: i32): void {
  const scale: f32 = reinterpret<f32>((127 + 112) << 23);
  for (let i = 0; i < count; i += 4) {
    v128.store(out, widen(v128.load_ext<u16>(x), 0x7fff, 13, scale, 16, 0x7c00));
    x += 8;
    out += 16;
  }
}

/** e4m3 codes at `x` to f32 at `out`. There is no infinity: 0x7e is 448 and only 0x7f is NaN. */
export function expandE4m3(x: usize, out: usize, count: i32): void {
  const scale: f32 = reinterpret<f32>((127 + 120) << 23);
  const nan = i32x4.splat(0x7f);
  for (let i = 0; i < count; i += 4) {
    const code = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(x)));
    const value = widen(code, 0x7f, 20, scale, 24, 0x100);
    v128.store(out, v128.bitselect(i32x4.splat(0x7fc00000), value, i32x4.eq(v128.and(code, nan), nan)));
    x += 4;
    out += 16;
  }
}

/** e5m2 codes at `x` to f32 at `out`. */
export function expandE5m2(x: usize, out: usize, count: i32): void {
  const scale: f32 = reinterpret<f32>((127 + 112) << 23);
  for (let i = 0; i < count; i += 4) {
    v128.store(out, widen(i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(x))), 0x7f, 21, scale, 24, 0x7c));
    x += 4;
    out += 16;
  }
}
