// Magnitudes, sums and counts that row and column classes come from. AssemblyScript, not TypeScript.
import { toQueues } from "./huffman.as";

// Bits of eight magnitudes, 0 for infinities and NaN. `kind` is a constant where these are inlined.
// @ts-ignore: decorator
@inline
function magnitudeBits(patterns: v128, kind: i32): v128 {
  const bits = v128.and(patterns, i16x8.splat(0x7fff));
  return v128.and(bits, i16x8.lt_s(bits, i16x8.splat(kind == 0 ? 0x7f80 : 0x7c00)));
}

// f32 magnitudes of the first four and of the last four, see classes.ts.
// @ts-ignore: decorator
@inline
function firstFour(bits: v128, kind: i32): v128 {
  return kind == 0 ? i16x8.shuffle(i16x8.splat(0), bits, 0, 8, 1, 9, 2, 10, 3, 11) : i32x4.shl(i32x4.extend_low_i16x8_u(bits), 13);
}

// @ts-ignore: decorator
@inline
function lastFour(bits: v128, kind: i32): v128 {
  return kind == 0 ? i16x8.shuffle(i16x8.splat(0), bits, 4, 12, 5, 13, 6, 14, 7, 15) : i32x4.shl(i32x4.extend_high_i16x8_u(bits), 13);
}

// @ts-ignore: decorator
@inline
function magnitude(pattern: u32, kind: i32): f32 {
  const bits = pattern & 0x7fff;
  return kind == 0 ? (bits < 0x7f80 ? reinterpret<f32>(bits << 16) : 0) : bits < 0x7c00 ? reinterpret<f32>(bits << 13) : 0;
}

// Sum of a row's magnitudes, times `factors` (f32 by column) where given: eight accumulators, folded as classes.ts says. `rest` is 32 bytes.
// @ts-ignore: decorator
@inline
function sumRow(x: usize, cols: i32, kind: i32, factors: usize, rest: usize): f32 {
  let a = f32x4.splat(0);
  let b = f32x4.splat(0);
  const eights = cols >> 3;
  let at = x;
  if (factors == 0) {
    for (let left = eights; left > 0; left--) {
      const bits = magnitudeBits(v128.load(at), kind);
      a = f32x4.add(a, firstFour(bits, kind));
      b = f32x4.add(b, lastFour(bits, kind));
      at += 16;
    }
  } else {
    let f = factors;
    for (let left = eights; left > 0; left--) {
      const bits = magnitudeBits(v128.load(at), kind);
      a = f32x4.add(a, f32x4.mul(firstFour(bits, kind), v128.load(f)));
      b = f32x4.add(b, f32x4.mul(lastFour(bits, kind), v128.load(f, 16)));
      at += 16;
      f += 32;
    }
  }
  const whole = cols & ~7;
  if (whole < cols) {
    v128.store(rest, a);
    v128.store(rest, b, 16);
    for (let c = whole; c < cols; c++) {
      const lane = rest + (<usize>(c & 7) << 2);
      let m = magnitude(load<u16>(x + (<usize>c << 1)), kind);
      if (factors != 0) m = m * load<f32>(factors + (<usize>c << 2));
      store<f32>(lane, load<f32>(lane) + m);
    }
    a = v128.load(rest);
    b = v128.load(rest, 16);
  }
  const s = f32x4.add(a, b);
  return f32x4.extract_lane(s, 0) + f32x4.extract_lane(s, 1) + (f32x4.extract_lane(s, 2) + f32x4.extract_lane(s, 3));
}

/** Sums of `rows` rows, to `out` (f32). `factors`: f32 by column, or 0. */
export function sumRows(x: usize, rows: i32, cols: i32, kind: i32, factors: usize, out: usize, rest: usize): void {
  for (let r = 0; r < rows; r++) {
    store<f32>(out + (<usize>r << 2), kind == 0 ? sumRow(x, cols, 0, factors, rest) : sumRow(x, cols, 1, factors, rest));
    x += <usize>cols << 1;
  }
}

// Adds a row, divided by its sum, to the columns' `sums`.
// @ts-ignore: decorator
@inline
function addRow(x: usize, cols: i32, kind: i32, sums: usize, rest: usize): void {
  const sum = sumRow(x, cols, kind, 0, rest);
  // The smallest normal f32 and infinity.
  const factor: f32 = sum >= 1.1754943508222875e-38 && sum < Infinity ? <f32>1 / sum : 0;
  const f = f32x4.splat(factor);
  let at = x, to = sums;
  for (let left = cols >> 3; left > 0; left--) {
    const bits = magnitudeBits(v128.load(at), kind);
    v128.store(to, f32x4.add(v128.load(to), f32x4.mul(firstFour(bits, kind), f)));
    v128.store(to, f32x4.add(v128.load(to, 16), f32x4.mul(lastFour(bits, kind), f)), 16);
    at += 16;
    to += 32;
  }
  for (let left = cols & 7; left > 0; left--) {
    store<f32>(to, load<f32>(to) + magnitude(load<u16>(at), kind) * factor);
    at += 2;
    to += 4;
  }
}

