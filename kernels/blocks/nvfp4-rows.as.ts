// Rows of bf16 to NVFP4, four blocks at a time. AssemblyScript, not TypeScript.
import { roundBf16x4 } from "../lanes.as";
import { encodeBlock } from "./elements.as";
import { packRow } from "./packing.as";
import { high4, low4, nibbles } from "./patterns.as";
import { blockMax } from "./scales.as";
import { EXPONENT, MAGNITUDE, divisor, halfStep } from "./state.as";

const BLOCK = 16;
/** Bytes of four blocks of bf16. */
const FOUR: usize = 128;

/** Larger magnitudes of 16 patterns, lane by lane. */
// @ts-ignore: decorator
@inline
function max16(x: usize, mask: v128): v128 {
  return i16x8.max_s(v128.and(v128.load(x), mask), v128.and(v128.load(x, 16), mask));
}

/** Largest magnitudes of four blocks as f32. */
// @ts-ignore: decorator
@inline
function fourMaxima(x: usize): v128 {
  const mask = i16x8.splat(0x7fff);
  const a = max16(x, mask);
  const b = max16(x + 32, mask);
  const c = max16(x + 64, mask);
  const d = max16(x + 96, mask);
  const ab = i16x8.max_s(v128.shuffle<u64>(a, b, 0, 2), v128.shuffle<u64>(a, b, 1, 3));
  const cd = i16x8.max_s(v128.shuffle<u64>(c, d, 0, 2), v128.shuffle<u64>(c, d, 1, 3));
  const pairs = i16x8.max_s(v128.shuffle<u32>(ab, cd, 0, 2, 4, 6), v128.shuffle<u32>(ab, cd, 1, 3, 5, 7));
  return i32x4.shl(i16x8.max_s(pairs, i32x4.shr_u(pairs, 16)), 16);
}

/** `nvScale` of four blocks, nearest. */
// @ts-ignore: decorator
@inline
function fourCodes(maxima: v128): v128 {
  let sixth = f32x4.div(maxima, f32x4.splat(6));
  if (halfStep) sixth = roundBf16x4(sixth);
  const v = f32x4.pmin(f32x4.mul(f32x4.splat(divisor), sixth), f32x4.splat(480));
  const e = i32x4.max_s(v128.and(v, i32x4.splat(EXPONENT)), i32x4.splat(121 << 23));
  const c = i32x4.add(e, i32x4.splat(20 << 23));
  const rounded = i32x4.sub(f32x4.add(v, c), c);
  const code = i32x4.min_s(
    i32x4.add(rounded, i32x4.sub(i32x4.shr_u(e, 20), i32x4.splat(121 << 3))), i32x4.splat(0x7e));
  return v128.bitselect(i32x4.splat(0x20), code, i32x4.eq(code, i32x4.splat(0)));
}

/** `scaleValue` of four codes. */
// @ts-ignore: decorator
@inline
function fourValues(code: v128): v128 {
  const normal = i32x4.add(i32x4.shl(code, 20), i32x4.splat(120 << 23));
  const small = f32x4.mul(f32x4.convert_i32x4_s(code), f32x4.splat(0.001953125));
  return v128.bitselect(small, normal, i32x4.lt_s(code, i32x4.splat(8)));
}

/**
 * Exponent and two first mantissa bits of four quotients. Halfway cases belong to the even code: below when the bit of weight one
 * half is 0, which one less decides.
 */
// @ts-ignore: decorator
@inline
function leading4(x: v128, unit: v128): v128 {
  const y = f32x4.div(v128.and(x, i32x4.splat(MAGNITUDE)), unit);
  const isOdd = v128.and(i32x4.shr_u(y, 22), i32x4.splat(1));
  // From −1 on for zero, which stays negative and is cut to 0 when narrowed.
  return i32x4.shr_s(i32x4.sub(i32x4.add(y, isOdd), i32x4.splat(1)), 21);
}

/** 16 codes of a block. */
// @ts-ignore: decorator
@inline
function codes16(x: usize, unit: v128): v128 {
  // From 0.25, below which everything is 0.
  const begin = i16x8.splat((125 << 2) - 1);
  const table = i8x16(1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7);
  const p = v128.load(x);
  const q = v128.load(x, 16);
  const a = i16x8.narrow_i32x4_u(leading4(low4(p), unit), leading4(high4(p), unit));
  const b = i16x8.narrow_i32x4_u(leading4(low4(q), unit), leading4(high4(q), unit));
  const w = i8x16.narrow_i16x8_u(i16x8.sub_sat_u(a, begin), i16x8.sub_sat_u(b, begin));
  const index = i8x16.min_u(i8x16.sub_sat_u(w, i8x16.splat(5)), i8x16.splat(13));
  const codes = v128.and(i8x16.swizzle(table, index), i8x16.ne(w, i8x16.splat(0)));
  const signs = i8x16.narrow_i16x8_s(i16x8.shr_s(p, 15), i16x8.shr_s(q, 15));
  return v128.or(codes, v128.and(signs, i8x16.splat(8)));
}

/** As intRows, for rows of whole groups of four blocks, scales rounded to nearest. */
export function nvfp4Rows(x: usize, rows: i32, cols: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize): u32 {
  let most = i32x4.splat(0);
  for (let r = 0; r < rows; r++) {
    let out = codes + <usize>r * stride;
    for (let c = 0; c < cols; c += 4 * BLOCK) {
      const maxima = fourMaxima(x);
      most = i32x4.max_s(most, maxima);
      if (v128.any_true(i32x4.ge_s(maxima, i32x4.splat(EXPONENT)))) {
        for (let i = 0; i < 4; i++) {
          const at = pack ? scratch + <usize>i * BLOCK : out + <usize>i * BLOCK;
          encodeBlock<u16>(x + <usize>i * (2 * BLOCK), BLOCK, blockMax<u16>(x + <usize>i * (2 * BLOCK), BLOCK), at, scales + i);
        }
        if (pack) packRow(scratch, 4 * BLOCK, out, 2 * BLOCK);
      } else {
        const code = fourCodes(maxima);
        const narrow = i16x8.narrow_i32x4_s(code, code);
        v128.store32_lane(scales, i8x16.narrow_i16x8_u(narrow, narrow), 0);
        const unit = f32x4.div(fourValues(code), f32x4.splat(divisor));
        const a = codes16(x, v128.shuffle<u32>(unit, unit, 0, 0, 0, 0));
        const b = codes16(x + 32, v128.shuffle<u32>(unit, unit, 1, 1, 1, 1));
        const d = codes16(x + 64, v128.shuffle<u32>(unit, unit, 2, 2, 2, 2));
        const e = codes16(x + 96, v128.shuffle<u32>(unit, unit, 3, 3, 3, 3));
        if (pack) {
          v128.store(out, nibbles(a, b));
          v128.store(out, nibbles(d, e), 16);
        } else {
          v128.store(out, a);
          v128.store(out, b, 16);
          v128.store(out, d, 32);
          v128.store(out, e, 48);
        }
      }
      x += FOUR;
      scales += 4;
      out += pack ? 2 * BLOCK : 4 * BLOCK;
    }
  }
  return <u32>max(
    max(i32x4.extract_lane(most, 0), i32x4.extract_lane(most, 1)), max(i32x4.extract_lane(most, 2), i32x4.extract_lane(most, 3)));
}
