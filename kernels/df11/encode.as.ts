// Encoding: exponents four at a time, their codes joined in one look-up. AssemblyScript, not TypeScript.
import { exponentsOf, OTHER, rankQuads } from "./ranks.as";
import { storeBigEndian32, storeBigEndian64 } from "./shared.as";

/** Bits of the length in an entry of one code, and in an entry of four; the code stands above them. */
const CODE_SHIFT: u32 = 6;
const QUAD_SHIFT: u32 = 7;
/** Longest joined code of four that an entry holds. */
const MAX_QUAD_BITS: u32 = 25;
/** Length in the entry of a quad that is taken code by code: more than two others have together, and the length bits hold two of it. */
const NO_ENTRY: u32 = 63;
/** Elements looked at ahead of their encoding, in eights: both passes stay in the first-level cache. */
const AHEAD: i32 = 4096;
/** A place in the stream is a bit's address, 35 bits; above it the pairs of quads done in this piece count. */
const PAIR: u64 = 1 << 35;
/** Where a call keeps its place, in the encoder's state. */
const PLACE: usize = 24;
/** In a slot: the window's end has been seen to. */
const CLOSED: u64 = 0;
/** Bytes of the cells of a piece, with a vector's overrun. */
const CELL_BYTES: usize = 4096 + 64;
const EACH_BYTE: u64 = 0x0101010101010101;

/**
 * Codes of four exponents at once, to `quads`: 2^16 u32 by ranks, bits << 7 | length.
 *
 * `codes`: 256 u64 by exponent, code bits << 6 | length (a length of 1 to 32; 0 = does not occur). `scratch`: 2 KiB.
 */
export function buildQuads(codes: usize, base: u32, quads: usize, scratch: usize): void {
  // First two ranks each: bits << 7 | length; one that does not fit has a length alone.
  for (let index: u32 = 0; index < 256; index++) {
    const a = codeOfRank(codes, base, index & 15);
    const b = codeOfRank(codes, base, index >> 4);
    const length = (a & 63) + (b & 63);
    store<u32>(scratch + (index << 2), <u32>(length > MAX_QUAD_BITS ? NO_ENTRY : ((((a >> QUAD_SHIFT) << b) | (b >> QUAD_SHIFT)) << QUAD_SHIFT) | length));
  }
  const lengthMask = i32x4.splat(127);
  const bitsMask = i32x4.splat(-128);
  for (let second: u32 = 0; second < 256; second++) {
    const b = load<u32>(scratch + (second << 2));
    const length = b & 127;
    const entry = i32x4.splat(b);
    for (let first: u32 = 0; first < 1024; first += 16) {
      const a = v128.load(scratch + first);
      const total = v128.and(i32x4.add(a, entry), lengthMask);
      const joined = v128.or(i32x4.shl(v128.and(a, bitsMask), length), v128.and(entry, bitsMask));
      const fits = i32x4.le_s(total, i32x4.splat(MAX_QUAD_BITS));
      v128.store(quads, v128.bitselect(v128.or(joined, total), i32x4.splat(NO_ENTRY), fits));
      quads += 16;
    }
  }
}

// Code of a rank as bits << 7 | length; NO_ENTRY for what has none, or a longer one than an entry holds.
// @ts-ignore: decorator
@inline
function codeOfRank(codes: usize, base: u32, rank: u32): u64 {
  const entry = load<u64>(codes + (((base + rank) & 0xff) << 3));
  const length = entry & 63;
  return rank == OTHER || length == 0 || length > MAX_QUAD_BITS ? NO_ENTRY : ((entry >> CODE_SHIFT) << QUAD_SHIFT) | length;
}

