// WASM SIMD twin of core/blocks (quantize, dequantize, fake-quantize). AssemblyScript, not TypeScript.
//
// One format at a time: `configure` sets it, and every other call works in it. `T` is u16 for bf16 patterns, f32 for f32.
import { load1, load4, roundBf16 } from "../lanes.as";

const MAGIC: f32 = 12582912;
const EXPONENT: i32 = 0x7f800000;
const MAGNITUDE: i32 = 0x7fffffff;

/** Two's complement mantissas, small floats under powers of two, e2m1 under e4m3 scales. */
const INT = 0;
const FLOAT = 1;
const NVFP4 = 2;
const MX_BLOCK = 32;

let kind: i32 = 0;
let bits: i32 = 0;
/** Integers: bits after the point. Floats: mantissa bits. */
let fraction: i32 = 0;
/** Floats: f32 exponent field of the smallest normal element. */
let least: i32 = 0;
/** Largest element, as a code without sign, and as a value. */
let topCode: i32 = 0;
let topValue: f32 = 0;
/** Exponent of the largest power of two among the elements. */
let top: i32 = 0;
/** A scale goes one up when the maximum's 23 mantissa bits are above this. */
let limit: i32 = 0;
/** Whether to search for the least squared error. */
let search: bool = false;
/** nvfp4: divisor of the tensor, whether absmax / 6 is rounded to bf16, and how scales are rounded: 0 nearest, 1 down, 2 up. */
let divisor: f32 = 1;
let halfStep: bool = false;
let direction: i32 = 0;

export function configure(
  newKind: i32, newBits: i32, newFraction: i32, newLeast: i32, newTopCode: i32, newTopValue: f32, newTop: i32, newLimit: i32, newSearch: bool,
): void {
  kind = newKind;
  bits = newBits;
  fraction = newFraction;
  least = newLeast << 23;
  topCode = newTopCode;
  topValue = newTopValue;
  top = newTop;
  limit = newLimit;
  search = newSearch;
}

export function configureTensor(newDivisor: f32, newHalfStep: bool, newDirection: i32): void {
  divisor = newDivisor;
  halfStep = newHalfStep;
  direction = newDirection;
}

/** 2^e for e in −149 … 127. */
// @ts-ignore: decorator
@inline
function powerOf2(e: i32): f32 {
  return reinterpret<f32>(e >= -126 ? (e + 127) << 23 : 1 << (e + 149));
}

/** f32 bits of the largest magnitude of `n` values; at least those of infinity when one is not finite. */
// @ts-ignore: decorator
@inline
function blockMax<T>(x: usize, n: i32): u32 {
  let most: u32 = 0;
  let i = 0;
  if (sizeof<T>() == 2) {
    const mask = i16x8.splat(0x7fff);
    let m = i16x8.splat(0);
    for (; i + 8 <= n; i += 8) m = i16x8.max_s(m, v128.and(v128.load(x + (<usize>i << 1)), mask));
    m = i16x8.max_s(m, v128.shuffle<u64>(m, m, 1, 1));
    m = i16x8.max_s(m, i32x4.shr_u(m, 16));
    m = i16x8.max_s(m, i64x2.shr_u(m, 32));
    most = (<u32>i16x8.extract_lane_u(m, 0)) << 16;
  } else {
    const mask = i32x4.splat(MAGNITUDE);
    let m = i32x4.splat(0);
    for (; i + 4 <= n; i += 4) m = i32x4.max_s(m, v128.and(v128.load(x + (<usize>i << 2)), mask));
    m = i32x4.max_s(m, v128.shuffle<u64>(m, m, 1, 1));
    m = i32x4.max_s(m, i64x2.shr_u(m, 32));
    most = i32x4.extract_lane(m, 0);
  }
  for (; i < n; i++) {
    const magnitude = reinterpret<u32>(load1<T>(x + <usize>i * sizeof<T>())) & MAGNITUDE;
    most = max(most, magnitude);
  }
  return most;
}

/** floor(log2) of a finite f32 above 0. */
// @ts-ignore: decorator
@inline
function exponentOf(magnitude: u32): i32 {
  return magnitude >= 0x00800000 ? <i32>(magnitude >> 23) - 127 : -118 - <i32>clz(magnitude);
}

// @ts-ignore: decorator
@inline
function mantissaOf(magnitude: u32): i32 {
  return <i32>((magnitude >= 0x00800000 ? magnitude : magnitude << (clz(magnitude) - 8)) & 0x007fffff);
}

// @ts-ignore: decorator
@inline
function clampScale(s: i32): i32 {
  return max(-127, min(127 - top, s));
}

/** Exponent of the scale under the rule, the search aside. */
// @ts-ignore: decorator
@inline
function scaleExponent(magnitude: u32): i32 {
  if (magnitude == 0) return -127;
  return clampScale(exponentOf(magnitude) - top + i32(mantissaOf(magnitude) > limit));
}

/** e4m3 code of a number ≥ 0, nearest, ties to even, at most 448. */
function scaleCode(exact: f32): i32 {
  const v = min<f32>(exact, 480);
  const e = max<i32>(reinterpret<i32>(v) & EXPONENT, 121 << 23);
  const c = e + (20 << 23);
  const rounded = reinterpret<i32>(v + reinterpret<f32>(c)) - c;
  return min(rounded + (((e >> 23) - 121) << 3), 0x7e);
}

// @ts-ignore: decorator
@inline
function scaleValue(code: i32): f32 {
  return code < 8 ? <f32>code * 0.001953125 : reinterpret<f32>((code << 20) + (120 << 23));
}

/** e4m3 code of a block's scale under the rule, the search aside. */
function nvScale(magnitude: u32): i32 {
  let sixth = reinterpret<f32>(magnitude) / 6;
  if (halfStep) sixth = roundBf16(sixth);
  const exact = divisor * sixth;
  let code = scaleCode(exact);
  if (direction == 1 && scaleValue(code) > exact) code--;
  if (direction == 2 && scaleValue(code) < exact) code = min(code + 1, 0x7e);
  return code == 0 ? 0x20 : code;
}

