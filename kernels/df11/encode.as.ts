// Encoding: exponents four at a time, their codes joined in one look-up. AssemblyScript, not TypeScript.
import { CLOSED, closeWindows, storeLengths } from "./gaps.as";
import { addressesOf, basesOf, OTHER, ranksOf } from "./ranks.as";
import { storeBigEndian64 } from "./big-endian.as";

/** Bits of the length in an entry of one code, and in an entry of four; the code stands above them. */
const CODE_SHIFT: u32 = 6;
const QUAD_SHIFT: u32 = 8;
/** Longest joined code of four that an entry holds. */
const MAX_QUAD_BITS: u32 = 24;
/** Most bits that one step may add to the at most seven pending ones. */
const MAX_ADDED_BITS: u64 = 57;
/** Length in the entry of a quad that is taken code by code: too long for any step, and three of it fit the bits of a length. */
const NO_ENTRY: u32 = 63;
/** Elements looked at ahead of their encoding, a multiple of 12 and 16: both passes stay in the first-level cache. */
const AHEAD: i32 = 4080;
/** A place in the stream is a bit's address, 35 bits; above it the quads done in this piece count. */
const QUAD: u64 = 1 << 35;
/** Where a call keeps its place, in the encoder's state. */
const PLACE: usize = 24;
/** Scratch memory: addresses of entries, with a vector's overrun; code lengths by rank; a slot for every window that a piece can have. */
const LENGTHS: usize = AHEAD + 80;
const SLOTS: usize = LENGTHS + 64;

/**
 * Codes of four exponents at once, to `quads`: 2^16 u32 by ranks, bits << 8 | length.
 *
 * `codes`: 256 u64 by exponent, code bits << 6 | length (a length of 1 to 32; 0 = does not occur). `scratch`: 2 KiB.
 */
