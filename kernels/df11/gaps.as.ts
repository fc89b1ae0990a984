// Where the first code of each window starts. AssemblyScript, not TypeScript.
import { storeBigEndian32 } from "./big-endian.as";

/** In a slot: the window's end has been seen to. */
export const CLOSED: u64 = 0;

/** Code lengths by rank to `lengths`, 16 bytes. */
export function storeLengths(codes: usize, base: u32, lengths: usize): void {
  for (let rank: u32 = 0; rank < 16; rank++) store<u8>(lengths + rank, load<u8>(codes + (((base + rank) & 0xff) << 3)) & 63);
}

/**
 * Gaps and block positions of the windows behind [first, last), from the steps that complete those.
 *
 * `slots`: u64 a window, where its last step stands: the bit in the low six bits, from bit 35 on which quad of the patterns at `x` it begins with. A step has at
 * most 16 codes, of 57 bits. `lengths`: as from `storeLengths`; the 16 bytes behind are overwritten. `done`: elements of the unit before `x`; window
 * w of these is the unit's window w + shift.
 */
export function closeWindows(
  x: usize,
  bases: v128,
  lengths: usize,
  slots: usize,
  first: usize,
  last: usize,
  gaps: usize,
  positions: usize,
  done: u32,
  shift: u32,
): void {
  const exponent = i16x8.splat(0x7f80);
  for (; first < last; first++) {
    const place = load<u64>(slots);
    slots += 8;
    if (place == CLOSED) continue;
    const quad = <usize>(place >> 35);
    const patterns = x + (quad << 3);
    const low = i16x8.shr_u(i16x8.sub(v128.and(v128.load(patterns), exponent), bases), 7);
    const high = i16x8.shr_u(i16x8.sub(v128.and(v128.load(patterns, 16), exponent), bases), 7);
    // Byte i: where code i ends, less where the window does; those that end before it are below zero. What follows the step is not looked at.
    let ends = v128.swizzle(v128.load(lengths), i8x16.narrow_i16x8_u(low, high));
    ends = i8x16.add(ends, i64x2.shl(ends, 8));
    ends = i8x16.add(ends, i64x2.shl(ends, 16));
    ends = i8x16.add(ends, i64x2.shl(ends, 32));
    ends = i8x16.add(ends, v128.swizzle(ends, i8x16(-1, -1, -1, -1, -1, -1, -1, -1, 7, 7, 7, 7, 7, 7, 7, 7)));
    ends = i8x16.add(ends, i8x16.splat(<i8>(<u32>place & 63) - 64));
    v128.store(lengths, ends, 16);
    const code = ctz(~i8x16.bitmask(ends));
    const window = <u32>first + shift + 1;
    store<u8>(gaps + window, load<u8>(lengths + code, 16));
    if ((window & 511) == 0) store<u32>(positions + ((window >> 9) << 2), done + <u32>(quad << 2) + code + 1);
  }
}

/** Packs `windows` gap bytes at `gaps` (a multiple of 8) as 5-bit fields, most significant first, to `out`: 5 bytes every 8. */
export function packGaps(gaps: usize, windows: i32, out: usize): void {
  for (let w = 0; w < windows; w += 8) {
    let bits: u64 = 0;
    for (let i = 0; i < 8; i++) bits = (bits << 5) | load<u8>(gaps + i);
    store<u8>(out, <u8>(bits >> 32));
    storeBigEndian32(out + 1, <u32>bits);
    gaps += 8;
    out += 5;
  }
}