/** Sign-and-mantissa bytes of `count` patterns at `x` to `rest`, and where the entries of their quads lie to `cells`, u32 a quad; whole vectors of 16. */
function splitRanks(x: usize, count: i32, base: v128, quads: usize, rest: usize, cells: usize): void {
  const sign = i16x8.splat(0x80);
  const mantissa = i16x8.splat(0x7f);
  const table = i32x4.splat(<i32>quads);
  for (let i = 0; i < count; i += 16) {
    const a = v128.load(x);
    const b = v128.load(x, 16);
    const low = v128.or(v128.and(i16x8.shr_u(a, 8), sign), v128.and(a, mantissa));
    const high = v128.or(v128.and(i16x8.shr_u(b, 8), sign), v128.and(b, mantissa));
    v128.store(rest, i8x16.narrow_i16x8_u(low, high));
    v128.store(cells, i32x4.add(i32x4.shl(i32x4.extend_low_i16x8_u(rankQuads(a, b, base)), 2), table));
    x += 32;
    rest += 16;
    cells += 16;
  }
}

/**
 * Encodes `count` patterns at `x`: the exponents to `stream`, the sign-and-mantissa bytes to `rest`.
 *
 * Encoder state between calls, at `state`: u64 pending (low `held` bits), u32 held (< 64), u32 windows written, u32 elements done; 16 bytes behind
 * them serve one call. A unit is encoded in pieces: one call a tensor or a piece of one.
 *
 * `codes`, `base` and `quads` as above; `scratch`: 24 KiB. `stream`: where the next window of 64 bits goes, a multiple of 8; `gaps`: one byte a
 * window of the whole unit; `positions`: u32 a block (512 windows) of the whole unit; neither is written behind window `limit`.
 *
 * @returns windows written by this call.
 */
export function encodeStrip(
  x: usize,
  count: i32,
  codes: usize,
  base: u32,
  quads: usize,
  scratch: usize,
  stream: usize,
  rest: usize,
  gaps: usize,
  positions: usize,
  state: usize,
  limit: u32,
): i32 {
  const bases = i8x16.splat(<i8>base);
  const lengths = lengthsOf(codes, base);
  const cells = scratch;
  const slots = scratch + CELL_BYTES;
  const pending = load<u64>(state);
  const held = <u64>load<u32>(state, 8);
  // Of window `w`, counted from address 0, the unit's number is w + shift.
  const shift = load<u32>(state, 12) - (stream >> 3);
  // Two shifts: one by 64 would be one by 0.
  storeBigEndian64(stream, (pending << 1) << (63 - held));
  store<u64>(state, ((<u64>stream) << 3) + held, PLACE);
  while (count > 0) {
    const piece = min<i32>(count, AHEAD);
    const first = <usize>(load<u64>(state, PLACE) >> 6);
    splitRanks(x, piece, bases, quads, rest, cells);
    encodePairs(x, piece, codes, cells, slots, gaps, positions, state, shift, limit);
    const place = load<u64>(state, PLACE) & (PAIR - 1);
    store<u64>(state, place, PLACE);
    const last = min<usize>(<usize>(place >> 6), limit - shift);
    closeWindows(x, bases, lengths, slots, first, last, gaps, positions, load<u32>(state, 16), shift);
    store<u32>(state, load<u32>(state, 16) + piece, 16);
    x += <usize>piece << 1;
    rest += piece;
    count -= piece;
  }
  const place = load<u64>(state, PLACE);
  const written = <u32>(place >> 6) - (stream >> 3);
  store<u32>(state, <u32>place & 63, 8);
  store<u32>(state, load<u32>(state, 12) + written, 12);
  return written;
}

// Code lengths by rank.
function lengthsOf(codes: usize, base: u32): v128 {
  let low: u64 = 0;
  let high: u64 = 0;
  for (let rank: u32 = 0; rank < 8; rank++) {
    low |= (load<u64>(codes + (((base + rank) & 0xff) << 3)) & 63) << (rank << 3);
    high |= (load<u64>(codes + (((base + rank + 8) & 0xff) << 3)) & 63) << (rank << 3);
  }
  return i64x2.replace_lane(i64x2.splat(low), 1, high);
}

/**
 * Codes of a piece to the stream, without a branch that depends on them: the bytes that hold pending bits are stored whenever some are added, and each
 * pair of quads writes its place to the slot of the window in which it starts. The last one to do so is the one that completes the window.
 */