/** Integer codes of four values as i32, not held to the range yet; `pre` is 1 or a power of two for scales whose reciprocal f32 cannot hold. */
// @ts-ignore: decorator
@inline
function ints4<T>(x: usize, times: v128, magic: v128): v128 {
  return i32x4.sub(f32x4.add(f32x4.mul(load4<T>(x), times), magic), magic);
}

// @ts-ignore: decorator
@inline
function ints4Twice<T>(x: usize, first: v128, times: v128, magic: v128): v128 {
  return i32x4.sub(f32x4.add(f32x4.mul(f32x4.mul(load4<T>(x), first), times), magic), magic);
}

/** The scale's reciprocal, at its code: 2^(fraction − s) as the product of two f32. The first is 1 unless s is tiny. */
// @ts-ignore: decorator
@inline
function firstFactor(s: i32): f32 {
  return fraction - s > 127 ? powerOf2(64) : 1;
}

// @ts-ignore: decorator
@inline
function secondFactor(s: i32): f32 {
  return powerOf2(fraction - s > 127 ? fraction - s - 64 : fraction - s);
}

function intBlock<T>(x: usize, n: i32, s: i32, out: usize): void {
  const magic = f32x4.splat(MAGIC);
  const first = f32x4.splat(firstFactor(s));
  const times = f32x4.splat(secondFactor(s));
  const twice = fraction - s > 127;
  if (bits <= 8) {
    const high = i8x16.splat(<i8>topCode);
    const low = i8x16.splat(<i8>-topCode);
    if (twice) {
      for (let i = 0; i < n; i += 8) {
        const a = ints4Twice<T>(x, first, times, magic);
        const b = ints4Twice<T>(x + 4 * sizeof<T>(), first, times, magic);
        const ab = i16x8.narrow_i32x4_s(a, b);
        v128.store64_lane(out, i8x16.max_s(i8x16.min_s(i8x16.narrow_i16x8_s(ab, ab), high), low), 0);
        x += 8 * sizeof<T>();
        out += 8;
      }
      return;
    }
    let i = 0;
    for (; i + 16 <= n; i += 16) {
      const a = i16x8.narrow_i32x4_s(ints4<T>(x, times, magic), ints4<T>(x + 4 * sizeof<T>(), times, magic));
      const b = i16x8.narrow_i32x4_s(ints4<T>(x + 8 * sizeof<T>(), times, magic), ints4<T>(x + 12 * sizeof<T>(), times, magic));
      v128.store(out, i8x16.max_s(i8x16.min_s(i8x16.narrow_i16x8_s(a, b), high), low));
      x += 16 * sizeof<T>();
      out += 16;
    }
    for (; i < n; i += 4) {
      const a = i16x8.narrow_i32x4_s(ints4<T>(x, times, magic), magic);
      v128.store32_lane(out, i8x16.max_s(i8x16.min_s(i8x16.narrow_i16x8_s(a, a), high), low), 0);
      x += 4 * sizeof<T>();
      out += 4;
    }
    return;
  }
  const high = i16x8.splat(<i16>topCode);
  const low = i16x8.splat(<i16>-topCode);
  for (let i = 0; i < n; i += 8) {
    const a = twice ? ints4Twice<T>(x, first, times, magic) : ints4<T>(x, times, magic);
    const y = x + 4 * sizeof<T>();
    const b = twice ? ints4Twice<T>(y, first, times, magic) : ints4<T>(y, times, magic);
    v128.store(out, i16x8.max_s(i16x8.min_s(i16x8.narrow_i32x4_s(a, b), high), low));
    x += 8 * sizeof<T>();
    out += 16;
  }
}

/** Codes of four scaled magnitudes below 2^(top + 2), as i32, without sign. */
// @ts-ignore: decorator
@inline
function floats4(y: v128, least4: v128, shift4: v128, exponent4: v128, most4: v128, m: i32): v128 {
  // Adding 2^(e + 23 − m) rounds y to m bits after its first, or to the subnormal step; what is left are the rounded bits.
  const e = i32x4.max_s(v128.and(y, exponent4), least4);
  const c = i32x4.add(e, shift4);
  const rounded = i32x4.sub(f32x4.add(y, c), c);
  return i32x4.min_s(i32x4.add(rounded, i32x4.shr_u(i32x4.sub(e, least4), 23 - m)), most4);
}

/** Values of four scaled magnitudes, rounded. */
// @ts-ignore: decorator
@inline
function rounded4(y: v128, least4: v128, shift4: v128, exponent4: v128, high4: v128): v128 {
  const c = i32x4.add(i32x4.max_s(v128.and(y, exponent4), least4), shift4);
  return f32x4.pmin(f32x4.sub(f32x4.add(y, c), c), high4);
}

/** Scaled magnitudes: x · factor for powers of two, x / factor for nvfp4, where huge quotients are cut before they overflow. */
// @ts-ignore: decorator
@inline
function scaled4(v: v128, factor: v128, divide: bool): v128 {
  const magnitude = v128.and(v, i32x4.splat(MAGNITUDE));
  return divide ? f32x4.pmin(f32x4.div(magnitude, factor), f32x4.splat(8)) : f32x4.mul(magnitude, factor);
}

function floatBlock<T>(x: usize, n: i32, factor: f32, divide: bool, out: usize): void {
  const m = fraction;
  const f = f32x4.splat(factor);
  const least4 = i32x4.splat(least);
  const shift4 = i32x4.splat((23 - m) << 23);
  const exponent4 = i32x4.splat(EXPONENT);
  const most4 = i32x4.splat(topCode);
  const sign = 1 << (bits - 1);
  const sign4 = i32x4.splat(sign);
  const down = 32 - bits;
  for (let i = 0; i < n; i += 8) {
    const a = load4<T>(x);
    const b = load4<T>(x + 4 * sizeof<T>());
    const p = v128.or(
      floats4(scaled4(a, f, divide), least4, shift4, exponent4, most4, m), v128.and(i32x4.shr_u(a, down), sign4));
    const q = v128.or(
      floats4(scaled4(b, f, divide), least4, shift4, exponent4, most4, m), v128.and(i32x4.shr_u(b, down), sign4));
    const pq = i16x8.narrow_i32x4_u(p, q);
    v128.store64_lane(out, i8x16.narrow_i16x8_u(pq, pq), 0);
    x += 8 * sizeof<T>();
    out += 8;
  }
}

