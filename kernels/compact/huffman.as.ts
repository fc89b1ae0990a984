// Level `fast`, see huffman.ts. AssemblyScript, not TypeScript.
import { endsEscapes, finishTail, openEscapes, patternsOf, rowBase, storeBf16 } from "./symbols.as";

/**
 * Symbols of `rows` rows to their queues. `queues`: four u32, where each queue is written; replaced by its end. Up to 15 bytes past an end are written.
 *
 * `packs`: by 16 columns and column class mod 4, a vector: where in the 16 the columns of that class lie. `counts`: u8 likewise, how many they are.
 */
export function toQueues(symbols: usize, rows: i32, cols: i32, rowClasses: usize, packs: usize, counts: usize, queues: usize): void {
  const groups = (cols + 15) >> 4;
  for (let r = 0; r < rows; r++) {
    const k = <usize>(load<i16>(rowClasses + (<usize>r << 1)) & 3);
    const q0 = queues + (k << 2), q1 = queues + (((k + 1) & 3) << 2), q2 = queues + (((k + 2) & 3) << 2), q3 = queues + (((k + 3) & 3) << 2);
    let p0 = <usize>load<u32>(q0), p1 = <usize>load<u32>(q1), p2 = <usize>load<u32>(q2), p3 = <usize>load<u32>(q3);
    for (let g = 0; g < groups; g++) {
      const v = v128.load(symbols + (<usize>g << 4));
      const m = packs + (<usize>g << 6);
      const n = counts + (<usize>g << 2);
      v128.store(p0, v128.swizzle(v, v128.load(m)));
      v128.store(p1, v128.swizzle(v, v128.load(m, 16)));
      v128.store(p2, v128.swizzle(v, v128.load(m, 32)));
      v128.store(p3, v128.swizzle(v, v128.load(m, 48)));
      p0 += load<u8>(n);
      p1 += load<u8>(n, 1);
      p2 += load<u8>(n, 2);
      p3 += load<u8>(n, 3);
    }
    store<u32>(q0, <u32>p0);
    store<u32>(q1, <u32>p1);
    store<u32>(q2, <u32>p2);
    store<u32>(q3, <u32>p3);
    symbols += cols;
  }
}

// Huffman code of a symbol, u32: code << 8 | length.
// @ts-ignore: decorator
@inline
function codeOf(table: usize, symbol: u64): u32 {
  return load<u32>(table + <usize>(symbol << 2));
}

/**
 * Huffman codes of `count` symbols to `out`, which is written up to 8 bytes past its end.
 * @returns where the stream ends; the last byte's upper bits are zero.
 */
export function encodeStream(symbols: usize, count: i32, table: usize, out: usize): usize {
  let pending: u64 = 0;
  let held: u64 = 0;
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const four = <u64>load<u32>(symbols + i);
    const a = codeOf(table, four & 0xff), b = codeOf(table, (four >> 8) & 0xff), d = codeOf(table, (four >> 16) & 0xff), e = codeOf(table, four >> 24);
    // Pairs first, so that the chain through `pending` is one step for four symbols.
    const ab = <u64>(a >> 8) | (<u64>(b >> 8) << <u64>(a & 0xff));
    const de = <u64>(d >> 8) | (<u64>(e >> 8) << <u64>(d & 0xff));
    const lengthAb = <u64>((a + b) & 0xff);
    pending |= (ab | (de << lengthAb)) << held;
    held += lengthAb + <u64>((d + e) & 0xff);
    store<u64>(out, pending);
    out += <usize>(held >> 3);
    pending >>= held & 0x38;
    held &= 7;
  }
  for (; i < count; i++) {
    const a = codeOf(table, <u64>load<u8>(symbols + i));
    pending |= <u64>(a >> 8) << held;
    held += <u64>(a & 0xff);
    store<u64>(out, pending);
    out += <usize>(held >> 3);
    pending >>= held & 0x38;
    held &= 7;
  }
  store<u64>(out, pending);
  return held > 0 ? out + 1 : out;
}

// Code of two symbols of one table, u32: code << 8 | length. The bits above a symbol's six are its table's number.
// @ts-ignore: decorator
@inline
function pairCode(table: usize, two: u32): u32 {
  return load<u32>(table + <usize>(((two & 0x3f) | ((two >> 2) & 0xfc0)) << 2));
}

