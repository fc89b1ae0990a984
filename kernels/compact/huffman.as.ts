// Level `fast`, see huffman.ts. AssemblyScript, not TypeScript.
import { endsEscapes, finishTail, openEscapes, patternsOf, putEscapes, rowBase, storeBf16 } from "./symbols.as";

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

// Codes of two symbols.
// @ts-ignore: decorator
@inline
function pairAt(pairs: usize, offset: u16): u64 {
  return <u64>load<u32>(pairs + <usize>offset);
}

/**
 * `encodeStream` for symbols of one table of floats. `pairs`: by two symbols, six bits each, u32: code << 6 | length; `singles` as `table` there.
 * `scratch`: 16 bytes.
 */
function encodePairs(symbols: usize, count: i32, pairs: usize, singles: usize, scratch: usize, out: usize): usize {
  let pending: u64 = 0;
  let held: u64 = 0;
  const end = symbols + count;
  // The bits above a symbol's six are its table's number: eight pairs as offsets into the table.
  const second = i16x8.splat(0x3f00), first = i16x8.splat(0xfc);
  for (let left = count >> 4; left > 0; left--) {
    const v = v128.load(symbols);
    v128.store(scratch, v128.or(v128.and(v, second), v128.and(i16x8.shl(v, 2), first)));
    // Shifts look at the low six bits alone, which are lengths and their sums.
    let ab = pairAt(pairs, load<u16>(scratch, 0)), de = pairAt(pairs, load<u16>(scratch, 2));
    pending |= ((ab >> 6) | ((de >> 6) << ab)) << held;
    held += ab + de;
    store<u64>(out, pending);
    out += <usize>((held >> 3) & 7);
    pending >>= held & 0x38;
    held &= 7;
    ab = pairAt(pairs, load<u16>(scratch, 4)), de = pairAt(pairs, load<u16>(scratch, 6));
    pending |= ((ab >> 6) | ((de >> 6) << ab)) << held;
    held += ab + de;
    store<u64>(out, pending);
    out += <usize>((held >> 3) & 7);
    pending >>= held & 0x38;
    held &= 7;
    ab = pairAt(pairs, load<u16>(scratch, 8)), de = pairAt(pairs, load<u16>(scratch, 10));
    pending |= ((ab >> 6) | ((de >> 6) << ab)) << held;
    held += ab + de;
    store<u64>(out, pending);
    out += <usize>((held >> 3) & 7);
    pending >>= held & 0x38;
    held &= 7;
    ab = pairAt(pairs, load<u16>(scratch, 12)), de = pairAt(pairs, load<u16>(scratch, 14));
    pending |= ((ab >> 6) | ((de >> 6) << ab)) << held;
    held += ab + de;
    store<u64>(out, pending);
    out += <usize>((held >> 3) & 7);
    pending >>= held & 0x38;
    held &= 7;
    symbols += 16;
  }
  for (; symbols < end; symbols++) {
    const a = codeOf(singles, <u64>load<u8>(symbols));
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

/**
 * The four streams of each of four queues to `out`, one behind the other. `queues`, `lengths`: four u32 each, where symbols lie and how many they are.
 *
 * `pairs`, `singles`: see `encodePairs`; `pairs` is of four tables, one behind the other, or 0 for symbols that are bytes. `ends`: receives sixteen u32.
 */
export function encodeQueues(queues: usize, lengths: usize, pairs: usize, singles: usize, scratch: usize, out: usize, ends: usize): void {
  for (let t: usize = 0; t < 4; t++) {
    let symbols = <usize>load<u32>(queues + (t << 2));
    let left = load<i32>(lengths + (t << 2));
    const part = (left + 3) >> 2;
    for (let p: usize = 0; p < 4; p++) {
      const count = min(part, left);
      out = pairs == 0 ? encodeStream(symbols, count, singles, out) : encodePairs(symbols, count, pairs + (t << 14), singles, scratch, out);
      store<u32>(ends + (t << 4) + (p << 2), <u32>out);
      symbols += count;
      left -= count;
    }
  }
}

// @ts-ignore: decorator
@inline
function bitsAt(stream: usize, at: usize): u64 {
  return load<u64>(stream + (at >> 3)) >> <u64>(at & 7);
}

// Looks up what the next bits hold, writes it to `to` (one to three symbols; always four bytes), and gives their number << 6 | their bits.
// `bits` are shifted up by two, so that they are an offset into the table; those above may be anything.
// @ts-ignore: decorator
@inline
function take(table: usize, bits: u64, to: usize): u64 {
  const entry = load<u32>(table + (<usize>bits & 0x3ffc));
  store<u32>(to, entry);
  return <u64>(entry >> 24);
}

/**
 * Decodes `count` symbols of one stream from bit `at` on.
 *
 * `triples`: by the next 12 bits, u32: the one to three symbols they hold in the low bytes, their bits << 24, their number << 30.
 * `singles`: u16 likewise, one symbol << 8 | bits. No byte past `to + count` is written.
 * @returns the bit after them.
 */
export function decodeStream(stream: usize, at: usize, count: i32, triples: usize, singles: usize, to: usize): usize {
  const end = to + count;
  // Four look-ups write twelve symbols at most, and a byte past them.
  while (to + 13 <= end) {
    let bits = bitsAt(stream, at) << 2;
    for (let j = 0; j < 4; j++) {
      const t = take(triples, bits, to);
      bits >>= t;
      at += <usize>(t & 63);
      to += <usize>(t >> 6);
    }
  }
  for (; to < end; to++) {
    const e = <usize>load<u16>(singles + (<usize>(bitsAt(stream, at) & 0xfff) << 1));
    store<u8>(to, <u8>(e >> 8));
    at += e & 0xff;
  }
  return at;
}

// Bits of a stream from bit `at` of the memory on, shifted up by two: at least 55.
// @ts-ignore: decorator
@inline
function offsetsAt(at: u64): u64 {
  return (load<u64>(<usize>(at >> 3)) >> (at & 7)) << 2;
}

/**
 * The four streams of a queue of `count` symbols side by side. `streams`: four u32, where each begins; replaced by the bits it took.
 *
 * `part`: symbols of each stream; the last ones have what is left. Otherwise as `decodeStream`.
 */
function decodeQueue(streams: usize, count: i32, part: i32, triples: usize, singles: usize, to: usize): void {
  const begin1 = to + min(part, count), begin2 = to + min(2 * part, count), begin3 = to + min(3 * part, count), end = to + count;
  let at0 = <u64>load<u32>(streams) << 3, at1 = <u64>load<u32>(streams, 4) << 3;
  let at2 = <u64>load<u32>(streams, 8) << 3, at3 = <u64>load<u32>(streams, 12) << 3;
  // Where symbols go, << 6; the bits of a round gather below, and shifts look at the low six bits alone.
  let p0 = <u64>to << 6, p1 = <u64>begin1 << 6, p2 = <u64>begin2 << 6, p3 = <u64>begin3 << 6;
  for (;;) {
    const room = min(
      min(<i32>(begin1 - <usize>(p0 >> 6)), <i32>(begin2 - <usize>(p1 >> 6))),
      min(<i32>(begin3 - <usize>(p2 >> 6)), <i32>(end - <usize>(p3 >> 6))),
    );
    if (room < 13) break;
    let rounds = <u32>(room - 1) / 12;
    do {
      let b0 = offsetsAt(at0), b1 = offsetsAt(at1), b2 = offsetsAt(at2), b3 = offsetsAt(at3);
      let t0 = take(triples, b0, <usize>(p0 >> 6)), t1 = take(triples, b1, <usize>(p1 >> 6));
      let t2 = take(triples, b2, <usize>(p2 >> 6)), t3 = take(triples, b3, <usize>(p3 >> 6));
      b0 >>= t0;
      p0 += t0;
      b1 >>= t1;
      p1 += t1;
      b2 >>= t2;
      p2 += t2;
      b3 >>= t3;
      p3 += t3;
      t0 = take(triples, b0, <usize>(p0 >> 6));
      t1 = take(triples, b1, <usize>(p1 >> 6));
      t2 = take(triples, b2, <usize>(p2 >> 6));
      t3 = take(triples, b3, <usize>(p3 >> 6));
      b0 >>= t0;
      p0 += t0;
      b1 >>= t1;
      p1 += t1;
      b2 >>= t2;
      p2 += t2;
      b3 >>= t3;
      p3 += t3;
      t0 = take(triples, b0, <usize>(p0 >> 6));
      t1 = take(triples, b1, <usize>(p1 >> 6));
      t2 = take(triples, b2, <usize>(p2 >> 6));
      t3 = take(triples, b3, <usize>(p3 >> 6));
      b0 >>= t0;
      p0 += t0;
      b1 >>= t1;
      p1 += t1;
      b2 >>= t2;
      p2 += t2;
      b3 >>= t3;
      p3 += t3;
      t0 = take(triples, b0, <usize>(p0 >> 6));
      t1 = take(triples, b1, <usize>(p1 >> 6));
      t2 = take(triples, b2, <usize>(p2 >> 6));
      t3 = take(triples, b3, <usize>(p3 >> 6));
      p0 += t0;
      p1 += t1;
      p2 += t2;
      p3 += t3;
      at0 += p0 & 63;
      at1 += p1 & 63;
      at2 += p2 & 63;
      at3 += p3 & 63;
      p0 &= ~63;
      p1 &= ~63;
      p2 &= ~63;
      p3 &= ~63;
    } while (--rounds > 0);
  }
  const to0 = <usize>(p0 >> 6), to1 = <usize>(p1 >> 6), to2 = <usize>(p2 >> 6), to3 = <usize>(p3 >> 6);
  finishStream(streams, at0, <i32>(begin1 - to0), triples, singles, to0);
  finishStream(streams + 4, at1, <i32>(begin2 - to1), triples, singles, to1);
  finishStream(streams + 8, at2, <i32>(begin3 - to2), triples, singles, to2);
  finishStream(streams + 12, at3, <i32>(end - to3), triples, singles, to3);
}

/** The last symbols of a stream, from bit `at` of the memory on. `begin`: u32, where the stream begins; replaced by the bits it took. */
function finishStream(begin: usize, at: u64, count: i32, triples: usize, singles: usize, to: usize): void {
  const stream = <usize>load<u32>(begin);
  store<u32>(begin, <u32>decodeStream(stream, <usize>(at - (<u64>stream << 3)), count, triples, singles, to));
}

/**
 * Decodes four queues. `streams`: sixteen u32, where each stream begins; replaced by the bits it took. `queues`, `lengths`: four u32 each.
 *
 * `triples`, `singles`: see `decodeStream`; of `tables` tables (four or one), one behind the other.
 */
export function decodeQueues(streams: usize, lengths: usize, queues: usize, triples: usize, singles: usize, tables: i32): void {
  for (let t: usize = 0; t < 4; t++) {
    const count = load<i32>(lengths + (t << 2));
    const own = tables == 1 ? 0 : t;
    decodeQueue(streams + (t << 4), count, (count + 3) >> 2, triples + (own << 14), singles + (own << 13), <usize>load<u32>(queues + (t << 2)));
  }
}

// Sixteen symbols from where four queues are. `m`: their four vectors.
// @ts-ignore: decorator
@inline
function fourQueues(p0: usize, p1: usize, p2: usize, p3: usize, m: usize): v128 {
  return v128.or(
    v128.or(v128.swizzle(v128.load(p0), v128.load(m)), v128.swizzle(v128.load(p1), v128.load(m, 16))),
    v128.or(v128.swizzle(v128.load(p2), v128.load(m, 32)), v128.swizzle(v128.load(p3), v128.load(m, 48))),
  );
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
  const whole = <usize>(cols & ~15);
  let i: usize = 0;
  for (let r = 0; r < rows; r++) {
    const q = <i32>load<i16>(rowClasses + (<usize>r << 1));
    const k = <usize>(q & 3);
    const z = zeros + <usize>((q & 3) * stride) * 2;
    const base = rowBase(q);
    const bases = i16x8.splat(<i16>base);
    const q0 = queues + (k << 2), q1 = queues + (((k + 1) & 3) << 2), q2 = queues + (((k + 2) & 3) << 2), q3 = queues + (((k + 3) & 3) << 2);
    let p0 = <usize>load<u32>(q0), p1 = <usize>load<u32>(q1), p2 = <usize>load<u32>(q2), p3 = <usize>load<u32>(q3);
    let c: usize = 0;
    while (kind == 0 && c < whole) {
      // Escapes are looked for in the condition: a loop of one block keeps its constants in registers.
      let found: i32;
      do {
        const m = unpacks + (c << 2);
        const n = counts + (c >> 2);
        found = storeBf16(fourQueues(p0, p1, p2, p3, m), bases, z + (c << 1), raw + i + c, out + (c << 1));
        p0 += load<u8>(n);
        p1 += load<u8>(n, 1);
        p2 += load<u8>(n, 2);
        p3 += load<u8>(n, 3);
        c += 16;
      } while (<i32>(<usize>(found - 1) & (c - whole)) < 0);
      if (found != 0) putEscapes(found, base, z + ((c - 16) << 1), out + ((c - 16) << 1));
    }
    for (; c < <usize>cols; c += 16) {
      const n = counts + (c >> 2);
      const v = fourQueues(p0, p1, p2, p3, unpacks + (c << 2));
      p0 += load<u8>(n);
      p1 += load<u8>(n, 1);
      p2 += load<u8>(n, 2);
      p3 += load<u8>(n, 3);
      const a = i16x8.extend_low_i8x16_u(v), b = i16x8.extend_high_i8x16_u(v);
      if (c < whole) {
        v128.store(out + (c << 1), patternsOf(kind, a, bases, v128.load(z + (c << 1)), raw, signs, i + c, scratch));
        v128.store(out + (c << 1) + 16, patternsOf(kind, b, bases, v128.load(z + (c << 1) + 16), raw, signs, i + c + 8, scratch));
      } else {
        v128.store(scratch, a, 48);
        v128.store(scratch, b, 64);
        finishTail(kind, scratch + 48, cols - <i32>whole, base, z + (c << 1), raw, signs, i + c, out + (c << 1));
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