/**
 * Small floats of bf16 patterns in 16-bit lanes: scaling by 2^s is a shift of the exponent field, rounding an addition.
 * Only where no nonzero value of the block is below the smallest normal element; returns whether that was so.
 */
// @ts-ignore: decorator
@inline
function patternBlock(x: usize, n: i32, s: i32, out: usize): bool {
  const m = fraction;
  // Exponent field, in bf16, of the smallest normal element.
  const field = (least >> 23) + s;
  if (field < 1) return false;
  const lowest = i16x8.splat(<i16>((field << 7) - 1));
  const magnitudes = i16x8.splat(0x7fff);
  const one = i16x8.splat(1);
  let small = i16x8.splat(0);
  for (let i = 0; i < n; i += 8) {
    // 0 − 1 is the largest unsigned number: zeros are not small.
    const y = i16x8.sub(v128.and(v128.load(x + (<usize>i << 1)), magnitudes), one);
    small = v128.or(small, i16x8.lt_u(y, lowest));
  }
  if (v128.any_true(small)) return false;
  const drop = 7 - m;
  const half = i16x8.splat(<i16>((<i32>1 << <i32>(drop - 1)) - <i32>1));
  const base = i16x8.splat(<i16>((field - 1) << m));
  const most = i16x8.splat(<i16>topCode);
  const sign = i16x8.splat(<i16>(<i32>1 << <i32>(bits - 1)));
  const down = 16 - bits;
  for (let i = 0; i < n; i += 16) {
    const p = v128.load(x);
    const q = v128.load(x, 16);
    let a = v128.and(p, magnitudes);
    let b = v128.and(q, magnitudes);
    a = i16x8.shr_u(i16x8.add(i16x8.add(a, half), v128.and(i16x8.shr_u(a, drop), one)), drop);
    b = i16x8.shr_u(i16x8.add(i16x8.add(b, half), v128.and(i16x8.shr_u(b, drop), one)), drop);
    a = v128.or(i16x8.min_u(i16x8.sub_sat_u(a, base), most), v128.and(i16x8.shr_u(p, down), sign));
    b = v128.or(i16x8.min_u(i16x8.sub_sat_u(b, base), most), v128.and(i16x8.shr_u(q, down), sign));
    v128.store(out, i8x16.narrow_i16x8_u(a, b));
    x += 32;
    out += 16;
  }
  return true;
}

/** e2m1 of bf16 patterns: the two first mantissa bits, corrected for ties, pick the code from a table. */
// @ts-ignore: decorator
@inline
function e2m1Block(x: usize, n: i32, s: i32, out: usize): bool {
  const field = 127 + s;
  // The table begins at 0.5; 0.25 has to be a normal bf16.
  if (field < 3) return false;
  const magnitudes = i16x8.splat(0x7fff);
  const one = i16x8.splat(1);
  const begin = i16x8.splat(<i16>((field - 1) << 7));
  const quarter = i16x8.splat(<i16>((field - 2) << 7));
  const last = i16x8.splat(13);
  const eight = i16x8.splat(8);
  // 0.5, 0.625 → 0.5; 0.75, 0.875 → 1; 1 → 1; 1.25, 1.5 → 1.5; 1.75, 2 → 2; 2.5, 3 → 3; 3.5, 4 → 4; from 5 on 6.
  const table = i8x16(1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7);
  for (let i = 0; i < n; i += 16) {
    const p = v128.load(x);
    const q = v128.load(x, 16);
    let a = v128.and(p, magnitudes);
    let b = v128.and(q, magnitudes);
    // Half way cases belong to the even code: below when the bit of weight one half is 0, which one less decides.
    a = i16x8.sub_sat_u(i16x8.add(a, v128.and(i16x8.shr_u(a, 6), one)), one);
    b = i16x8.sub_sat_u(i16x8.add(b, v128.and(i16x8.shr_u(b, 6), one)), one);
    const ia = i16x8.min_u(i16x8.shr_u(i16x8.sub_sat_u(a, begin), 5), last);
    const ib = i16x8.min_u(i16x8.shr_u(i16x8.sub_sat_u(b, begin), 5), last);
    const codes = i8x16.swizzle(table, i8x16.narrow_i16x8_u(ia, ib));
    const kept = i8x16.narrow_i16x8_s(i16x8.ge_s(a, quarter), i16x8.ge_s(b, quarter));
    const signs = i8x16.narrow_i16x8_u(v128.and(i16x8.shr_u(p, 12), eight), v128.and(i16x8.shr_u(q, 12), eight));
    v128.store(out, v128.or(v128.and(codes, kept), signs));
    x += 32;
    out += 16;
  }
  return true;
}

/** What four values read as under a scale. `factor`: as `scaled4` and for integers the second factor; `unit`: value of one. */
// @ts-ignore: decorator
@inline
function values4(v: v128, first: v128, factor: v128, unit: v128, high: v128): v128 {
  if (kind == INT) {
    const magic = f32x4.splat(MAGIC);
    const q = f32x4.sub(f32x4.add(f32x4.mul(f32x4.mul(v, first), factor), magic), magic);
    return f32x4.mul(f32x4.pmax(f32x4.pmin(q, high), f32x4.neg(high)), unit);
  }
  const y = scaled4(v, factor, kind == NVFP4);
  const r = rounded4(y, i32x4.splat(least), i32x4.splat((23 - fraction) << 23), i32x4.splat(EXPONENT), high);
  return v128.or(f32x4.mul(r, unit), v128.and(v, i32x4.splat(0x80000000)));
}

