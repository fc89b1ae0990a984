// WASM SIMD twin of formats/encodings/dfloat11. AssemblyScript, not TypeScript.
// The loader pads every region, so reads and writes up to 64 bytes past an end are harmless.

/** Ranks of exponents: base, base + 1, …; the last one stands for every other exponent. */
const OTHER: u32 = 15;

/**
 * Ranks of the exponents of 16 patterns at `x`, four bits each, the first element of a quad lowest: four indexes of 16 bits.
 */
// @ts-ignore: decorator
@inline
function rankQuads(x: usize, base: v128): v128 {
  const low = v128.and(i16x8.shr_u(v128.load(x), 7), i16x8.splat(0xff));
  const high = v128.and(i16x8.shr_u(v128.load(x, 16), 7), i16x8.splat(0xff));
  const ranks = i8x16.min_u(i8x16.sub(i8x16.narrow_i16x8_u(low, high), base), i8x16.splat(<i8>OTHER));
  const pairs = v128.and(v128.or(ranks, i16x8.shr_u(ranks, 4)), i16x8.splat(0xff));
  return i8x16.narrow_i16x8_u(pairs, pairs);
}

// @ts-ignore: decorator
@inline
function countOne(x: usize, single: usize): void {
  const at = single + ((((<usize>load<u16>(x)) >> 7) & 0xff) << 2);
  store<u32>(at, load<u32>(at) + 1);
}

// @ts-ignore: decorator
@inline
function countQuad(quads: usize, index: usize): void {
  const at = quads + ((index & 0xffff) << 2);
  store<u32>(at, load<u32>(at) + 1);
}

/** Adds the exponents of `count` bf16 patterns at `x` to `single`, 256 u32. */
export function countExponents(x: usize, count: i32, single: usize): void {
  const end = x + (<usize>count << 1);
  for (; x < end; x += 2) countOne(x, single);
}

/**
 * The same, four at once: quads of ranks count in `quads`, 2^16 u32; in `single` only what has no rank and what is left of 16.
 * `foldQuads` adds them up.
 */
export function countQuads(x: usize, count: i32, base: u32, quads: usize, single: usize): void {
  const bases = i8x16.splat(<i8>base);
  const end = x + ((<usize>count >> 4) << 5);
  for (; x < end; x += 32) {
    const four = i64x2.extract_lane(rankQuads(x, bases), 0);
    countQuad(quads, <usize>four);
    countQuad(quads, <usize>(four >> 16));
    countQuad(quads, <usize>(four >> 32));
    countQuad(quads, <usize>(four >> 48));
    // A nibble of four ones is an exponent without a rank.
    const others = four & (four >> 1) & (four >> 2) & (four >> 3) & 0x1111111111111111;
    if (others == 0) continue;
    for (let i = 0; i < 16; i++) if ((others >> (i << 2)) & 1) countOne(x + (i << 1), single);
  }
  countExponents(x, count & 15, single);
}

/** Adds what `countQuads` has counted to `single`. */
export function foldQuads(base: u32, quads: usize, single: usize): void {
  for (let index: u32 = 0; index < 0x10000; index++) {
    const found = load<u32>(quads + (index << 2));
    if (found == 0) continue;
    for (let shift: u32 = 0; shift < 16; shift += 4) {
      const rank = (index >> shift) & 15;
      if (rank == OTHER) continue;
      const at = single + (((base + rank) & 0xff) << 2);
      store<u32>(at, load<u32>(at) + found);
    }
  }
}

/** Patterns from `count` exponents at `e` and sign-and-mantissa bytes at `sm`, to `out`; u16 stores, whole vectors of 16. */
export function mergePatterns(e: usize, sm: usize, count: i32, out: usize): void {
  const sign = i16x8.splat(0x80);
  const mantissa = i16x8.splat(0x7f);
  for (let i = 0; i < count; i += 16) {
    const exponents = v128.load(e);
    const rest = v128.load(sm);
    const e0 = i16x8.shl(i16x8.extend_low_i8x16_u(exponents), 7);
    const e1 = i16x8.shl(i16x8.extend_high_i8x16_u(exponents), 7);
    const s0 = i16x8.extend_low_i8x16_u(rest);
    const s1 = i16x8.extend_high_i8x16_u(rest);
    v128.store(out, v128.or(e0, v128.or(i16x8.shl(v128.and(s0, sign), 8), v128.and(s0, mantissa))));
    v128.store(out, v128.or(e1, v128.or(i16x8.shl(v128.and(s1, sign), 8), v128.and(s1, mantissa))), 16);
    e += 16;
    sm += 16;
    out += 32;
  }
}