/** `encodeStream` for symbols of one table of floats. `pairs`: by two symbols, six bits each, u32: code << 8 | length; `singles` as `table` there. */
export function encodePairs(symbols: usize, count: i32, pairs: usize, singles: usize, out: usize): usize {
  let pending: u64 = 0;
  let held: u64 = 0;
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const four = load<u32>(symbols + i);
    const ab = pairCode(pairs, four & 0xffff), de = pairCode(pairs, four >> 16);
    const lengthAb = <u64>(ab & 0xff);
    pending |= (<u64>(ab >> 8) | (<u64>(de >> 8) << lengthAb)) << held;
    held += lengthAb + <u64>(de & 0xff);
    store<u64>(out, pending);
    out += <usize>(held >> 3);
    pending >>= held & 0x38;
    held &= 7;
  }
  for (; i < count; i++) {
    const a = codeOf(singles, <u64>load<u8>(symbols + i));
    pending |= <u64>(a >> 8) << held;
    held += <u64>(a & 0xff);
    store<u64>(out, pending);
    out += <usize>(held >> 3);
    pending >>= held & 0x38;
    held &= 7;
  }
  store<u64>(out, pending);
  return held > 0 ? out + 1 : out;
}

// @ts-ignore: decorator
@inline
function bitsAt(stream: usize, at: usize): u64 {
  return load<u64>(stream + (at >> 3)) >> <u64>(at & 7);
}

// Entry of the next bits, u32: one symbol or two in the low bytes, their bits << 16, their number << 24.
// @ts-ignore: decorator
@inline
function pairOf(pairs: usize, bits: u64): u32 {
  return load<u32>(pairs + (<usize>(bits & 0xfff) << 2));
}

/**
 * Decodes `count` symbols of one stream from bit `at` on.
 *
 * `pairs`: 4096 entries by the next bits (`pairOf`); `singles`: u16 likewise, one symbol << 8 | bits. No byte past `to + count` is written.
 * @returns the bit after them.
 */
export function decodeStream(stream: usize, at: usize, count: i32, pairs: usize, singles: usize, to: usize): usize {
  const end = to + count;
  while (to + 8 <= end) {
    let bits = bitsAt(stream, at);
    for (let j = 0; j < 4; j++) {
      const e = pairOf(pairs, bits);
      store<u16>(to, <u16>e);
      bits >>= <u64>((e >> 16) & 0xff);
      at += <usize>((e >> 16) & 0xff);
      to += <usize>(e >> 24);
    }
  }
  for (; to < end; to++) {
    const e = <usize>load<u16>(singles + (<usize>(bitsAt(stream, at) & 0xfff) << 1));
    store<u8>(to, <u8>(e >> 8));
    at += e & 0xff;
  }
  return at;
}

/**
 * The four streams of a queue of `count` symbols side by side. `streams`: four u32, where each begins; replaced by the bits it took.
 *
 * `part`: symbols of each stream; the last ones have what is left. Otherwise as `decodeStream`.
 */
export function decodeQueue(streams: usize, count: i32, part: i32, pairs: usize, singles: usize, to: usize): void {
  const s0 = <usize>load<u32>(streams), s1 = <usize>load<u32>(streams, 4), s2 = <usize>load<u32>(streams, 8), s3 = <usize>load<u32>(streams, 12);
  let at0: usize = 0, at1: usize = 0, at2: usize = 0, at3: usize = 0;
  const begin1 = to + min(part, count), begin2 = to + min(2 * part, count), begin3 = to + min(3 * part, count), end = to + count;
  // Where symbols go, << 8; the bits of a round gather below.
  let p0 = <u64>to << 8, p1 = <u64>begin1 << 8, p2 = <u64>begin2 << 8, p3 = <u64>begin3 << 8;
  for (;;) {
    // A round takes at most eight symbols of each stream.
    let rounds = min(
      min(begin1 - <usize>(p0 >> 8), begin2 - <usize>(p1 >> 8)),
      min(begin3 - <usize>(p2 >> 8), end - <usize>(p3 >> 8)),
    ) >> 3;
    if (rounds == 0) break;
    for (; rounds > 0; rounds--) {
      let b0 = bitsAt(s0, at0), b1 = bitsAt(s1, at1), b2 = bitsAt(s2, at2), b3 = bitsAt(s3, at3);
      // Shifts look at the low six bits alone.
      for (let j = 0; j < 4; j++) {
        const e0 = pairOf(pairs, b0), e1 = pairOf(pairs, b1), e2 = pairOf(pairs, b2), e3 = pairOf(pairs, b3);
        store<u16>(<usize>(p0 >> 8), <u16>e0);
        store<u16>(<usize>(p1 >> 8), <u16>e1);
        store<u16>(<usize>(p2 >> 8), <u16>e2);
        store<u16>(<usize>(p3 >> 8), <u16>e3);
        const t0 = <u64>(e0 >> 16), t1 = <u64>(e1 >> 16), t2 = <u64>(e2 >> 16), t3 = <u64>(e3 >> 16);
        b0 >>= t0;
        b1 >>= t1;
        b2 >>= t2;
        b3 >>= t3;
        p0 += t0;
        p1 += t1;
        p2 += t2;
        p3 += t3;
      }
      at0 += <usize>(p0 & 0xff);
      at1 += <usize>(p1 & 0xff);
      at2 += <usize>(p2 & 0xff);
      at3 += <usize>(p3 & 0xff);
      p0 &= ~0xff;
      p1 &= ~0xff;
      p2 &= ~0xff;
      p3 &= ~0xff;
    }
  }
  const to0 = <usize>(p0 >> 8), to1 = <usize>(p1 >> 8), to2 = <usize>(p2 >> 8), to3 = <usize>(p3 >> 8);
  store<u32>(streams, <u32>decodeStream(s0, at0, <i32>(begin1 - to0), pairs, singles, to0));
  store<u32>(streams, <u32>decodeStream(s1, at1, <i32>(begin2 - to1), pairs, singles, to1), 4);
  store<u32>(streams, <u32>decodeStream(s2, at2, <i32>(begin3 - to2), pairs, singles, to2), 8);
  store<u32>(streams, <u32>decodeStream(s3, at3, <i32>(end - to3), pairs, singles, to3), 12);
}