/** Numbers that `values4` takes for a scale: exponent, or e4m3 code for nvfp4. */
// @ts-ignore: decorator
@inline
function factorOf(scale: i32): f32 {
  return kind == INT ? secondFactor(scale) : kind == FLOAT ? powerOf2(-scale) : scaleValue(scale) / divisor;
}

// @ts-ignore: decorator
@inline
function unitOf(scale: i32): f32 {
  return kind == INT ? powerOf2(scale - fraction) : kind == FLOAT ? powerOf2(scale) : scaleValue(scale) / divisor;
}

/** Squared error of a block, in the order of core/blocks/scale.ts. */
function blockError<T>(x: usize, n: i32, scale: i32): f64 {
  const first = f32x4.splat(kind == INT ? firstFactor(scale) : 1);
  const factor = f32x4.splat(factorOf(scale));
  const unit = f32x4.splat(unitOf(scale));
  const high = f32x4.splat(kind == INT ? <f32>topCode : topValue);
  let low2 = f64x2.splat(0);
  let high2 = f64x2.splat(0);
  for (let i = 0; i < n; i += 4) {
    let v = load4<T>(x);
    // Past the end of the block: zeros, which have no error.
    if (i + 4 > n) v = v128.and(v, i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(n - i)));
    const e = f32x4.sub(v, values4(v, first, factor, unit, high));
    const a = f64x2.promote_low_f32x4(e);
    const b = f64x2.promote_low_f32x4(v128.shuffle<u64>(e, e, 1, 1));
    low2 = f64x2.add(low2, f64x2.mul(a, a));
    high2 = f64x2.add(high2, f64x2.mul(b, b));
    x += 4 * sizeof<T>();
  }
  const sum = f64x2.add(low2, high2);
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

/** The scale of a block: an exponent, or an e4m3 code. */
function chooseScale<T>(x: usize, n: i32, magnitude: u32): i32 {
  if (kind == NVFP4) {
    const rule = nvScale(magnitude);
    if (!search) return rule;
    let found = rule;
    let best = blockError<T>(x, n, rule);
    for (let code = max(1, rule - 8), end = min(0x7e, rule + 8); code <= end; code++) {
      const error = blockError<T>(x, n, code);
      if (error < best) {
        best = error;
        found = code;
      }
    }
    return found;
  }
  const rule = scaleExponent(magnitude);
  if (!search || magnitude == 0) return rule;
  const exact = exponentOf(magnitude) - top;
  let found = rule;
  let best = blockError<T>(x, n, rule);
  const up = clampScale(exact + 1);
  if (up != rule) {
    const error = blockError<T>(x, n, up);
    if (error < best) {
      best = error;
      found = up;
    }
  }
  const down = clampScale(exact - 1);
  if (down != rule && down != up && blockError<T>(x, n, down) < best) found = down;
  return found;
}

/** One block: its scale byte and codes. */
function encodeBlock<T>(x: usize, n: i32, magnitude: u32, out: usize, scales: usize): void {
  if (magnitude >= <u32>EXPONENT) {
    store<u8>(scales, kind == NVFP4 ? 0x7f : 0xff);
    memory.fill(out, 0, <usize>n * (bits > 8 ? 2 : 1));
    return;
  }
  const scale = chooseScale<T>(x, n, magnitude);
  store<u8>(scales, kind == NVFP4 ? scale : scale + 127);
  if (kind == INT) intBlock<T>(x, n, scale, out);
  else if (kind == NVFP4) floatBlock<T>(x, n, scaleValue(scale) / divisor, true, out);
  else {
    const done = sizeof<T>() == 2 && n % 16 == 0 && (bits == 4 ? e2m1Block(x, n, scale, out) : patternBlock(x, n, scale, out));
    if (!done) floatBlock<T>(x, n, powerOf2(-scale), false, out);
  }
}

function encodeMatrix<T>(x: usize, rows: i32, cols: i32, block: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  let most: u32 = 0;
  const width: usize = bits > 8 ? 2 : 1;
  for (let r = 0; r < rows; r++) {
    const row = codes + <usize>r * stride;
    let out = pack ? scratch : row;
    for (let c = 0; c < cols; c += block) {
      const n = min(block, cols - c);
      const magnitude = blockMax<T>(x, n);
      most = max(most, magnitude);
      encodeBlock<T>(x, n, magnitude, out, scales++);
      x += <usize>n * sizeof<T>();
      out += <usize>n * width;
    }
    if (pack) packRow(scratch, cols, row, stride);
  }
  return most;
}

/** Four of eight bf16 patterns as f32. */
// @ts-ignore: decorator
@inline
function low4(v: v128): v128 {
  return v128.shuffle<u16>(i16x8.splat(0), v, 0, 8, 1, 9, 2, 10, 3, 11);
}

// @ts-ignore: decorator
@inline
function high4(v: v128): v128 {
  return v128.shuffle<u16>(i16x8.splat(0), v, 4, 12, 5, 13, 6, 14, 7, 15);
}

// @ts-ignore: decorator
@inline
function ints16(p: v128, q: v128, times: v128, magic: v128): v128 {
  const a = i32x4.sub(f32x4.add(f32x4.mul(low4(p), times), magic), magic);
  const b = i32x4.sub(f32x4.add(f32x4.mul(high4(p), times), magic), magic);
  const c = i32x4.sub(f32x4.add(f32x4.mul(low4(q), times), magic), magic);
  const d = i32x4.sub(f32x4.add(f32x4.mul(high4(q), times), magic), magic);
  return i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d));
}

/** Two vectors of codes as 16 bytes of nibbles. */
// @ts-ignore: decorator
@inline
function nibbles(p: v128, q: v128): v128 {
  const mask = i16x8.splat(0x0f0f);
  const low = i16x8.splat(0x00ff);
  p = v128.and(p, mask);
  q = v128.and(q, mask);
  return i8x16.narrow_i16x8_u(v128.and(v128.or(p, i16x8.shr_u(p, 4)), low), v128.and(v128.or(q, i16x8.shr_u(q, 4)), low));
}