// @ts-ignore: decorator
@inline
function storeBigEndian32(at: usize, value: u32): void {
  store<u32>(at, (rotl<u32>(value, 8) & 0x00ff00ff) | (rotr<u32>(value, 8) & 0xff00ff00));
}

/** Bits of the length in an entry of one code, and in an entry of four; the code stands above them. */
const CODE_SHIFT: u32 = 6;
const QUAD_SHIFT: u32 = 7;
/** Longest joined code of four that an entry holds. */
const MAX_QUAD_BITS: u32 = 25;
/** Length in the entry of a quad that is taken code by code: more than any window has room for. */
const NO_ENTRY: u32 = 127;
/** Quads looked at ahead of their encoding: both passes stay in the first-level cache. */
const AHEAD: i32 = 1024;

/**
 * Codes of four exponents at once, to `quads`: 2^16 u32 by ranks, bits << 7 | length.
 *
 * `codes`: 256 u64 by exponent, code bits << 6 | length (a length of 1 to 32; 0 = does not occur). `scratch`: 2 KiB.
 */
export function buildQuads(codes: usize, base: u32, quads: usize, scratch: usize): void {
  // First two ranks each: bits << 7 | length, u64.
  for (let index: u32 = 0; index < 256; index++) {
    const a = codeOfRank(codes, base, index & 15);
    const b = codeOfRank(codes, base, index >> 4);
    const length = min<u64>((a & 127) + (b & 127), NO_ENTRY);
    store<u64>(scratch + (index << 3), length == NO_ENTRY ? length : ((((a >> QUAD_SHIFT) << (b & 127)) | (b >> QUAD_SHIFT)) << QUAD_SHIFT) | length);
  }
  for (let second: u32 = 0; second < 256; second++) {
    const b = load<u64>(scratch + (second << 3));
    const bits = b >> QUAD_SHIFT;
    const length = b & 127;
    for (let first: u32 = 0; first < 256; first++) {
      const a = load<u64>(scratch + (first << 3));
      const total = (a & 127) + length;
      const joined = ((a >> QUAD_SHIFT) << length) | bits;
      store<u32>(quads, total > MAX_QUAD_BITS ? NO_ENTRY : <u32>(joined << QUAD_SHIFT) | <u32>total);
      quads += 4;
    }
  }
}

// Code of a rank as bits << 7 | length; NO_ENTRY for what has none, or one too long for two of them to meet in 64 bits.
// @ts-ignore: decorator
@inline
function codeOfRank(codes: usize, base: u32, rank: u32): u64 {
  const entry = load<u64>(codes + (((base + rank) & 0xff) << 3));
  const length = entry & 63;
  return rank == OTHER || length == 0 || length > MAX_QUAD_BITS ? NO_ENTRY : ((entry >> CODE_SHIFT) << QUAD_SHIFT) | length;
}

// Big-endian store of 64 bits.
// @ts-ignore: decorator
@inline
function storeBigEndian64(at: usize, value: u64): void {
  v128.store64_lane(at, v128.swizzle(i64x2.splat(value), i8x16(7, 6, 5, 4, 3, 2, 1, 0, 8, 8, 8, 8, 8, 8, 8, 8)), 0);
}

// Length of the code of the pattern at `x`.
// @ts-ignore: decorator
@inline
function lengthAt(x: usize, codes: usize): i32 {
  return <i32>load<u8>(codes + (((<usize>load<u16>(x)) >> 4) & 0x7f8)) & 63;
}