export function buildQuads(codes: usize, base: u32, quads: usize, scratch: usize): void {
  // First two ranks each: bits << 8 | length; one that does not fit has a length alone.
  for (let index: u32 = 0; index < 256; index++) {
    const a = codeOfRank(codes, base, index & 15);
    const b = codeOfRank(codes, base, index >> 4);
    const length = (a & 63) + (b & 63);
    store<u32>(scratch + (index << 2), <u32>(length > MAX_QUAD_BITS ? NO_ENTRY : ((((a >> QUAD_SHIFT) << b) | (b >> QUAD_SHIFT)) << QUAD_SHIFT) | length));
  }
  const lengthMask = i32x4.splat(255);
  const bitsMask = i32x4.splat(-256);
  for (let second: u32 = 0; second < 256; second++) {
    const b = load<u32>(scratch + (second << 2));
    const length = b & 255;
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

// Code of a rank as bits << 8 | length; NO_ENTRY for what has none, or a longer one than an entry holds.
// @ts-ignore: decorator
@inline
function codeOfRank(codes: usize, base: u32, rank: u32): u64 {
  const entry = load<u64>(codes + (((base + rank) & 0xff) << 3));
  const length = entry & 63;
  return rank == OTHER || length == 0 || length > MAX_QUAD_BITS ? NO_ENTRY : ((entry >> CODE_SHIFT) << QUAD_SHIFT) | length;
}

/** Sign-and-mantissa bytes of `count` patterns at `x` to `rest`, and where the entries of their quads lie to `cells`, u32 a quad; whole vectors of 16. */
function splitRanks(x: usize, count: i32, bases: v128, quads: usize, rest: usize, cells: usize): void {
  const sign = i16x8.splat(0x80);
  const mantissa = i16x8.splat(0x7f);
  const table = i32x4.splat(<i32>quads);
  for (let i = 0; i < count; i += 16) {
    const a = v128.load(x);
    const b = v128.load(x, 16);
    const low = v128.or(v128.and(i16x8.shr_u(a, 8), sign), v128.and(a, mantissa));
    const high = v128.or(v128.and(i16x8.shr_u(b, 8), sign), v128.and(b, mantissa));
    v128.store(rest, i8x16.narrow_i16x8_u(low, high));
    v128.store(cells, addressesOf(ranksOf(a, bases), ranksOf(b, bases), table));
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
  const bases = basesOf(base);
  storeLengths(codes, base, scratch + LENGTHS);
  const pending = load<u64>(state);
  const held = <u64>load<u32>(state, 8);
  // Of window `w`, counted from address 0, the unit's number is w + shift.
  const before = load<u32>(state, 12);
  const shift = before - <u32>(stream >> 3);
  const end = (stream >> 3) + <usize>(before < limit ? limit - before : 0);
  // Two shifts: one by 64 would be one by 0.
  storeBigEndian64(stream, (pending << 1) << (63 - held));
  store<u64>(state, ((<u64>stream) << 3) + held, PLACE);
  while (count > 0) {
    const piece = min<i32>(count, AHEAD);
    const first = <usize>(load<u64>(state, PLACE) >> 6);
    splitRanks(x, piece, bases, quads, rest, scratch);
    encodeQuads(x, piece, codes, scratch, scratch + SLOTS, gaps, positions, state, shift, limit);
    const place = load<u64>(state, PLACE) & (QUAD - 1);
    store<u64>(state, place, PLACE);
    const last = min<usize>(<usize>(place >> 6), end);
    closeWindows(x, bases, scratch + LENGTHS, scratch + SLOTS, first, last, gaps, positions, load<u32>(state, 16), shift);
    store<u32>(state, load<u32>(state, 16) + piece, 16);
    x += <usize>piece << 1;
    rest += piece;
    count -= piece;
  }
  const place = load<u64>(state, PLACE);
  const written = <u32>(place >> 6) - <u32>(stream >> 3);
  store<u32>(state, <u32>place & 63, 8);
  store<u32>(state, before + written, 12);
  return written;
}

/**
 * Codes of a piece to the stream, three quads at a time, without a branch that depends on their lengths: the bytes that hold pending bits are stored
 * whenever some are added, and each step writes its place to the slot of the window in which it starts. The last one to do so is the one that
 * completes the window.
 */
function encodeQuads(
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
  const last = cells + (<usize>(count >> 2) << 2);
  for (;;) {
    while (cell + 8 < last) {
      const a = <u64>load<u32>(<usize>load<u32>(cell));
      const b = <u64>load<u32>(<usize>load<u32>(cell, 4));
      const c = <u64>load<u32>(<usize>load<u32>(cell, 8));
      const total = (a + b + c) & 255;
      if (total > MAX_ADDED_BITS) break;
      const joined = (((a >> QUAD_SHIFT) << b) | (b >> QUAD_SHIFT)) << c;
      pending = (pending << total) | joined | (c >> QUAD_SHIFT);
      const byte = <usize>(place >> 3);
      store<u64>((byte & ~7) + toSlot, place);
      const next = place + (total + 3 * QUAD);
      storeBigEndian64(byte, pending << ((place & ~7) - next));
      place = next;
      cell += 12;
    }
    if (cell < last) {
      const a = <u64>load<u32>(<usize>load<u32>(cell));
      const total = a & 63;
      if (total != NO_ENTRY) {
        pending = (pending << total) | (a >> QUAD_SHIFT);
        const byte = <usize>(place >> 3);
        store<u64>((byte & ~7) + toSlot, place);
        const next = place + (total + QUAD);
        storeBigEndian64(byte, pending << ((place & ~7) - next));
        place = next;
        cell += 4;
        continue;
      }
    }
    const left = cell < last ? 4 : count & 3;
    if (left != 0) {
      store<u64>(state, pending);
      store<u64>(state, place, PLACE);
      const done = cell - cells;
      encodeSingles(x + (done << 1), left, codes, toSlot, gaps, positions, state, shift, limit, <u32>done);
      pending = load<u64>(state);
      place = load<u64>(state, PLACE) + QUAD;
    }
    if (cell >= last) break;
    cell += 4;
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
      const window = min<u32>(<u32>(byte >> 3) + shift + 1, limit);
      store<u8>(gaps + window, <u8>next & 63);
      if ((window & 511) == 0) store<u32>(positions + ((window >> 9) << 2), done + i + 1);
    }
    place = next;
  }
  store<u64>(state, pending);
  store<u64>(state, place, PLACE);
}