function encodePairs(
  x: usize,
  count: i32,
  codes: usize,
  cells: usize,
  slots: usize,
  gaps: usize,
  positions: usize,
  state: usize,
  shift: u32,
  limit: u32,
): void {
  let place = load<u64>(state, PLACE);
  let pending = load<u64>(state);
  const toSlot = slots - (<usize>(place >> 3) & ~7);
  let cell = cells;
  const last = cells + (<usize>(count >> 3) << 3);
  for (;;) {
    while (cell < last) {
      const a = <u64>load<u32>(<usize>load<u32>(cell));
      const b = <u64>load<u32>(<usize>load<u32>(cell, 4));
      const total = (a + b) & 127;
      if (total > 2 * MAX_QUAD_BITS) break;
      pending = (pending << total) | ((a >> QUAD_SHIFT) << b) | (b >> QUAD_SHIFT);
      const byte = <usize>(place >> 3);
      store<u64>((byte & ~7) + toSlot, place);
      const next = place + (total + PAIR);
      storeBigEndian64(byte, pending << ((place & ~7) - next));
      place = next;
      cell += 8;
    }
    const left = cell < last ? 8 : count & 7;
    if (left != 0) {
      store<u64>(state, pending);
      store<u64>(state, place, PLACE);
      encodeSingles(x + ((cell - cells) << 1), left, codes, toSlot, gaps, positions, state, shift, limit, <u32>(cell - cells));
      pending = load<u64>(state);
      place = load<u64>(state, PLACE) + PAIR;
    }
    if (cell >= last) break;
    cell += 8;
  }
  store<u64>(state, pending);
  store<u64>(state, place, PLACE);
}

// Code by code; a window that is completed here is closed here, and its slot says so.
function encodeSingles(
  x: usize,
  count: i32,
  codes: usize,
  toSlot: usize,
  gaps: usize,
  positions: usize,
  state: usize,
  shift: u32,
  limit: u32,
  done: u32,
): void {
  let place = load<u64>(state, PLACE);
  let pending = load<u64>(state);
  done += load<u32>(state, 16);
  for (let i = 0; i < count; i++) {
    const single = load<u64>(codes + (((<usize>load<u16>(x)) >> 4) & 0x7f8));
    x += 2;
    const length = single & 63;
    pending = (pending << length) | (single >> CODE_SHIFT);
    const next = place + length;
    const byte = <usize>(place >> 3);
    storeBigEndian64(byte, pending << ((place & ~7) - next));
    if (((place ^ next) & 64) != 0) {
      store<u64>((byte & ~7) + toSlot, CLOSED);
      const window = min<u32>((byte >> 3) + shift + 1, limit);
      store<u8>(gaps + window, <u8>next & 63);
      if ((window & 511) == 0) store<u32>(positions + ((window >> 9) << 2), done + i + 1);
    }
    place = next;
  }
  store<u64>(state, pending);
  store<u64>(state, place, PLACE);
}

/** Gaps and block positions of the windows behind [first, last), from the pairs of quads that complete those; elements of a piece count from `done`. */
function closeWindows(
  x: usize,
  base: v128,
  lengths: v128,
  slots: usize,
  first: usize,
  last: usize,
  gaps: usize,
  positions: usize,
  done: u32,
  shift: u32,
): void {
  for (; first < last; first++) {
    const place = load<u64>(slots);
    slots += 8;
    if (place == CLOSED) continue;
    const pair = <usize>(place >> 35);
    const patterns = v128.load(x + (pair << 4));
    const each = i64x2.extract_lane(v128.swizzle(lengths, i8x16.sub(exponentsOf(patterns, patterns), base)), 0);
    // Byte i: where code i ends, at most 50; then the first one that ends at the window's end or behind it.
    const ends = <u64>each * EACH_BYTE;
    const room = 64 - (place & 63);
    const code = ctz(((ends | (EACH_BYTE << 7)) - room * EACH_BYTE) & (EACH_BYTE << 7)) & 56;
    const window = first + shift + 1;
    store<u8>(gaps + window, <u8>((ends >> code) - room));
    if ((window & 511) == 0) store<u32>(positions + ((window >> 9) << 2), done + ((pair << 3) + (<u32>code >> 3) + 1));
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