/** Sign-and-mantissa bytes of `count` patterns at `x` to `rest`, and the ranks of their exponents to `indexes`, u16 a quad; whole vectors of 16. */
function splitRanks(x: usize, count: i32, base: v128, rest: usize, indexes: usize): void {
  const sign = i16x8.splat(0x80);
  const mantissa = i16x8.splat(0x7f);
  for (let i = 0; i < count; i += 16) {
    const a = v128.load(x);
    const b = v128.load(x, 16);
    const low = v128.or(v128.and(i16x8.shr_u(a, 8), sign), v128.and(a, mantissa));
    const high = v128.or(v128.and(i16x8.shr_u(b, 8), sign), v128.and(b, mantissa));
    v128.store(rest, i8x16.narrow_i16x8_u(low, high));
    v128.store64_lane(indexes, rankQuads(x, base), 0);
    x += 32;
    rest += 16;
    indexes += 8;
  }
}

/**
 * Encodes `count` patterns at `x`: the exponents to `stream`, the sign-and-mantissa bytes to `rest`.
 *
 * Encoder state between calls, at `state`: u64 pending (low `held` bits), u32 held (< 64), u32 windows written, u32 elements done.
 * A unit is encoded in pieces: one call a tensor or a piece of one.
 *
 * `codes`, `base` and `quads` as above; `scratch`: 2 KiB and 64 bytes. `stream`: where the next window of 64 bits goes; `gaps`: one byte a window
 * of the whole unit; `positions`: u32 a block (512 windows) of the whole unit; neither is written behind window `limit`.
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
  const first = load<u32>(state, 12);
  while (count > 0) {
    const piece = min<i32>(count, 4 * AHEAD);
    splitRanks(x, piece, bases, rest, scratch);
    stream = encodeExponents(x, piece, codes, quads, scratch, stream, gaps, positions, state, limit);
    x += <usize>piece << 1;
    rest += piece;
    count -= piece;
  }
  return load<u32>(state, 12) - first;
}

// Patterns whose ranks lie at `indexes`. Returns where the next window goes.
function encodeExponents(
  x: usize,
  count: i32,
  codes: usize,
  quads: usize,
  indexes: usize,
  stream: usize,
  gaps: usize,
  positions: usize,
  state: usize,
  limit: u32,
): usize {
  let pending = load<u64>(state);
  let held: u64 = load<u32>(state, 8);
  let window = load<u32>(state, 12);
  const done = load<u32>(state, 16);
  const end = x + (<usize>count << 1);
  const lastQuad = indexes + (((<usize>count + 3) >> 2) << 1);
  // What is left of four is no quad.
  if ((count & 3) != 0) store<u16>(lastQuad - 2, 0xffff);
  // Address of the pattern that belongs to `indexes`, less twice that.
  const origin = x - (indexes << 2);
  let at = x;
  while (indexes < lastQuad) {
    const entry = load<u32>(quads + (<usize>load<u16>(indexes) << 2));
    const total = <u64>entry & 127;
    if (held + total < 64) {
      // The bits above `held` are old ones; they leave with the shift that completes a window.
      pending = (pending << total) | (entry >> QUAD_SHIFT);
      held += total;
      indexes += 2;
      continue;
    }
    at = origin + (indexes << 2);
    indexes += 2;
    if (total != NO_ENTRY) {
      // A quad that completes a window: the first of its codes that ends at or behind the window's end is in front of the next window's first code.
      const c0 = <i32>held - 64 + lengthAt(at, codes);
      const c1 = c0 + lengthAt(at + 2, codes);
      const c2 = c1 + lengthAt(at + 4, codes);
      const over = held + total - 64;
      const joined = <u64>(entry >> QUAD_SHIFT);
      // Two shifts: a shift by 64 would be one by 0.
      storeBigEndian64(stream, ((pending << 1) << (63 - held)) | (joined >> over));
      stream += 8;
      window++;
      pending = joined;
      held = over;
      store<u8>(gaps + min<u32>(window, limit), <u8>(c0 >= 0 ? c0 : c1 >= 0 ? c1 : c2 >= 0 ? c2 : <i32>over));
      if ((window & 511) == 0)
        store<u32>(positions + ((min<u32>(window, limit) >> 9) << 2), done + (<u32>(at - x) >> 1) + 1 + <u32>(c0 < 0) + <u32>(c1 < 0) + <u32>(c2 < 0));
      continue;
    }
    for (const stop = min<usize>(at + 8, end); at < stop; at += 2) {
      const single = load<u64>(codes + (((<usize>load<u16>(at)) >> 4) & 0x7f8));
      const length = single & 63;
      const code = single >> CODE_SHIFT;
      if (held + length < 64) {
        pending = (pending << length) | code;
        held += length;
        continue;
      }
      const over = held + length - 64;
      storeBigEndian64(stream, ((pending << 1) << (63 - held)) | (code >> over));
      stream += 8;
      window++;
      pending = code;
      held = over;
      store<u8>(gaps + min<u32>(window, limit), <u8>over);
      if ((window & 511) == 0) store<u32>(positions + ((min<u32>(window, limit) >> 9) << 2), done + (<u32>(at - x) >> 1) + 1);
    }
  }
  store<u64>(state, pending);
  store<u32>(state, <u32>held, 8);
  store<u32>(state, window, 12);
  store<u32>(state, done + count, 16);
  return stream;
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

/** Bits of a code that one look-up sees: 16 KiB of table, half of a small first-level cache. */
const WINDOW: i32 = 11;
/** Look-ups a refill: 55 of the 57 bits that are there. */
const LOOK_UPS: i32 = 5;
/** Bits and symbols of a refill, at most. */
const ROUND_BITS: i32 = WINDOW * LOOK_UPS;
const ROUND_SYMBOLS: i32 = 4 * LOOK_UPS;
/** Set in a table entry whose first code is longer than the window. */
const LONG: u64 = 0x80 << 32;

