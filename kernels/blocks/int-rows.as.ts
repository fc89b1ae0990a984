// Rows of whole blocks of bf16 to mantissas: straight-line code. AssemblyScript, not TypeScript.
import { encodeBlock } from "./elements.as";
import { packRow } from "./packing.as";
import { high4, low4, max32, nibbles, scaleOfPattern, widest } from "./patterns.as";
import { bits, fraction, topCode } from "./state.as";

/** 16 mantissas of at most 8 bits: adding 1.5 · 2^23 steps rounds to a whole number of them. */
// @ts-ignore: decorator
@inline
function ints16(p: v128, q: v128, magic: v128): v128 {
  return i8x16.narrow_i16x8_s(ints8(p, magic), ints8(q, magic));
}

// @ts-ignore: decorator
@inline
function ints8(p: v128, magic: v128): v128 {
  return i16x8.narrow_i32x4_s(i32x4.sub(f32x4.add(low4(p), magic), magic), i32x4.sub(f32x4.add(high4(p), magic), magic));
}

/** Exponent field of 1.5 · 2^23 steps under a scale of 2^s. */
// @ts-ignore: decorator
@inline
function magicField(s: i32): i32 {
  return s - fraction + 150;
}

/**
 * Whole blocks of 32 bf16 patterns or multiples of it, mantissas of at most 8 bits. A block whose maximum is not a normal number goes
 * the general way, and one whose step is near the end of f32.
 */
export function intRows(
  x: usize, rows: i32, cols: i32, block: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize,
): u32 {
  let most = 0;
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
      const s = scaleOfPattern(pattern);
      const field = magicField(s);
      if (<u32>(pattern - 0x80) >= 0x7f00 || <u32>(field - 1) >= 254) {
        encodeBlock<u16>(x, block, <u32>pattern << 16, direct ? scratch : out, scales++);
        if (direct) packRow(scratch, block, out, block >> 1);
        x += <usize>block << 1;
        out += direct ? block >> 1 : block;
        continue;
      }
      store<u8>(scales++, s + 127);
      const magic = i32x4.splat((field << 23) | 0x400000);
      for (let i = 0; i < block; i += 32) {
        const a = i8x16.max_s(i8x16.min_s(ints16(v128.load(x), v128.load(x, 16), magic), high), low);
        const b = i8x16.max_s(i8x16.min_s(ints16(v128.load(x, 32), v128.load(x, 48), magic), high), low);
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

/** As intRows, for mantissas of 9 to 16 bits, two bytes each. */
export function wideRows(
  x: usize, rows: i32, cols: i32, block: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize,
): u32 {
  let most = 0;
  const mask = i16x8.splat(0x7fff);
  const high = i16x8.splat(<i16>topCode);
  const low = i16x8.splat(<i16>-topCode);
  const direct = !pack || bits == 16;
  for (let r = 0; r < rows; r++) {
    const row = codes + <usize>r * stride;
    let out = direct ? row : scratch;
    for (let c = 0; c < cols; c += block) {
      let m = max32(x, mask);
      for (let i = 32; i < block; i += 32) m = i16x8.max_s(m, max32(x + (<usize>i << 1), mask));
      const pattern = widest(m);
      most = max(most, pattern);
      const s = scaleOfPattern(pattern);
      const field = magicField(s);
      if (<u32>(pattern - 0x80) >= 0x7f00 || <u32>(field - 1) >= 254) {
        encodeBlock<u16>(x, block, <u32>pattern << 16, out, scales++);
        x += <usize>block << 1;
        out += <usize>block << 1;
        continue;
      }
      store<u8>(scales++, s + 127);
      const magic = i32x4.splat((field << 23) | 0x400000);
      for (let i = 0; i < block; i += 32) {
        v128.store(out, i16x8.max_s(i16x8.min_s(ints8(v128.load(x), magic), high), low));
        v128.store(out, i16x8.max_s(i16x8.min_s(ints8(v128.load(x, 16), magic), high), low), 16);
        v128.store(out, i16x8.max_s(i16x8.min_s(ints8(v128.load(x, 32), magic), high), low), 32);
        v128.store(out, i16x8.max_s(i16x8.min_s(ints8(v128.load(x, 48), magic), high), low), 48);
        x += 64;
        out += 64;
      }
    }
    if (!direct) packRow(scratch, cols, row, stride);
  }
  return <u32>most << 16;
}