/** Largest magnitude of 32 bf16 patterns, lane by lane. */
// @ts-ignore: decorator
@inline
function max32(x: usize, mask: v128): v128 {
  return i16x8.max_s(
    i16x8.max_s(v128.and(v128.load(x), mask), v128.and(v128.load(x, 16), mask)),
    i16x8.max_s(v128.and(v128.load(x, 32), mask), v128.and(v128.load(x, 48), mask)));
}

// @ts-ignore: decorator
@inline
function widest(m: v128): i32 {
  m = i16x8.max_s(m, v128.shuffle<u64>(m, m, 1, 1));
  m = i16x8.max_s(m, i64x2.shr_u(m, 32));
  m = i16x8.max_s(m, i32x4.shr_u(m, 16));
  return i16x8.extract_lane_u(m, 0);
}

/** Exponent of the scale of a normal maximum, a bf16 pattern. */
// @ts-ignore: decorator
@inline
function scaleOfPattern(pattern: i32): i32 {
  return clampScale((pattern >> 7) - 127 - top + i32((pattern & 0x7f) << 16 > limit));
}

/**
 * Whole blocks of 32 bf16 patterns or multiples of it, mantissas of at most 8 bits: straight-line code. A block whose maximum
 * or scale is not a normal number goes the general way.
 */
function intRows(x: usize, rows: i32, cols: i32, block: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  let most = 0;
  const magic = f32x4.splat(MAGIC);
  const mask = i16x8.splat(0x7fff);
  const high = i8x16.splat(<i8>topCode);
  const low = i8x16.splat(<i8>-topCode);
  const direct = pack && bits == 4;
  for (let r = 0; r < rows; r++) {
    const row = codes + <usize>r * stride;
    let out = pack && !direct ? scratch : row;
    for (let c = 0; c < cols; c += block) {
      let m = max32(x, mask);
      for (let i = 32; i < block; i += 32) m = i16x8.max_s(m, max32(x + (<usize>i << 1), mask));
      const pattern = widest(m);
      most = max(most, pattern);
      const up = fraction - scaleOfPattern(pattern);
      if (<u32>(pattern - 0x80) >= 0x7f00 || up > 127 || up < -126) {
        encodeBlock<u16>(x, block, <u32>pattern << 16, direct ? scratch : out, scales++);
        if (direct) packRow(scratch, block, out, block >> 1);
        x += <usize>block << 1;
        out += direct ? block >> 1 : block;
        continue;
      }
      store<u8>(scales++, fraction - up + 127);
      const times = f32x4.splat(reinterpret<f32>((up + 127) << 23));
      for (let i = 0; i < block; i += 32) {
        const a = i8x16.max_s(i8x16.min_s(ints16(v128.load(x), v128.load(x, 16), times, magic), high), low);
        const b = i8x16.max_s(i8x16.min_s(ints16(v128.load(x, 32), v128.load(x, 48), times, magic), high), low);
        x += 64;
        if (direct) {
          v128.store(out, nibbles(a, b));
          out += 16;
        } else {
          v128.store(out, a);
          v128.store(out, b, 16);
          out += 32;
        }
      }
    }
    if (pack && !direct) packRow(scratch, cols, row, stride);
  }
  return <u32>most << 16;
}

/** 16 e2m1 codes of bf16 patterns; constants as in e2m1Block. */
// @ts-ignore: decorator
@inline
function e2m1x16(p: v128, q: v128, begin: v128, quarter: v128, table: v128): v128 {
  const mask = i16x8.splat(0x7fff);
  const one = i16x8.splat(1);
  const last = i16x8.splat(13);
  let a = v128.and(p, mask);
  let b = v128.and(q, mask);
  a = i16x8.sub_sat_u(i16x8.add(a, v128.and(i16x8.shr_u(a, 6), one)), one);
  b = i16x8.sub_sat_u(i16x8.add(b, v128.and(i16x8.shr_u(b, 6), one)), one);
  const index = i8x16.narrow_i16x8_u(
    i16x8.min_s(i16x8.shr_u(i16x8.sub_sat_u(a, begin), 5), last), i16x8.min_s(i16x8.shr_u(i16x8.sub_sat_u(b, begin), 5), last));
  const kept = i8x16.narrow_i16x8_s(i16x8.gt_s(a, quarter), i16x8.gt_s(b, quarter));
  const signs = v128.and(i8x16.narrow_i16x8_s(i16x8.shr_s(p, 15), i16x8.shr_s(q, 15)), i8x16.splat(8));
  return v128.or(v128.and(i8x16.swizzle(table, index), kept), signs);
}

/** As intRows, for MXFP4. */
function e2m1Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  let most = 0;
  const mask = i16x8.splat(0x7fff);
  const table = i8x16(1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7);
  for (let r = 0; r < rows; r++) {
    let out = codes + <usize>r * stride;
    for (let c = 0; c < cols; c += MX_BLOCK) {
      const pattern = widest(max32(x, mask));
      most = max(most, pattern);
      const field = 127 + scaleOfPattern(pattern);
      if (<u32>(pattern - 0x80) >= 0x7f00 || field < 3) {
        encodeBlock<u16>(x, MX_BLOCK, <u32>pattern << 16, pack ? scratch : out, scales++);
        if (pack) packRow(scratch, MX_BLOCK, out, MX_BLOCK >> 1);
        x += MX_BLOCK << 1;
        out += pack ? MX_BLOCK >> 1 : MX_BLOCK;
        continue;
      }
      store<u8>(scales++, field);
      const begin = i16x8.splat(<i16>((field - 1) << 7));
      const quarter = i16x8.splat(<i16>(((field - 2) << 7) - 1));
      const a = e2m1x16(v128.load(x), v128.load(x, 16), begin, quarter, table);
      const b = e2m1x16(v128.load(x, 32), v128.load(x, 48), begin, quarter, table);
      x += 64;
      if (pack) {
        v128.store(out, nibbles(a, b));
        out += 16;
      } else {
        v128.store(out, a);
        v128.store(out, b, 16);
        out += 32;
      }
    }
  }
  return <u32>most << 16;
}