// 57 bits of the stream and more from bit `at`, the first one highest.
// @ts-ignore: decorator
@inline
function loadBits(stream: usize, at: u32): u64 {
  const reversed = v128.swizzle(v128.load64_zero(stream + (at >> 3)), i8x16(7, 6, 5, 4, 3, 2, 1, 0, 8, 8, 8, 8, 8, 8, 8, 8));
  return (<u64>i64x2.extract_lane(reversed, 0)) << (at & 7);
}

// The same with a one below the bits that are used: how far it has moved tells how many have been.
// @ts-ignore: decorator
@inline
function loadMarked(stream: usize, at: u32): u64 {
  return loadBits(stream, at) | 1;
}

// @ts-ignore: decorator
@inline
function lookUp(table: usize, bits: u64): u64 {
  return load<u64>(table + <usize>((bits >> (61 - WINDOW)) & (((1 << WINDOW) - 1) << 3)));
}

/**
 * One code by the rows, for codes longer than the window and for tails. `at` must lie in the stream; bytes after it are zero or padding.
 * @returns exponent | length << 8; a length of 0 means that the rows do not resolve.
 */
// @ts-ignore: decorator
@inline
function decodeSlow(bits: u64, luts: usize, rows: i32): u32 {
  let value: u32 = load<u8>(luts + <usize>(bits >> 56));
  let shift: u64 = 48;
  while (value >= 240) {
    const row = 256 - value;
    if (<i32>row >= rows || shift < 32) return 0;
    value = load<u8>(luts + (row << 8) + <usize>((bits >> shift) & 0xff));
    shift -= 8;
  }
  return value | (<u32>load<u8>(luts + (rows << 8) + value) << 8);
}

/**
 * Builds the fast table at `table`: 2^11 u64. Entry: four exponents (bytes 0–3), total bits (byte 4), how many exponents count (byte 5).
 * An entry whose first code is longer than the window is LONG, with no bits and no exponents.
 */
export function buildTable(luts: usize, rows: i32, table: usize): void {
  for (let index: u64 = 0; index < 1 << WINDOW; index++) {
    let bits: u64 = index << (64 - WINDOW);
    let left: u32 = WINDOW;
    let symbols: u64 = 0;
    let count: u64 = 0;
    while (count < 4) {
      const found = decodeSlow(bits, luts, rows);
      const length = found >> 8;
      if (length == 0 || length > left) break;
      // The end symbol's slots repeat a neighbour, so a code may seem to fit bits that are not there yet: both extremes must agree.
      if (decodeSlow(bits | (~(<u64>0) >> <u64>left), luts, rows) != found) break;
      symbols |= (<u64>(found & 0xff)) << (count << 3);
      bits <<= <u64>length;
      left -= length;
      count++;
    }
    store<u64>(table + <usize>(index << 3), (count == 0 ? LONG : <u64>(WINDOW - left) << 32) | symbols | (count << 40));
  }
}

