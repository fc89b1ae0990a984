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
 * Four small floats, one in each i32 lane, to f32. A normal number only moves its bits and changes its exponent by
 * `rebias`; a subnormal one is its mantissa times `unit`, by way of an integer: f32 subnormals would be slow.
 */
// @ts-ignore: decorator
@inline
function widen(code: v128, magnitude: i32, mantissaBits: i32, rebias: i32, unit: f32, signShift: i32): v128 {
  const m = v128.and(code, i32x4.splat(magnitude));
  const sign = i32x4.shl(v128.andnot(code, i32x4.splat(magnitude)), signShift);
  const normal = i32x4.add(i32x4.shl(m, 23 - mantissaBits), i32x4.splat(rebias << 23));
  const small = f32x4.mul(f32x4.convert_i32x4_s(m), f32x4.splat(unit));
  return v128.or(v128.bitselect(small, normal, i32x4.lt_s(m, i32x4.splat(1 << mantissaBits))), sign);
}

/** `value` with the codes from `infinity` on made infinite, and those above it NaN. */
// @ts-ignore: decorator
@inline
function special(value: v128, code: v128, magnitude: i32, infinity: i32): v128 {
  const m = v128.and(code, i32x4.splat(magnitude));
  const infinite = v128.or(v128.and(value, i32x4.splat(0x80000000)), i32x4.splat(0x7f800000));
  const known = v128.bitselect(infinite, value, i32x4.eq(m, i32x4.splat(infinity)));
  return v128.bitselect(i32x4.splat(0x7fc00000), known, i32x4.gt_s(m, i32x4.splat(infinity)));
}

/** f16 patterns at `x` to f32 at `out`. */
export function expandF16(x: usize, out: usize, count: i32): void {
  const unit: f32 = reinterpret<f32>((127 - 24) << 23);
  for (let i = 0; i < count; i += 4) {
    const code = v128.load_ext<u16>(x);
    v128.store(out, special(widen(code, 0x7fff, 10, 127 - 15, unit, 16), code, 0x7fff, 0x7c00));
    x += 8;
    out += 16;
  }
}

/** e4m3 codes at `x` to f32 at `out`. There is no infinity: 0x7e is 448 and only 0x7f is NaN. */
export function expandE4m3(x: usize, out: usize, count: i32): void {
  const unit: f32 = reinterpret<f32>((127 - 9) << 23);
  const nan = i32x4.splat(0x7f);
  for (let i = 0; i < count; i += 4) {
    const code = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(x)));
    const value = widen(code, 0x7f, 3, 127 - 7, unit, 24);
    v128.store(out, v128.bitselect(i32x4.splat(0x7fc00000), value, i32x4.eq(v128.and(code, nan), nan)));
    x += 4;
    out += 16;
  }
}

/** e5m2 codes at `x` to f32 at `out`. */
export function expandE5m2(x: usize, out: usize, count: i32): void {
  const unit: f32 = reinterpret<f32>((127 - 16) << 23);
  for (let i = 0; i < count; i += 4) {
    const code = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(x)));
    v128.store(out, special(widen(code, 0x7f, 2, 127 - 15, unit, 24), code, 0x7f, 0x7c));
    x += 4;
    out += 16;
  }
}