/** 8 codes of small floats of bf16 patterns, without sign, in 16-bit lanes. */
// @ts-ignore: decorator
@inline
function pattern8(p: v128, drop: i32, half: v128, base: v128): v128 {
  const a = v128.and(p, i16x8.splat(0x7fff));
  return i16x8.sub_sat_u(i16x8.shr_u(i16x8.add(i16x8.add(a, half), v128.and(i16x8.shr_u(a, drop), i16x8.splat(1))), drop), base);
}

/** 16 codes of two such vectors, with the signs of their patterns. */
// @ts-ignore: decorator
@inline
function signed16(a: v128, b: v128, p: v128, q: v128, most: v128, sign: v128): v128 {
  const signs = v128.and(i8x16.narrow_i16x8_s(i16x8.shr_s(p, 15), i16x8.shr_s(q, 15)), sign);
  return v128.or(i8x16.min_u(i8x16.narrow_i16x8_u(a, b), most), signs);
}

/** 8 codes by way of f32, where subnormal elements are many. */
// @ts-ignore: decorator
@inline
function float8(p: v128, factor: v128, least4: v128, shift4: v128, exponent4: v128, offset: v128, m: i32): v128 {
  const y = v128.and(p, i16x8.splat(0x7fff));
  const a = f32x4.mul(low4(y), factor);
  const b = f32x4.mul(high4(y), factor);
  const ea = i32x4.max_s(v128.and(a, exponent4), least4);
  const eb = i32x4.max_s(v128.and(b, exponent4), least4);
  const ca = i32x4.add(ea, shift4);
  const cb = i32x4.add(eb, shift4);
  const ra = i32x4.add(i32x4.sub(f32x4.add(a, ca), ca), i32x4.shr_u(ea, 23 - m));
  const rb = i32x4.add(i32x4.sub(f32x4.add(b, cb), cb), i32x4.shr_u(eb, 23 - m));
  return i16x8.sub(i16x8.narrow_i32x4_s(ra, rb), offset);
}

/** As intRows, for MXFP8 and MXFP6. `m` mantissa bits of codes of `width` bits: constants, so that shifts are immediate. */
// @ts-ignore: decorator
@inline
function floatRows(m: i32, width: i32, x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  let largest = 0;
  const mask = i16x8.splat(0x7fff);
  const one = i16x8.splat(1);
  const drop = 7 - m;
  const half = i16x8.splat(<i16>((<i32>1 << <i32>(drop - 1)) - <i32>1));
  const most = i8x16.splat(<i8>topCode);
  const sign = i8x16.splat(<i8>(<i32>1 << <i32>(width - 1)));
  const least4 = i32x4.splat(least);
  const shift4 = i32x4.splat((23 - m) << 23);
  const exponent4 = i32x4.splat(EXPONENT);
  const offset = i16x8.splat(<i16>((least >> 23) << m));
  for (let r = 0; r < rows; r++) {
    const row = codes + <usize>r * stride;
    let out = pack ? scratch : row;
    for (let c = 0; c < cols; c += MX_BLOCK) {
      const p0 = v128.and(v128.load(x), mask);
      const p1 = v128.and(v128.load(x, 16), mask);
      const p2 = v128.and(v128.load(x, 32), mask);
      const p3 = v128.and(v128.load(x, 48), mask);
      const pattern = widest(i16x8.max_s(i16x8.max_s(p0, p1), i16x8.max_s(p2, p3)));
      largest = max(largest, pattern);
      const s = scaleOfPattern(pattern);
      const field = (least >> 23) + s;
      if (<u32>(pattern - 0x80) >= 0x7f00 || field < 1 || s < -126) {
        encodeBlock<u16>(x, MX_BLOCK, <u32>pattern << 16, out, scales++);
        x += MX_BLOCK << 1;
        out += MX_BLOCK;
        continue;
      }
      store<u8>(scales++, s + 127);
      // Zeros less one are the largest unsigned numbers.
      const small = i16x8.min_u(
        i16x8.min_u(i16x8.sub(p0, one), i16x8.sub(p1, one)), i16x8.min_u(i16x8.sub(p2, one), i16x8.sub(p3, one)));
      const hasSmall = v128.any_true(i16x8.sub_sat_u(i16x8.splat(<i16>((field << 7) - 1)), small));
      if (hasSmall) {
        const factor = f32x4.splat(reinterpret<f32>((127 - s) << 23));
        for (let i = 0; i < MX_BLOCK; i += 16) {
          const p = v128.load(x);
          const q = v128.load(x, 16);
          const a = float8(p, factor, least4, shift4, exponent4, offset, m);
          const b = float8(q, factor, least4, shift4, exponent4, offset, m);
          v128.store(out, signed16(a, b, p, q, most, sign));
          x += 32;
          out += 16;
        }
      } else {
        const base = i16x8.splat(<i16>((field - 1) << m));
        const p = v128.load(x);
        const q = v128.load(x, 16);
        v128.store(out, signed16(pattern8(p, drop, half, base), pattern8(q, drop, half, base), p, q, most, sign));
        const t = v128.load(x, 32);
        const u = v128.load(x, 48);
        v128.store(out, signed16(pattern8(t, drop, half, base), pattern8(u, drop, half, base), t, u, most, sign), 16);
        x += 64;
        out += 32;
      }
    }
    if (pack) packRow(scratch, cols, row, stride);
  }
  return <u32>largest << 16;
}

function e4m3Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  return floatRows(3, 8, x, rows, cols, codes, stride, scales, pack, scratch);
}

function e5m2Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  return floatRows(2, 8, x, rows, cols, codes, stride, scales, pack, scratch);
}

function e2m3Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  return floatRows(3, 6, x, rows, cols, codes, stride, scales, pack, scratch);
}

function e3m2Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  return floatRows(2, 6, x, rows, cols, codes, stride, scales, pack, scratch);
}

/**
 * Codes of a matrix. Rows of codes are `stride` bytes apart: one code a byte (two for mantissas of more than 8 bits), or with
 * `pack` one little-endian bit stream, made by way of `scratch`, which has room for a row of codes.
 *
 * @returns f32 bits of the largest magnitude.
 */
