// WASM SIMD twin of rtn-e4m3.ts. AssemblyScript, not TypeScript.
import { addBlock, addRun, load1, load4, roundBf16x4 } from "../lanes.as";

// Below 2^-6 e4m3 has a fixed step of 2^-9, the step of f32 at 2^14: adding 2^14 rounds there, ties to even.
const SUBNORMAL_BITS: i32 = (127 + 14) << 23;
const SMALLEST_NORMAL_BITS: i32 = (127 - 6) << 23;
// Exponent bias of f32 less that of e4m3, above the three mantissa bits.
const BIAS: i32 = (127 - 7) << 3;

/** |x / scale|, rounded as the arithmetic says, at most 448. */
// @ts-ignore: decorator
@inline
function magnitude4<B>(t: v128): v128 {
  if (isInteger<B>()) t = roundBf16x4(t);
  return f32x4.pmin(f32x4.abs(t), f32x4.splat(448));
}

/** f32 bits of a magnitude rounded to three mantissa bits, ties to even. */
// @ts-ignore: decorator
@inline
function normal4(m: v128): v128 {
  const odd = v128.and(i32x4.shr_u(m, 20), i32x4.splat(1));
  return v128.and(i32x4.add(m, i32x4.add(odd, i32x4.splat(0x7ffff))), i32x4.splat(0xfff00000));
}

// @ts-ignore: decorator
@inline
function quantizeRun<T, B>(x: usize, n: i32, scale: f32, out: usize, sums: usize): void {
  const s = f32x4.splat(scale);
  const signs = i32x4.splat(0x80000000);
  const smallest = i32x4.splat(SMALLEST_NORMAL_BITS);
  const offset = i32x4.splat(SUBNORMAL_BITS);
  const none = f32x4.splat(0);
  const weights = sums + 16;
  const errors = sums + 48;
  v128.store(weights, none, 0);
  v128.store(weights, none, 16);
  v128.store(errors, none, 0);
  v128.store(errors, none, 16);
  let w = none;
  let e = none;
  for (let i = 0; i < n; i += 4) {
    if (i > 0 && (i & 127) == 0) {
      addBlock(weights, w);
      addBlock(errors, e);
      w = none;
      e = none;
    }
    let v: v128;
    const left = n - i;
    if (left >= 4) v = load4<T>(x);
    else {
      // The last one to three values, padded with zeros: code 0, no error.
      v = none;
      if (left > 0) v = f32x4.replace_lane(v, 0, load1<T>(x));
      if (left > 1) v = f32x4.replace_lane(v, 1, load1<T>(x + sizeof<T>()));
      if (left > 2) v = f32x4.replace_lane(v, 2, load1<T>(x + 2 * sizeof<T>()));
    }
    const t = f32x4.div(v, s);
    const m = magnitude4<B>(t);
    const normal = normal4(m);
    const small = f32x4.add(m, offset);
    const isSmall = i32x4.lt_s(m, smallest);
    const sign = v128.and(t, signs);
    const code = v128.bitselect(i32x4.sub(small, offset), i32x4.sub(i32x4.shr_u(normal, 20), i32x4.splat(BIAS)), isSmall);
    const value = v128.or(v128.bitselect(f32x4.sub(small, offset), normal, isSmall), sign);
    const d = f32x4.sub(t, value);
    w = f32x4.add(w, f32x4.mul(t, t));
    e = f32x4.add(e, f32x4.mul(d, d));
    const bytes = v128.or(code, i32x4.shr_u(sign, 24));
    const words = i16x8.narrow_i32x4_u(bytes, bytes);
    const packed = i8x16.narrow_i16x8_u(words, words);
    if (left >= 4) v128.store32_lane(out, packed, 0);
    else {
      let rest = <u32>i32x4.extract_lane(packed, 0);
      for (let k: usize = 0; k < <usize>left; k++) {
        store<u8>(out + k, rest);
        rest >>= 8;
      }
    }
    x += 4 * sizeof<T>();
    out += 4;
  }
  addBlock(weights, w);
  addBlock(errors, e);
  addRun(sums, weights, scale);
  addRun(sums + 8, errors, scale);
}

function quantizeRuns<T, B>(x: usize, rows: i32, cols: i32, group: i32, scales: usize, out: usize, sums: usize): void {
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += group) {
      const n = min(group, cols - c);
      quantizeRun<T, B>(x, n, load<f32>(scales), out, sums);
      scales += 4;
      x += <usize>n * sizeof<T>();
      out += n;
    }
  }
}

/** Weights are bf16 patterns. `bf16`: the quotient is rounded to bf16 first. */
export function rtnE4m3Bf16(x: usize, rows: i32, cols: i32, group: i32, scales: usize, bf16: i32, out: usize, sums: usize): void {
  if (bf16) quantizeRuns<u16, i32>(x, rows, cols, group, scales, out, sums);
  else quantizeRuns<u16, f32>(x, rows, cols, group, scales, out, sums);
}

/** The same, weights are f32. */
export function rtnE4m3F32(x: usize, rows: i32, cols: i32, group: i32, scales: usize, bf16: i32, out: usize, sums: usize): void {
  if (bf16) quantizeRuns<f32, i32>(x, rows, cols, group, scales, out, sums);
  else quantizeRuns<f32, f32>(x, rows, cols, group, scales, out, sums);
}