/** Adds `rows` rows, each divided by its sum, to the columns' `sums` (f32). */
export function addColumns(x: usize, rows: i32, cols: i32, kind: i32, sums: usize, rest: usize): void {
  for (let r = 0; r < rows; r++) {
    if (kind == 0) addRow(x, cols, 0, sums, rest);
    else addRow(x, cols, 1, sums, rest);
    x += <usize>cols << 1;
  }
}

/** Bytes of a queue in `cheapestRows`: 384 symbols, a vector that is written past them, and one that stands for none. */
const QUEUE_BYTES: usize = 448;

/**
 * Row classes that take the fewest bits, see row-costs.ts: each of `rowClasses` (i16) goes one down or up, or stays.
 *
 * `symbols`: symbol | table << 6 of every element with the classes there are; at most 384 columns. `packs`, `counts`: see `toQueues`.
 * `queues`: 1792 bytes. `steps`: i8 by table, by step (down, up) and symbol: bits more than without it.
 */
export function cheapestRows(symbols: usize, rows: i32, cols: i32, rowClasses: usize, packs: usize, counts: usize, queues: usize, steps: usize): void {
  const ends = queues + 4 * QUEUE_BYTES;
  for (let r = 0; r < rows; r++) {
    for (let t: usize = 0; t < 4; t++) store<u32>(ends + (t << 2), <u32>(queues + t * QUEUE_BYTES));
    toQueues(symbols, 1, cols, rowClasses, packs, counts, ends);
    let down = i16x8.splat(0), up = i16x8.splat(0);
    for (let t: usize = 0; t < 4; t++) {
      const end = <usize>load<u32>(ends + (t << 2));
      v128.store(end, i8x16.splat(NO_SYMBOL));
      const own = steps + (t << 7);
      const d0 = v128.load(own), d1 = v128.load(own, 16), d2 = v128.load(own, 32), d3 = v128.load(own, 48);
      const u0 = v128.load(own, 64), u1 = v128.load(own, 80), u2 = v128.load(own, 96), u3 = v128.load(own, 112);
      let at = queues + t * QUEUE_BYTES;
      do {
        const i0 = v128.and(v128.load(at), i8x16.splat(0x3f));
        const i1 = i8x16.sub(i0, i8x16.splat(16)), i2 = i8x16.sub(i0, i8x16.splat(32)), i3 = i8x16.sub(i0, i8x16.splat(48));
        const d = v128.or(v128.or(v128.swizzle(d0, i0), v128.swizzle(d1, i1)), v128.or(v128.swizzle(d2, i2), v128.swizzle(d3, i3)));
        const u = v128.or(v128.or(v128.swizzle(u0, i0), v128.swizzle(u1, i1)), v128.or(v128.swizzle(u2, i2), v128.swizzle(u3, i3)));
        down = i16x8.add(down, i16x8.extadd_pairwise_i8x16_s(d));
        up = i16x8.add(up, i16x8.extadd_pairwise_i8x16_s(u));
        at += 16;
      } while (at < end);
    }
    const q = load<i16>(rowClasses);
    let best = q;
    let least = 0;
    const more = total(i32x4.extadd_pairwise_i16x8_s(down));
    if (more < least && q > 0) {
      least = more;
      best = q - 1;
    }
    if (total(i32x4.extadd_pairwise_i16x8_s(up)) < least && q < MAX_ROW_CLASS) best = q + 1;
    store<i16>(rowClasses, best);
    rowClasses += 2;
    symbols += cols;
  }
}

/** In the low six bits: a symbol there is none of, which takes as many bits at each step. */
const NO_SYMBOL: i8 = 63;

// @ts-ignore: decorator
@inline
function total(v: v128): i32 {
  return i32x4.extract_lane(v, 0) + i32x4.extract_lane(v, 1) + i32x4.extract_lane(v, 2) + i32x4.extract_lane(v, 3);
}

const MAX_ROW_CLASS: i16 = 1023;

/** Adds the bytes at `x` to four tables of 256 u32 at `tables`. */
export function countBytes(x: usize, count: i32, tables: usize): void {
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const four = load<u32>(x + i);
    const a = tables + ((four & 0xff) << 2);
    const b = tables + 1024 + (((four >> 8) & 0xff) << 2);
    const c = tables + 2048 + (((four >> 16) & 0xff) << 2);
    const d = tables + 3072 + ((four >> 24) << 2);
    store<u32>(a, load<u32>(a) + 1);
    store<u32>(b, load<u32>(b) + 1);
    store<u32>(c, load<u32>(c) + 1);
    store<u32>(d, load<u32>(d) + 1);
  }
  for (; i < count; i++) {
    const a = tables + ((<u32>load<u8>(x + i)) << 2);
    store<u32>(a, load<u32>(a) + 1);
  }
}