export function encodeBf16(
  x: usize, rows: i32, cols: i32, block: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize,
): u32 {
  if (block % 32 == 0 && cols % block == 0 && !search && kind != NVFP4 && bits <= 8) {
    if (kind == INT) return intRows(x, rows, cols, block, codes, stride, scales, pack, scratch);
    if (block == MX_BLOCK) {
      if (bits == 4) return e2m1Rows(x, rows, cols, codes, stride, scales, pack, scratch);
      if (bits == 8 && fraction == 3) return e4m3Rows(x, rows, cols, codes, stride, scales, pack, scratch);
      if (bits == 8) return e5m2Rows(x, rows, cols, codes, stride, scales, pack, scratch);
      if (fraction == 3) return e2m3Rows(x, rows, cols, codes, stride, scales, pack, scratch);
      return e3m2Rows(x, rows, cols, codes, stride, scales, pack, scratch);
    }
  }
  return encodeMatrix<u16>(x, rows, cols, block, codes, stride, scales, pack, scratch);
}

export function encodeF32(
  x: usize, rows: i32, cols: i32, block: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize,
): u32 {
  return encodeMatrix<f32>(x, rows, cols, block, codes, stride, scales, pack, scratch);
}

/** One row of codes to a bit stream of `stride` bytes. */
function packRow(x: usize, cols: i32, at: usize, stride: i32): void {
  const end = at + stride;
  const mask: u32 = (1 << bits) - 1;
  let c = 0;
  if (bits == 4) {
    const nibbles = i16x8.splat(0x0f0f);
    const low = i16x8.splat(0x00ff);
    for (; c + 32 <= cols; c += 32) {
      const p = v128.and(v128.load(x), nibbles);
      const q = v128.and(v128.load(x, 16), nibbles);
      const a = v128.and(v128.or(p, i16x8.shr_u(p, 4)), low);
      const b = v128.and(v128.or(q, i16x8.shr_u(q, 4)), low);
      v128.store(at, i8x16.narrow_i16x8_u(a, b));
      x += 32;
      at += 16;
    }
  } else if (bits < 8) {
    // Eight codes become `bits` bytes by joining neighbours three times; what the store writes too much is written again.
    const masks: u64 = <u64>mask * 0x0101010101010101;
    for (; c + 8 <= cols; c += 8) {
      let u = load<u64>(x) & masks;
      u = (u & 0x00ff00ff00ff00ff) | ((u & 0xff00ff00ff00ff00) >> (8 - bits));
      u = (u & 0x0000ffff0000ffff) | ((u & 0xffff0000ffff0000) >> (16 - 2 * bits));
      store<u64>(at, (u & 0xffffffff) | ((u >> 32) << (4 * bits)));
      x += 8;
      at += bits;
    }
  }
  let pending: u32 = 0;
  let held = 0;
  for (; c < cols; c++) {
    const code = bits > 8 ? <u32>load<u16>(x) : <u32>load<u8>(x);
    pending |= (code & mask) << held;
    held += bits;
    while (held >= 8) {
      store<u8>(at++, pending);
      pending >>= 8;
      held -= 8;
    }
    x += bits > 8 ? 2 : 1;
  }
  while (at < end) {
    store<u8>(at++, pending);
    pending = 0;
  }
}

/** Codes, one a byte or two bytes, to bit streams of `stride` bytes a row. */
export function pack(x: usize, rows: i32, cols: i32, stride: i32, out: usize): void {
  const rowBytes = <usize>cols * (bits > 8 ? 2 : 1);
  for (let r = 0; r < rows; r++) packRow(x + <usize>r * rowBytes, cols, out + <usize>r * stride, stride);
}

/** Bit streams of `stride` bytes a row to codes, one a byte or two bytes; integers with their sign. */
export function unpack(x: usize, rows: i32, cols: i32, stride: i32, out: usize): void {
  const mask: u32 = (1 << bits) - 1;
  const signed = kind == INT;
  const up = 32 - bits;
  for (let r = 0; r < rows; r++) {
    let at = x + <usize>r * stride;
    let c = 0;
    if (bits == 4) {
      const low = i8x16.splat(15);
      for (; c + 32 <= cols; c += 32) {
        const v = v128.load(at);
        let even = v128.and(v, low);
        let odd = i8x16.shr_u(v, 4);
        if (signed) {
          const eight = i8x16.splat(8);
          even = i8x16.sub(v128.xor(even, eight), eight);
          odd = i8x16.sub(v128.xor(odd, eight), eight);
        }
        v128.store(out, v128.shuffle<u8>(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
        v128.store(out, v128.shuffle<u8>(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), 16);
        at += 16;
        out += 32;
      }
    }
    let pending: u32 = 0;
    let held = 0;
    for (; c < cols; c++) {
      while (held < bits) {
        pending |= <u32>load<u8>(at++) << held;
        held += 8;
      }
      const code = pending & mask;
      pending >>= bits;
      held -= bits;
      const value = signed ? <i32>(code << up) >> up : <i32>code;
      if (bits > 8) {
        store<u16>(out, value);
        out += 2;
      } else store<u8>(out++, value);
    }
  }
}

/** What one stands for under a stored scale byte: integers per code. NaN for the NaN scale. */
// @ts-ignore: decorator
@inline
function unitOfByte(byte: i32): f32 {
  if (kind == NVFP4) return (byte & 0x7f) == 0x7f ? NaN : byte & 0x80 ? -scaleValue(byte & 0x7f) / divisor : scaleValue(byte) / divisor;
  if (byte == 0xff) return NaN;
  return powerOf2(byte - 127 - (kind == INT ? fraction : 0));
}

/** Values of codes, one a byte or two bytes each. `table`: f32 values of all float codes. */
export function decode(codes: usize, rows: i32, cols: i32, block: i32, scales: usize, table: usize, out: usize): void {
  // e2m1 twice: whole numbers, which 8-bit lanes hold.
  const doubled = i8x16(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
  const half = f32x4.splat(0.5);
  const minus = i32x4.splat(8);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += block) {
      const n = min(block, cols - c);
      const scale = unitOfByte(load<u8>(scales++));
      const unit = f32x4.splat(scale);
      let i = 0;
      if (kind == INT) {
        if (bits > 8) {
          for (; i + 4 <= n; i += 4) {
            v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(v128.load_ext<i16>(codes)), unit));
            codes += 8;
            out += 16;
          }
          for (; i < n; i++) {
            store<f32>(out, <f32>load<i16>(codes) * scale);
            codes += 2;
            out += 4;
          }
        } else {
          for (; i + 8 <= n; i += 8) {
            const v = v128.load_ext<i8>(codes);
            v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(v)), unit));
            v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(v)), unit), 16);
            codes += 8;
            out += 32;
          }
          for (; i < n; i++) {
            store<f32>(out, <f32>load<i8>(codes++) * scale);
            out += 4;
          }
        }
      } else if (bits == 4) {
        for (; i + 8 <= n; i += 8) {
          const v = v128.load_ext<u8>(codes);
          const raw = v128.load64_zero(codes);
          const twice = i16x8.extend_low_i8x16_s(i8x16.swizzle(doubled, raw));
          const signs = v128.and(v, i16x8.splat(8));
          // The sign comes from the code: −0 is a value too.
          const a = f32x4.mul(f32x4.mul(f32x4.abs(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(twice))), half), unit);
          const b = f32x4.mul(f32x4.mul(f32x4.abs(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(twice))), half), unit);
          v128.store(out, v128.xor(a, i32x4.shl(v128.and(i32x4.extend_low_i16x8_u(signs), minus), 28)));
          v128.store(out, v128.xor(b, i32x4.shl(v128.and(i32x4.extend_high_i16x8_u(signs), minus), 28)), 16);
          codes += 8;
          out += 32;
        }
      }
      if (kind != INT) {
        for (; i < n; i++) {
          store<f32>(out, load<f32>(table + (<usize>load<u8>(codes++) << 2)) * scale);
          out += 4;
        }
      }
    }
  }
}

