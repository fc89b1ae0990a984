// Magnitudes, sums and counts that row and column classes come from. AssemblyScript, not TypeScript.

// f32 magnitudes of four patterns widened to 32 bits, see classes.ts.
// @ts-ignore: decorator
@inline
function magnitudes(wide: v128, kind: i32): v128 {
  const bits = v128.and(wide, i32x4.splat(0x7fff));
  return kind == 0
    ? v128.and(i32x4.shl(bits, 16), i32x4.lt_s(bits, i32x4.splat(0x7f80)))
    : v128.and(i32x4.shl(bits, 13), i32x4.lt_s(bits, i32x4.splat(0x7c00)));
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
  const whole = cols & ~7;
  if (factors == 0) {
    for (let c = 0; c < whole; c += 8) {
      const at = x + (<usize>c << 1);
      a = f32x4.add(a, magnitudes(v128.load16x4_u(at), kind));
      b = f32x4.add(b, magnitudes(v128.load16x4_u(at, 8), kind));
    }
  } else {
    for (let c = 0; c < whole; c += 8) {
      const at = x + (<usize>c << 1);
      const f = factors + (<usize>c << 2);
      a = f32x4.add(a, f32x4.mul(magnitudes(v128.load16x4_u(at), kind), v128.load(f)));
      b = f32x4.add(b, f32x4.mul(magnitudes(v128.load16x4_u(at, 8), kind), v128.load(f, 16)));
    }
  }
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
    store<f32>(out + (<usize>r << 2), sumRow(x, cols, kind, factors, rest));
    x += <usize>cols << 1;
  }
}

/** Adds `rows` rows, each divided by its sum, to the columns' `sums` (f32). */
export function addColumns(x: usize, rows: i32, cols: i32, kind: i32, sums: usize, rest: usize): void {
  for (let r = 0; r < rows; r++) {
    const sum = sumRow(x, cols, kind, 0, rest);
    // The smallest normal f32 and infinity.
    const factor: f32 = sum >= 1.1754943508222875e-38 && sum < Infinity ? <f32>1 / sum : 0;
    const f = f32x4.splat(factor);
    const whole = cols & ~3;
    for (let c = 0; c < whole; c += 4) {
      const to = sums + (<usize>c << 2);
      v128.store(to, f32x4.add(v128.load(to), f32x4.mul(magnitudes(v128.load16x4_u(x + (<usize>c << 1)), kind), f)));
    }
    for (let c = whole; c < cols; c++) {
      const to = sums + (<usize>c << 2);
      store<f32>(to, load<f32>(to) + magnitude(load<u16>(x + (<usize>c << 1)), kind) * factor);
    }
    x += <usize>cols << 1;
  }
}

/**
 * Row classes that take the fewest bits, see row-costs.ts: each of `rowClasses` (i16) goes one down or up, or stays.
 *
 * `symbols`: symbol | table << 6 of every element with the classes there are; at most 32,767 columns. `tables`: 1 KB. `costs`: 256 u16 for each
 * of the steps 0, -1, 1.
 */
export function cheapestRows(symbols: usize, rows: i32, cols: i32, rowClasses: usize, tables: usize, costs: usize): void {
  for (let r = 0; r < rows; r++) {
    for (let i: usize = 0; i < 1024; i += 16) v128.store(tables + i, i32x4.splat(0));
    let c = 0;
    for (; c + 4 <= cols; c += 4) {
      const four = load<u32>(symbols + c);
      countOne(tables, four & 0xff);
      countOne(tables + 512, (four >> 8) & 0xff);
      countOne(tables, (four >> 16) & 0xff);
      countOne(tables + 512, four >> 24);
    }
    for (; c < cols; c++) countOne(tables, <u32>load<u8>(symbols + c));
    let same = i32x4.splat(0), down = i32x4.splat(0), up = i32x4.splat(0);
    for (let i: usize = 0; i < 512; i += 16) {
      const eight = i16x8.add(v128.load(tables + i), v128.load(tables + i, 512));
      same = i32x4.add(same, i32x4.dot_i16x8_s(eight, v128.load(costs + i)));
      down = i32x4.add(down, i32x4.dot_i16x8_s(eight, v128.load(costs + i, 512)));
      up = i32x4.add(up, i32x4.dot_i16x8_s(eight, v128.load(costs + i, 1024)));
    }
    const q = load<i16>(rowClasses);
    let best = q;
    let least = total(same);
    const bitsDown = total(down);
    if (bitsDown < least && q > 0) {
      least = bitsDown;
      best = q - 1;
    }
    if (total(up) < least && q < MAX_ROW_CLASS) best = q + 1;
    store<i16>(rowClasses, best);
    rowClasses += 2;
    symbols += cols;
  }
}

// @ts-ignore: decorator
@inline
function countOne(table: usize, symbol: u32): void {
  const at = table + <usize>(symbol << 1);
  store<u16>(at, load<u16>(at) + 1);
}

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