/**
 * Elements of `rows` rows of floats from their queues. `queues`: four u32, where each queue begins; up to 15 bytes past its end are read.
 *
 * `unpacks`: by 16 columns and column class mod 4, a vector: for each column of that class its number among them, 0x80 for others. `counts` as in `toQueues`;
 * the rest as in `decodeRans`.
 * @returns 0 when the escapes do not end with the elements.
 */
export function fromQueues(
  queues: usize, rows: i32, cols: i32, kind: i32, rowClasses: usize, zeros: usize, stride: i32, unpacks: usize, counts: usize,
  raw: usize, signs: usize, escapes: usize, escapeBytes: i32, scratch: usize, out: usize,
): i32 {
  openEscapes(escapes, escapeBytes);
  const whole = cols & ~15;
  let i: usize = 0;
  for (let r = 0; r < rows; r++) {
    const q = <i32>load<i16>(rowClasses + (<usize>r << 1));
    const k = <usize>(q & 3);
    const z = zeros + <usize>((q & 3) * stride) * 2;
    const base = rowBase(q);
    const bases = i16x8.splat(<i16>base);
    const q0 = queues + (k << 2), q1 = queues + (((k + 1) & 3) << 2), q2 = queues + (((k + 2) & 3) << 2), q3 = queues + (((k + 3) & 3) << 2);
    let p0 = <usize>load<u32>(q0), p1 = <usize>load<u32>(q1), p2 = <usize>load<u32>(q2), p3 = <usize>load<u32>(q3);
    for (let c: usize = 0; c < <usize>cols; c += 16) {
      const m = unpacks + (c << 2);
      const n = counts + (c >> 2);
      const v = v128.or(
        v128.or(v128.swizzle(v128.load(p0), v128.load(m)), v128.swizzle(v128.load(p1), v128.load(m, 16))),
        v128.or(v128.swizzle(v128.load(p2), v128.load(m, 32)), v128.swizzle(v128.load(p3), v128.load(m, 48))),
      );
      p0 += load<u8>(n);
      p1 += load<u8>(n, 1);
      p2 += load<u8>(n, 2);
      p3 += load<u8>(n, 3);
      if (kind == 0 && c < <usize>whole) {
        storeBf16(v, bases, z + (c << 1), raw + i + c, scratch, out + (c << 1));
        continue;
      }
      const a = i16x8.extend_low_i8x16_u(v), b = i16x8.extend_high_i8x16_u(v);
      if (c < <usize>whole) {
        v128.store(out + (c << 1), patternsOf(kind, a, bases, v128.load(z + (c << 1)), raw, signs, i + c, scratch));
        v128.store(out + (c << 1) + 16, patternsOf(kind, b, bases, v128.load(z + (c << 1) + 16), raw, signs, i + c + 8, scratch));
      } else {
        v128.store(scratch, a, 48);
        v128.store(scratch, b, 64);
        finishTail(kind, scratch + 48, cols - whole, base, z + (c << 1), raw, signs, i + c, out + (c << 1));
      }
    }
    store<u32>(q0, <u32>p0);
    store<u32>(q1, <u32>p1);
    store<u32>(q2, <u32>p2);
    store<u32>(q3, <u32>p3);
    i += cols;
    out += <usize>cols << 1;
  }
  return endsEscapes() ? 1 : 0;
}
