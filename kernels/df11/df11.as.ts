// WASM SIMD twin of formats/encodings/dfloat11. AssemblyScript, not TypeScript.
// The loader pads every region, so reads and writes up to 64 bytes past an end are harmless.

/** Adds the exponents of `count` bf16 patterns at `x` to four tables of 256 u32 at `tables`, so that equal neighbours do not wait for one another. */
export function countExponents(x: usize, count: i32, tables: usize): void {
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const four = load<u64>(x);
    x += 8;
    const a = tables + ((((<usize>four) >> 7) & 0xff) << 2);
    const b = tables + 1024 + (((<usize>(four >> 23)) & 0xff) << 2);
    const c = tables + 2048 + (((<usize>(four >> 39)) & 0xff) << 2);
    const d = tables + 3072 + (((<usize>(four >> 55)) & 0xff) << 2);
    store<u32>(a, load<u32>(a) + 1);
    store<u32>(b, load<u32>(b) + 1);
    store<u32>(c, load<u32>(c) + 1);
    store<u32>(d, load<u32>(d) + 1);
  }
  for (; i < count; i++) {
    const a = tables + (((<usize>load<u16>(x)) >> 7) & 0xff) * 4;
    store<u32>(a, load<u32>(a) + 1);
    x += 2;
  }
}