/**
 * Decodes the exponents of one block, from bit `at` of the stream, `count` of them, to `out` (which may be written 24 bytes past its end).
 *
 * Never reads past `endBit` + 64 bits: the caller pads the stream.
 * @returns the bit after the last code, or -1 when a code does not resolve or the block runs past `endBit`.
 */
export function decodeBlock(stream: usize, at: i32, endBit: i32, luts: usize, rows: i32, table: usize, out: usize, count: i32): i32 {
  const end = out + count;
  while (out + ROUND_SYMBOLS <= end) {
    if (at >= endBit) return -1;
    let bits = loadMarked(stream, at);
    let entry: u64 = 0;
    for (let k = 0; k < LOOK_UPS; k++) {
      entry = lookUp(table, bits);
      store<u32>(out, <u32>entry);
      out += <usize>(entry >> 40);
      bits <<= entry >> 32;
    }
    at += <i32>ctz(bits);
    if ((entry & LONG) == 0) continue;
    if (at >= endBit) return -1;
    const found = decodeSlow(loadBits(stream, at), luts, rows);
    if (found >> 8 == 0) return -1;
    if (out >= end) break;
    store<u8>(out, <u8>found);
    out++;
    at += found >> 8;
  }
  while (out < end) {
    if (at >= endBit) return -1;
    const found = decodeSlow(loadBits(stream, at), luts, rows);
    if (found >> 8 == 0) return -1;
    store<u8>(out, <u8>found);
    out++;
    at += found >> 8;
  }
  return at;
}

// Rounds that a block can take whatever its bits are: it has the room and the stream for them.
// @ts-ignore: decorator
@inline
function roundsFor(at: i32, stop: i32, out: usize, end: usize): i32 {
  const room = <i32>(end - out) / ROUND_SYMBOLS;
  const bits = (stop - at) / ROUND_BITS;
  return room < bits ? room : bits;
}

/**
 * The same for four blocks at once, whose chains of look-ups overlap. `jobs`: four records of i32 at, i32 endBit, i32 out, i32 count; `at` is
 * replaced by the bit after the last code or -1. Look-ups are written out: a loop of five would keep fewer of these values in registers.
 */
