// Rows of whole blocks of bf16 to MXFP8, MXFP6 and MXFP4: straight-line code. AssemblyScript, not TypeScript.
import { encodeBlock } from "./elements.as";
import { packRow } from "./packing.as";
import { high4, low4, max32, nibbles, scaleOfPattern, signed16, widest } from "./patterns.as";
import { MX_BLOCK, least, topCode } from "./state.as";

/** 16 e2m1 codes of bf16 patterns; the two first mantissa bits, corrected for ties, pick the code from a table. */
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
export function e2m1Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
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

/** 8 codes of magnitudes at most one binade above the subnormal elements: adding 2^23 steps rounds to whole steps, which are codes. */
// @ts-ignore: decorator
@inline
function subnormal8(p: v128, magic: v128): v128 {
  const y = v128.and(p, i16x8.splat(0x7fff));
  return i16x8.narrow_i32x4_s(i32x4.sub(f32x4.add(low4(y), magic), magic), i32x4.sub(f32x4.add(high4(y), magic), magic));
}

/** 8 codes without sign, subnormal or not. */
// @ts-ignore: decorator
@inline
function mixed8(p: v128, drop: i32, half: v128, base: v128, magic: v128, normal: v128): v128 {
  const isSmall = i16x8.lt_s(v128.and(p, i16x8.splat(0x7fff)), normal);
  return v128.bitselect(subnormal8(p, magic), pattern8(p, drop, half, base), isSmall);
}

/** 16 codes of 6 bits to 12 bytes. */
// @ts-ignore: decorator
@inline
function storeSixes(v: v128, out: usize): void {
  const pairs = v128.or(v128.and(v, i16x8.splat(0x003f)), v128.and(i16x8.shr_u(v, 2), i16x8.splat(0x0fc0)));
  const fours = v128.or(v128.and(pairs, i32x4.splat(0x0fff)), v128.and(i32x4.shr_u(pairs, 4), i32x4.splat(0xfff000)));
  const bytes = i8x16.swizzle(fours, i8x16(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 16, 16, 16));
  v128.store64_lane(out, bytes, 0);
  v128.store32_lane(out + 8, bytes, 2);
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
  for (let r = 0; r < rows; r++) {
    let out = codes + <usize>r * stride;
    for (let c = 0; c < cols; c += MX_BLOCK) {
      const p0 = v128.and(v128.load(x), mask);
      const p1 = v128.and(v128.load(x, 16), mask);
      const p2 = v128.and(v128.load(x, 32), mask);
      const p3 = v128.and(v128.load(x, 48), mask);
      const pattern = widest(i16x8.max_s(i16x8.max_s(p0, p1), i16x8.max_s(p2, p3)));
      largest = max(largest, pattern);
      const s = scaleOfPattern(pattern);
      const field = (least >> 23) + s;
      if (<u32>(pattern - 0x80) >= 0x7f00 || field < 1 || field + 23 - m > 254) {
        encodeBlock<u16>(x, MX_BLOCK, <u32>pattern << 16, pack ? scratch : out, scales++);
        if (pack) packRow(scratch, MX_BLOCK, out, MX_BLOCK * width >> 3);
      } else {
        store<u8>(scales++, s + 127);
        const base = i16x8.splat(<i16>((field - 1) << m));
        // Zeros less one are the largest unsigned numbers.
        const small = i16x8.min_u(
          i16x8.min_u(i16x8.sub(p0, one), i16x8.sub(p1, one)), i16x8.min_u(i16x8.sub(p2, one), i16x8.sub(p3, one)));
        const hasSmall = v128.any_true(i16x8.sub_sat_u(i16x8.splat(<i16>((field << 7) - 1)), small));
        const p = v128.load(x);
        const q = v128.load(x, 16);
        const t = v128.load(x, 32);
        const u = v128.load(x, 48);
        let a: v128, b: v128;
        if (hasSmall) {
          const magic = i32x4.splat((field + 23 - m) << 23);
          const normal = i16x8.splat(<i16>(field << 7));
          a = signed16(mixed8(p, drop, half, base, magic, normal), mixed8(q, drop, half, base, magic, normal), p, q, most, sign);
          b = signed16(mixed8(t, drop, half, base, magic, normal), mixed8(u, drop, half, base, magic, normal), t, u, most, sign);
        } else {
          a = signed16(pattern8(p, drop, half, base), pattern8(q, drop, half, base), p, q, most, sign);
          b = signed16(pattern8(t, drop, half, base), pattern8(u, drop, half, base), t, u, most, sign);
        }
        if (width == 6 && pack) {
          storeSixes(a, out);
          storeSixes(b, out + 12);
        } else {
          v128.store(out, a);
          v128.store(out, b, 16);
        }
      }
      x += MX_BLOCK << 1;
      out += pack ? MX_BLOCK * width >> 3 : MX_BLOCK;
    }
  }
  return <u32>largest << 16;
}

export function e4m3Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  return floatRows(3, 8, x, rows, cols, codes, stride, scales, pack, scratch);
}

export function e5m2Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  return floatRows(2, 8, x, rows, cols, codes, stride, scales, pack, scratch);
}

export function e2m3Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  return floatRows(3, 6, x, rows, cols, codes, stride, scales, pack, scratch);
}

export function e3m2Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  return floatRows(2, 6, x, rows, cols, codes, stride, scales, pack, scratch);
}