/** Sign-and-mantissa bytes of `count` patterns at `x`, to `out`. */
export function splitSignMantissa(x: usize, count: i32, out: usize): void {
  const sign = i16x8.splat(0x80);
  const mantissa = i16x8.splat(0x7f);
  for (let i = 0; i < count; i += 16) {
    const a = v128.load(x);
    const b = v128.load(x, 16);
    const low = v128.or(v128.and(i16x8.shr_u(a, 8), sign), v128.and(a, mantissa));
    const high = v128.or(v128.and(i16x8.shr_u(b, 8), sign), v128.and(b, mantissa));
    v128.store(out, i8x16.narrow_i16x8_u(low, high));
    x += 32;
    out += 16;
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

/**
 * Encoder state between calls, at `state`: u64 pending (low `held` bits), u32 held (< 32), u32 words written, u32 elements done.
 * A unit is encoded in pieces: one call a tensor or a piece of one.
 *
 * `codes`: 256 u64 by exponent, code bits << 6 | length (a length of 1 to 32).
 * `stream`: where the next word goes; `gaps`: one byte a 64-bit window of the whole unit; `positions`: u32 a block of the whole unit.
 * Word w ends a window when it is odd and a block when w % 1024 is 1023: the next code starts `held` bits into the new one.
 *
 * @returns words written by this call.
 */
export function encodeExponents(x: usize, count: i32, codes: usize, stream: usize, gaps: usize, positions: usize, state: usize): i32 {
  let pending = load<u64>(state);
  let held: u64 = load<u32>(state, 8);
  let words = load<u32>(state, 12);
  const first = words;
  let element = load<u32>(state, 16);
  const end = x + (<usize>count << 1);
  // Where a gap goes that is none.
  const nowhere = state + 20;
  while (x < end) {
    if (x + 8 <= end) {
      // Four codes are joined first, so that only one step of four waits for the one before. Nothing branches on how full the word is.
      const four = load<u64>(x);
      const e0 = load<u64>(codes + <usize>((four >> 4) & 0x7f8));
      const e1 = load<u64>(codes + <usize>((four >> 20) & 0x7f8));
      const e2 = load<u64>(codes + <usize>((four >> 36) & 0x7f8));
      const e3 = load<u64>(codes + <usize>((four >> 52) & 0x7f8));
      const l1 = e1 & 63, l2 = e2 & 63, l3 = e3 & 63;
      const tail = l2 + l3;
      const rest = l1 + tail;
      const total = (e0 & 63) + rest;
      if (total <= 32) {
        const joined = ((e0 >> 6) << rest) | ((e1 >> 6) << tail) | ((e2 >> 6) << l3) | (e3 >> 6);
        pending = (pending << total) | joined;
        held += total;
        const full = <u32>(held >> 5);
        held &= 31;
        // A word that is not full is written again by the next group.
        storeBigEndian32(stream, <u32>(pending >> held));
        stream += full << 2;
        words += full;
        // Ends of the four codes behind the window's end; the first that is not in front of it is where the next window's first code starts.
        const c3 = <i32>held, c2 = c3 - <i32>l3, c1 = c2 - <i32>l2, c0 = c1 - <i32>l1;
        const gap = c0 >= 0 ? c0 : c1 >= 0 ? c1 : c2 >= 0 ? c2 : c3;
        const opens = full & (words + 1) & 1;
        store<u8>(opens != 0 ? gaps + (words >> 1) : nowhere, <u8>gap);
        if (opens != 0 && (words & 1023) == 0) {
          store<u32>(positions + ((words >> 10) << 2), element + 1 + <u32>(c0 < 0) + <u32>(c1 < 0) + <u32>(c2 < 0));
        }
        element += 4;
        x += 8;
        continue;
      }
    }
    const entry = load<u64>(codes + (((<usize>load<u16>(x)) << 1 >> 5) & 0x7f8));
    x += 2;
    element++;
    const length = entry & 63;
    pending = (pending << length) | (entry >> 6);
    held += length;
    if (held >= 32) {
      held -= 32;
      storeBigEndian32(stream, <u32>(pending >> held));
      stream += 4;
      words++;
      if ((words & 1) == 0) {
        store<u8>(gaps + (words >> 1), <u8>held);
        if ((words & 1023) == 0) store<u32>(positions + ((words >> 10) << 2), element);
      }
    }
  }
  store<u64>(state, pending);
  store<u32>(state, <u32>held, 8);
  store<u32>(state, words, 12);
  store<u32>(state, element, 16);
  return words - first;
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

/** Bits of a code that one look-up sees. */
const WINDOW: i32 = 12;

// 64 bits of the stream from bit `at`, the first one highest; the low 7 may be missing.
// @ts-ignore: decorator
@inline
function loadBits(stream: usize, at: u32): u64 {
  const reversed = v128.swizzle(v128.load64_zero(stream + (at >> 3)), i8x16(7, 6, 5, 4, 3, 2, 1, 0, 8, 8, 8, 8, 8, 8, 8, 8));
  return (<u64>i64x2.extract_lane(reversed, 0)) << (at & 7);
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
 * Builds the fast table at `table`: 2^12 u64. Entry: four exponents (bytes 0–3), total bits (byte 4), symbols (byte 5).
 * 0 symbols = the first code is longer than the window.
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
    store<u64>(table + <usize>(index << 3), symbols | ((<u64>(WINDOW - left)) << 32) | (count << 40));
  }
}

/**
 * Decodes the exponents of one block, from bit `at` of the stream, `count` of them, to `out` (which may be written 16 bytes past its end).
 *
 * Never reads past `endBit` + 32 bits: the caller pads the stream.
 * @returns the bit after the last code, or -1 when a code does not resolve or the block runs past `endBit`.
 */
export function decodeBlock(stream: usize, at: i32, endBit: i32, luts: usize, rows: i32, table: usize, out: usize, count: i32): i32 {
  const end = out + count;
  // Four look-ups a refill: at most 48 of the 57 bits that are there, 16 symbols.
  while (out + 16 <= end) {
    if (at >= endBit) return -1;
    let bits = loadBits(stream, at);
    let entry = load<u64>(table + <usize>((bits >> (64 - WINDOW)) << 3));
    let used = <u32>((entry >> 32) & 0xff);
    if (entry >> 40 == 0) {
      const found = decodeSlow(bits, luts, rows);
      if (found >> 8 == 0) return -1;
      store<u8>(out, <u8>found);
      out++;
      at += found >> 8;
      continue;
    }
    store<u32>(out, <u32>entry);
    out += <usize>(entry >> 40);
    bits <<= <u64>used;
    entry = load<u64>(table + <usize>((bits >> (64 - WINDOW)) << 3));
    store<u32>(out, <u32>entry);
    out += <usize>(entry >> 40);
    used += <u32>((entry >> 32) & 0xff);
    bits <<= (entry >> 32) & 0xff;
    entry = load<u64>(table + <usize>((bits >> (64 - WINDOW)) << 3));
    store<u32>(out, <u32>entry);
    out += <usize>(entry >> 40);
    used += <u32>((entry >> 32) & 0xff);
    bits <<= (entry >> 32) & 0xff;
    entry = load<u64>(table + <usize>((bits >> (64 - WINDOW)) << 3));
    store<u32>(out, <u32>entry);
    out += <usize>(entry >> 40);
    used += <u32>((entry >> 32) & 0xff);
    at += used;
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

/** The same for four blocks at once, whose chains of look-ups overlap. `jobs`: four records of i32 at, i32 endBit, i32 out, i32 count; `at` is replaced by the bit after the last code or -1. */
export function decodeFour(stream: usize, luts: usize, rows: i32, table: usize, jobs: usize): void {
  let atA = load<i32>(jobs), atB = load<i32>(jobs, 16), atC = load<i32>(jobs, 32), atD = load<i32>(jobs, 48);
  const stopA = load<i32>(jobs, 4), stopB = load<i32>(jobs, 20), stopC = load<i32>(jobs, 36), stopD = load<i32>(jobs, 52);
  let outA = load<u32>(jobs, 8), outB = load<u32>(jobs, 24), outC = load<u32>(jobs, 40), outD = load<u32>(jobs, 56);
  const endA = outA + load<u32>(jobs, 12), endB = outB + load<u32>(jobs, 28), endC = outC + load<u32>(jobs, 44), endD = outD + load<u32>(jobs, 60);
  while (outA + 16 <= endA && outB + 16 <= endB && outC + 16 <= endC && outD + 16 <= endD && atA < stopA && atB < stopB && atC < stopC && atD < stopD) {
    let bitsA = loadBits(stream, atA), bitsB = loadBits(stream, atB), bitsC = loadBits(stream, atC), bitsD = loadBits(stream, atD);
    let stuck = false;
    for (let k = 0; k < 4; k++) {
      const a = load<u64>(table + <usize>((bitsA >> (64 - WINDOW)) << 3));
      const b = load<u64>(table + <usize>((bitsB >> (64 - WINDOW)) << 3));
      const c = load<u64>(table + <usize>((bitsC >> (64 - WINDOW)) << 3));
      const d = load<u64>(table + <usize>((bitsD >> (64 - WINDOW)) << 3));
      store<u32>(outA, <u32>a);
      store<u32>(outB, <u32>b);
      store<u32>(outC, <u32>c);
      store<u32>(outD, <u32>d);
      outA += <u32>(a >> 40);
      outB += <u32>(b >> 40);
      outC += <u32>(c >> 40);
      outD += <u32>(d >> 40);
      const usedA = (a >> 32) & 0xff, usedB = (b >> 32) & 0xff, usedC = (c >> 32) & 0xff, usedD = (d >> 32) & 0xff;
      bitsA <<= usedA;
      bitsB <<= usedB;
      bitsC <<= usedC;
      bitsD <<= usedD;
      atA += <i32>usedA;
      atB += <i32>usedB;
      atC += <i32>usedC;
      atD += <i32>usedD;
      stuck = usedA == 0 || usedB == 0 || usedC == 0 || usedD == 0;
    }
    if (stuck) {
      // A long code at the head of a stream: take it by the rows.
      const a = decodeSlow(loadBits(stream, atA), luts, rows);
      const b = decodeSlow(loadBits(stream, atB), luts, rows);
      const c = decodeSlow(loadBits(stream, atC), luts, rows);
      const d = decodeSlow(loadBits(stream, atD), luts, rows);
      if (a >> 8 == 0 || b >> 8 == 0 || c >> 8 == 0 || d >> 8 == 0 || outA >= endA || outB >= endB || outC >= endC || outD >= endD) break;
      store<u8>(outA++, <u8>a);
      store<u8>(outB++, <u8>b);
      store<u8>(outC++, <u8>c);
      store<u8>(outD++, <u8>d);
      atA += a >> 8;
      atB += b >> 8;
      atC += c >> 8;
      atD += d >> 8;
    }
  }
  store<i32>(jobs, decodeBlock(stream, atA, stopA, luts, rows, table, outA, endA - outA));
  store<i32>(jobs, decodeBlock(stream, atB, stopB, luts, rows, table, outB, endB - outB), 16);
  store<i32>(jobs, decodeBlock(stream, atC, stopC, luts, rows, table, outC, endC - outC), 32);
  store<i32>(jobs, decodeBlock(stream, atD, stopD, luts, rows, table, outD, endD - outD), 48);
}