export function decodeFour(stream: usize, luts: usize, rows: i32, table: usize, jobs: usize): void {
  let atA = load<i32>(jobs, 0), atB = load<i32>(jobs, 16), atC = load<i32>(jobs, 32), atD = load<i32>(jobs, 48);
  const stopA = load<i32>(jobs, 4), stopB = load<i32>(jobs, 20), stopC = load<i32>(jobs, 36), stopD = load<i32>(jobs, 52);
  let outA = load<u32>(jobs, 8), outB = load<u32>(jobs, 24), outC = load<u32>(jobs, 40), outD = load<u32>(jobs, 56);
  const endA = outA + load<u32>(jobs, 12), endB = outB + load<u32>(jobs, 28), endC = outC + load<u32>(jobs, 44), endD = outD + load<u32>(jobs, 60);
  for (;;) {
    let rounds = roundsFor(atA, stopA, outA, endA);
    rounds = min<i32>(rounds, roundsFor(atB, stopB, outB, endB));
    rounds = min<i32>(rounds, roundsFor(atC, stopC, outC, endC));
    rounds = min<i32>(rounds, roundsFor(atD, stopD, outD, endD));
    if (rounds <= 0) break;
    let long: u64 = 0;
    do {
      let bitsA = loadMarked(stream, atA);
      let bitsB = loadMarked(stream, atB);
      let bitsC = loadMarked(stream, atC);
      let bitsD = loadMarked(stream, atD);
      let a = lookUp(table, bitsA);
      store<u32>(outA, <u32>a);
      outA += <u32>(a >> 40);
      bitsA <<= a >> 32;
      let b = lookUp(table, bitsB);
      store<u32>(outB, <u32>b);
      outB += <u32>(b >> 40);
      bitsB <<= b >> 32;
      let c = lookUp(table, bitsC);
      store<u32>(outC, <u32>c);
      outC += <u32>(c >> 40);
      bitsC <<= c >> 32;
      let d = lookUp(table, bitsD);
      store<u32>(outD, <u32>d);
      outD += <u32>(d >> 40);
      bitsD <<= d >> 32;

      a = lookUp(table, bitsA);
      store<u32>(outA, <u32>a);
      outA += <u32>(a >> 40);
      bitsA <<= a >> 32;
      b = lookUp(table, bitsB);
      store<u32>(outB, <u32>b);
      outB += <u32>(b >> 40);
      bitsB <<= b >> 32;
      c = lookUp(table, bitsC);
      store<u32>(outC, <u32>c);
      outC += <u32>(c >> 40);
      bitsC <<= c >> 32;
      d = lookUp(table, bitsD);
      store<u32>(outD, <u32>d);
      outD += <u32>(d >> 40);
      bitsD <<= d >> 32;

      a = lookUp(table, bitsA);
      store<u32>(outA, <u32>a);
      outA += <u32>(a >> 40);
      bitsA <<= a >> 32;
      b = lookUp(table, bitsB);
      store<u32>(outB, <u32>b);
      outB += <u32>(b >> 40);
      bitsB <<= b >> 32;
      c = lookUp(table, bitsC);
      store<u32>(outC, <u32>c);
      outC += <u32>(c >> 40);
      bitsC <<= c >> 32;
      d = lookUp(table, bitsD);
      store<u32>(outD, <u32>d);
      outD += <u32>(d >> 40);
      bitsD <<= d >> 32;

      a = lookUp(table, bitsA);
      store<u32>(outA, <u32>a);
      outA += <u32>(a >> 40);
      bitsA <<= a >> 32;
      b = lookUp(table, bitsB);
      store<u32>(outB, <u32>b);
      outB += <u32>(b >> 40);
      bitsB <<= b >> 32;
      c = lookUp(table, bitsC);
      store<u32>(outC, <u32>c);
      outC += <u32>(c >> 40);
      bitsC <<= c >> 32;
      d = lookUp(table, bitsD);
      store<u32>(outD, <u32>d);
      outD += <u32>(d >> 40);
      bitsD <<= d >> 32;

      a = lookUp(table, bitsA);
      store<u32>(outA, <u32>a);
      outA += <u32>(a >> 40);
      bitsA <<= a >> 32;
      b = lookUp(table, bitsB);
      store<u32>(outB, <u32>b);
      outB += <u32>(b >> 40);
      bitsB <<= b >> 32;
      c = lookUp(table, bitsC);
      store<u32>(outC, <u32>c);
      outC += <u32>(c >> 40);
      bitsC <<= c >> 32;
      d = lookUp(table, bitsD);
      store<u32>(outD, <u32>d);
      outD += <u32>(d >> 40);
      bitsD <<= d >> 32;

      long = a | b | c | d;
      atA += <i32>ctz(bitsA);
      atB += <i32>ctz(bitsB);
      atC += <i32>ctz(bitsC);
      atD += <i32>ctz(bitsD);
    } while ((long & LONG) == 0 && --rounds > 0);
    if ((long & LONG) == 0) continue;
    // A long code at the head of a stream: all four take one by the rows.
    if (outA >= endA || outB >= endB || outC >= endC || outD >= endD || atA >= stopA || atB >= stopB || atC >= stopC || atD >= stopD) break;
    const slowA = decodeSlow(loadBits(stream, atA), luts, rows);
    const slowB = decodeSlow(loadBits(stream, atB), luts, rows);
    const slowC = decodeSlow(loadBits(stream, atC), luts, rows);
    const slowD = decodeSlow(loadBits(stream, atD), luts, rows);
    if (slowA >> 8 == 0 || slowB >> 8 == 0 || slowC >> 8 == 0 || slowD >> 8 == 0) break;
    store<u8>(outA++, <u8>slowA);
    store<u8>(outB++, <u8>slowB);
    store<u8>(outC++, <u8>slowC);
    store<u8>(outD++, <u8>slowD);
    atA += slowA >> 8;
    atB += slowB >> 8;
    atC += slowC >> 8;
    atD += slowD >> 8;
  }
  store<i32>(jobs, decodeBlock(stream, atA, stopA, luts, rows, table, outA, endA - outA), 0);
  store<i32>(jobs, decodeBlock(stream, atB, stopB, luts, rows, table, outB, endB - outB), 16);
  store<i32>(jobs, decodeBlock(stream, atC, stopC, luts, rows, table, outC, endC - outC), 32);
  store<i32>(jobs, decodeBlock(stream, atD, stopD, luts, rows, table, outD, endD - outD), 48);
}
