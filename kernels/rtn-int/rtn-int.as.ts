// WASM SIMD twin of rtn-int.ts. AssemblyScript, not TypeScript.
import { addBlock, addRun, load1, load4, roundBf16, roundBf16x4 } from "../lanes.as";

// 1.5 · 2^23: adding it to |u| < 2^22 rounds u to an integer, ties to even, and leaves that integer in the low bits.
const MAGIC: f32 = 12582912;
const MAGIC_BITS: i32 = 0x4b400000;

// `B` is i32 for bf16 arithmetic, f32 for f32. `Z` is i32 when there are zeros. Known at compile time.

/** A quotient (+ zero), rounded step by step, clamped, plus MAGIC. */
// @ts-ignore: decorator
@inline
function biased4<B, Z>(t: v128, z: v128, low: v128, high: v128, magic: v128): v128 {
  if (isInteger<B>()) t = roundBf16x4(t);
  if (isInteger<Z>()) {
    t = f32x4.add(t, z);
    if (isInteger<B>()) t = roundBf16x4(t);
  }
  return f32x4.add(f32x4.pmin(f32x4.pmax(t, low), high), magic);
}

// @ts-ignore: decorator
@inline
function biased1<B, Z>(t: f32, z: f32, low: f32, high: f32): f32 {
  if (isInteger<B>()) t = roundBf16(t);
  if (isInteger<Z>()) {
    t = t + z;
    if (isInteger<B>()) t = roundBf16(t);
  }
  return min<f32>(max<f32>(t, low), high) + MAGIC;
}

/** quotient − (code − zero). */
// @ts-ignore: decorator
@inline
function error4<Z>(t: v128, biased: v128, z: v128, magic: v128): v128 {
  let r = f32x4.sub(biased, magic);
  if (isInteger<Z>()) r = f32x4.sub(r, z);
  return f32x4.sub(t, r);
}

/**
 * One run. `inside` is the zero added before rounding, `outside` the one added after it; one of them is 0.
 * `sums`: totals of w² and of the squared error, then room for 8 f64.
 */
// @ts-ignore: decorator
@inline
function quantizeRun<T, B, Z>(
  x: usize, n: i32, scale: f32, inside: f32, outside: f32, codeMin: f32, codeMax: f32, shift: i32, out: usize, sums: usize,
): void {
  const low = codeMin - outside;
  const high = codeMax - outside;
  const base = MAGIC_BITS - <i32>outside + shift;
  const magic4 = f32x4.splat(MAGIC);
  const s4 = f32x4.splat(scale);
  const z4 = f32x4.splat(inside);
  const low4 = f32x4.splat(low);
  const high4 = f32x4.splat(high);
  const base4 = i32x4.splat(base);
  const weights = sums + 16;
  const errors = sums + 48;
  const none = f32x4.splat(0);
  v128.store(weights, none, 0);
  v128.store(weights, none, 16);
  v128.store(errors, none, 0);
  v128.store(errors, none, 16);
  for (let block = 0; block < n; block += 128) {
    const size = min(128, n - block);
    let w = none;
    let e = none;
    let i = 0;
    for (; i + 8 <= size; i += 8) {
      const a = f32x4.div(load4<T>(x), s4);
      const b = f32x4.div(load4<T>(x + 4 * sizeof<T>()), s4);
      const p = biased4<B, Z>(a, z4, low4, high4, magic4);
      const q = biased4<B, Z>(b, z4, low4, high4, magic4);
      const codes = i16x8.narrow_i32x4_s(i32x4.sub(p, base4), i32x4.sub(q, base4));
      v128.store64_lane(out, i8x16.narrow_i16x8_s(codes, codes), 0);
      const da = error4<Z>(a, p, z4, magic4);
      const db = error4<Z>(b, q, z4, magic4);
      w = f32x4.add(f32x4.add(w, f32x4.mul(a, a)), f32x4.mul(b, b));
      e = f32x4.add(f32x4.add(e, f32x4.mul(da, da)), f32x4.mul(db, db));
      x += 8 * sizeof<T>();
      out += 8;
    }
    for (; i < size; i++) {
      const t = load1<T>(x) / scale;
      const p = biased1<B, Z>(t, inside, low, high);
      store<u8>(out, reinterpret<i32>(p) - base);
      let r = p - MAGIC;
      if (isInteger<Z>()) r = r - inside;
      const d = t - r;
      // One lane of the block's sums: the others get 0.
      const lane = i & 3;
      w = f32x4.add(w, only(lane, t * t));
      e = f32x4.add(e, only(lane, d * d));
      x += sizeof<T>();
      out += 1;
    }
    addBlock(weights, w);
    addBlock(errors, e);
  }
  addRun(sums, weights, scale);
  addRun(sums + 8, errors, scale);
}

/** `value` in one lane, 0 in the others. */
function only(lane: i32, value: f32): v128 {
  const index = i32x4(0, 1, 2, 3);
  return v128.and(f32x4.splat(value), i32x4.eq(index, i32x4.splat(lane)));
}

function quantizeRuns<T, B, Z>(
  x: usize, rows: i32, cols: i32, group: i32, scales: usize, zeros: usize, before: bool,
  codeMin: f32, codeMax: f32, shift: i32, out: usize, sums: usize,
): void {
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += group) {
      const n = min(group, cols - c);
      let inside: f32 = 0;
      let outside: f32 = 0;
      if (isInteger<Z>()) {
        if (before) inside = load<f32>(zeros);
        else outside = load<f32>(zeros);
        zeros += 4;
      }
      quantizeRun<T, B, Z>(x, n, load<f32>(scales), inside, outside, codeMin, codeMax, shift, out, sums);
      scales += 4;
      x += <usize>n * sizeof<T>();
      out += n;
    }
  }
}

// @ts-ignore: decorator
@inline
function choose<T>(
  x: usize, rows: i32, cols: i32, group: i32, scales: usize, zeros: usize, flags: i32,
  codeMin: f32, codeMax: f32, shift: i32, out: usize, sums: usize,
): void {
  const before = (flags & 2) != 0;
  if (flags & 1) {
    if (zeros) quantizeRuns<T, i32, i32>(x, rows, cols, group, scales, zeros, before, codeMin, codeMax, shift, out, sums);
    else quantizeRuns<T, i32, f32>(x, rows, cols, group, scales, zeros, before, codeMin, codeMax, shift, out, sums);
  } else {
    if (zeros) quantizeRuns<T, f32, i32>(x, rows, cols, group, scales, zeros, before, codeMin, codeMax, shift, out, sums);
    else quantizeRuns<T, f32, f32>(x, rows, cols, group, scales, zeros, before, codeMin, codeMax, shift, out, sums);
  }
}

/** Weights are bf16 patterns. Flags: 1 arithmetic bf16, 2 zero added before rounding. `zeros` is 0 when there are none. */
export function rtnIntBf16(
  x: usize, rows: i32, cols: i32, group: i32, scales: usize, zeros: usize, flags: i32,
  codeMin: f32, codeMax: f32, shift: i32, out: usize, sums: usize,
): void {
  choose<u16>(x, rows, cols, group, scales, zeros, flags, codeMin, codeMax, shift, out, sums);
}

/** The same, weights are f32. */
export function rtnIntF32(
  x: usize, rows: i32, cols: i32, group: i32, scales: usize, zeros: usize, flags: i32,
  codeMin: f32, codeMax: f32, shift: i32, out: usize, sums: usize,
): void {
  choose<f32>(x, rows, cols, group, scales, zeros, flags, codeMin, codeMax, shift, out, sums);
}