/** f32 values replaced by what their codes read as. */
export function fakeQuantize(x: usize, rows: i32, cols: i32, block: i32): void {
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += block) {
      const n = min(block, cols - c);
      const magnitude = blockMax<f32>(x, n);
      if (magnitude >= <u32>EXPONENT) {
        for (let i = 0; i < n; i++) {
          store<f32>(x, NaN);
          x += 4;
        }
        continue;
      }
      const scale = chooseScale<f32>(x, n, magnitude);
      const first = f32x4.splat(kind == INT ? firstFactor(scale) : 1);
      const factor = f32x4.splat(factorOf(scale));
      const unit = f32x4.splat(unitOf(scale));
      const high = f32x4.splat(kind == INT ? <f32>topCode : topValue);
      let i = 0;
      for (; i + 4 <= n; i += 4) {
        v128.store(x, values4(v128.load(x), first, factor, unit, high));
        x += 16;
      }
      if (i < n) {
        const v = values4(v128.load(x), first, factor, unit, high);
        store<f32>(x, f32x4.extract_lane(v, 0));
        if (i + 1 < n) store<f32>(x + 4, f32x4.extract_lane(v, 1));
        if (i + 2 < n) store<f32>(x + 8, f32x4.extract_lane(v, 2));
        x += <usize>(n - i) * 4;
      }
    }
  }
}

/**
 * Adds Σx² and Σ(x − x̂)² of a matrix to the two f64 at `sums`: squares in f64, four sums a row by column modulo 4,
 * joined as (s0 + s2) + (s1 + s3), rows one after another.
 */
// @ts-ignore: decorator
@inline
function sumErrors<T>(x: usize, read: usize, rows: i32, cols: i32, sums: usize): void {
  for (let r = 0; r < rows; r++) {
    let w0 = f64x2.splat(0);
    let w1 = f64x2.splat(0);
    let e0 = f64x2.splat(0);
    let e1 = f64x2.splat(0);
    for (let c = 0; c < cols; c += 4) {
      let v = load4<T>(x + <usize>c * sizeof<T>());
      let e = f32x4.sub(v, v128.load(read + (<usize>c << 2)));
      if (c + 4 > cols) {
        const inside = i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(cols - c));
        v = v128.and(v, inside);
        e = v128.and(e, inside);
      }
      const va = f64x2.promote_low_f32x4(v);
      const vb = f64x2.promote_low_f32x4(v128.shuffle<u64>(v, v, 1, 1));
      const ea = f64x2.promote_low_f32x4(e);
      const eb = f64x2.promote_low_f32x4(v128.shuffle<u64>(e, e, 1, 1));
      w0 = f64x2.add(w0, f64x2.mul(va, va));
      w1 = f64x2.add(w1, f64x2.mul(vb, vb));
      e0 = f64x2.add(e0, f64x2.mul(ea, ea));
      e1 = f64x2.add(e1, f64x2.mul(eb, eb));
    }
    const w = f64x2.add(w0, w1);
    const e = f64x2.add(e0, e1);
    store<f64>(sums, load<f64>(sums) + (f64x2.extract_lane(w, 0) + f64x2.extract_lane(w, 1)));
    store<f64>(sums, load<f64>(sums, 8) + (f64x2.extract_lane(e, 0) + f64x2.extract_lane(e, 1)), 8);
    x += <usize>cols * sizeof<T>();
    read += <usize>cols * 4;
  }
}

export function sumErrorsBf16(x: usize, read: usize, rows: i32, cols: i32, sums: usize): void {
  sumErrors<u16>(x, read, rows, cols, sums);
}

export function sumErrorsF32(x: usize, read: usize, rows: i32, cols: i32, sums: usize): void {
  sumErrors<f32>(x, read, rows, cols, sums);
}

/** f32 bits of the largest magnitude of `n` values. */
export function maxBf16(x: usize, n: i32): u32 {
  return blockMax<u16>(x, n);
}

export function maxF32(x: usize, n: i32): u32 {
  return blockMax<f32>(x, n);
}
