// Decoding. AssemblyScript, not TypeScript.
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