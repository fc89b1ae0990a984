// Any block of any format, whole or not: the general way. AssemblyScript, not TypeScript.
// `T` is u16 for bf16 patterns, f32 for f32.
import { load4 } from "../lanes.as";
import { scaleValue } from "./e4m3.as";
import { packRow } from "./packing.as";
import { blockMax, chooseScale } from "./scales.as";
import { EXPONENT, INT, MAGIC, NVFP4, bits, divisor, fraction, kind, least, powerOf2, topCode } from "./state.as";
import { firstFactor, scaled4, secondFactor } from "./values.as";

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

/** One block: its scale byte and codes. */
export function encodeBlock<T>(x: usize, n: i32, magnitude: u32, out: usize, scales: usize): void {
  if (magnitude >= <u32>EXPONENT) {
    store<u8>(scales, kind == NVFP4 ? 0x7f : 0xff);
    memory.fill(out, 0, <usize>n * (bits > 8 ? 2 : 1));
    return;
  }
  const scale = chooseScale<T>(x, n, magnitude);
  store<u8>(scales, kind == NVFP4 ? scale : scale + 127);
  if (kind == INT) intBlock<T>(x, n, scale, out);
  else if (kind == NVFP4) floatBlock<T>(x, n, scaleValue(scale) / divisor, true, out);
  else floatBlock<T>(x, n, powerOf2(-scale), false, out);
}

export function encodeMatrix<T>(x: usize, rows: i32, cols: i32, block: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
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
