// WASM SIMD twin of narrow.ts. AssemblyScript, not TypeScript.
// Extra precondition: `x` may be read and `out` written up to the next multiple of 8 values; the loader sees to it.

// @ts-ignore: decorator
@inline
function bf16x4(v: v128): v128 {
  const odd = v128.and(i32x4.shr_u(v, 16), i32x4.splat(1));
  const rounded = i32x4.shr_u(i32x4.add(v, i32x4.add(odd, i32x4.splat(0x7fff))), 16);
  const quiet = v128.or(i32x4.shr_u(v, 16), i32x4.splat(0x40));
  return v128.bitselect(quiet, rounded, f32x4.ne(v, v));
}

// @ts-ignore: decorator
@inline
function f16x4(v: v128): v128 {
  const m = v128.and(v, i32x4.splat(0x7fffffff));
  const sign = i32x4.shr_u(v128.andnot(v, i32x4.splat(0x7fffffff)), 16);
  const odd = v128.and(i32x4.shr_u(m, 13), i32x4.splat(1));
  const normal = i32x4.sub(i32x4.shr_u(i32x4.add(m, i32x4.add(odd, i32x4.splat(0xfff))), 13), i32x4.splat((127 - 15) << 10));
  // Below 2^-14 f16 has a fixed step of 2^-24: the step of f32 at 0.5.
  const half = f32x4.splat(0.5);
  const small = i32x4.sub(f32x4.add(m, half), half);
  let code = v128.bitselect(small, normal, i32x4.lt_s(m, i32x4.splat((127 - 14) << 23)));
  // 65520 lies half way between the largest finite value and the power of two above it: from there on, infinity.
  code = v128.bitselect(i32x4.splat(0x7c00), code, i32x4.ge_s(m, i32x4.splat(0x477ff000)));
  const nan = i32x4.gt_s(m, i32x4.splat(0x7f800000));
  return v128.bitselect(i32x4.splat(0x7e00), v128.or(code, sign), nan);
}

/** f32 at `x` to bf16 patterns at `out`. */
export function narrowBf16(x: usize, out: usize, count: i32): void {
  for (let i = 0; i < count; i += 8) {
    v128.store(out, i16x8.narrow_i32x4_u(bf16x4(v128.load(x)), bf16x4(v128.load(x, 16))));
    x += 32;
    out += 16;
  }
}

/** f32 at `x` to f16 patterns at `out`. */
export function narrowF16(x: usize, out: usize, count: i32): void {
  for (let i = 0; i < count; i += 8) {
    v128.store(out, i16x8.narrow_i32x4_u(f16x4(v128.load(x)), f16x4(v128.load(x, 16))));
    x += 32;
    out += 16;
  }
}
