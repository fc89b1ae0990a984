// WASM SIMD twin of formats/encodings/compact. AssemblyScript, not TypeScript.
// The loader pads every region, so reads and writes up to 64 bytes past an end are harmless.
//
// kind: 0 bf16, 1 f16, 2 bytes. Sizes are checked before a call; what the streams hold is not trusted.

const ESCAPE: i32 = 57;
const RELATIVE_MIN: i32 = 116;
const RELATIVE_ZERO: i32 = 160;
const STATE_MIN: u32 = 65536;

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

const P1: i32 = 0x9e3779b1;

// @ts-ignore: decorator
@inline
function mix(lane: v128, x: v128): v128 {
  const y = i32x4.mul(i32x4.add(lane, x), i32x4.splat(P1));
  return v128.or(i32x4.shl(y, 13), i32x4.shr_u(y, 19));
}

/** The sixteen lanes of the checksum of `bytes` bytes at `x`, to `lanes`. */
export function checksumLanes(x: usize, bytes: i32, lanes: usize): void {
  let a = i32x4(0, 1, 2, 3), b = i32x4(4, 5, 6, 7), c = i32x4(8, 9, 10, 11), d = i32x4(12, 13, 14, 15);
  const rest = bytes & 63;
  const end = x + bytes - rest;
  while (x < end) {
    a = mix(a, v128.load(x));
    b = mix(b, v128.load(x, 16));
    c = mix(c, v128.load(x, 32));
    d = mix(d, v128.load(x, 48));
    x += 64;
  }
  if (rest > 0) {
    memory.fill(lanes, 0, 64);
    memory.copy(lanes, x, rest);
    a = mix(a, v128.load(lanes));
    b = mix(b, v128.load(lanes, 16));
    c = mix(c, v128.load(lanes, 32));
    d = mix(d, v128.load(lanes, 48));
  }
  v128.store(lanes, a);
  v128.store(lanes, b, 16);
  v128.store(lanes, c, 32);
  v128.store(lanes, d, 48);
}

/**
 * Symbols of `rows` rows of floats, one byte each: symbol | table << 6, to `symbols`.
 *
 * `rowClasses`: i16 by row. `zeros`: i16 by (row class mod 4) and column, four times the whole octaves; `tableBits`: u8 likewise, table << 6.
 * `escapes`: receives at most 3 bytes an element.
 * @returns bytes of escapes.
 */
export function toSymbols(x: usize, rows: i32, cols: i32, kind: i32, rowClasses: usize, zeros: usize, tableBits: usize, stride: i32, symbols: usize, escapes: usize): i32 {
  const first = escapes;
  const shift: i32 = kind == 0 ? 5 : 8;
  const mask: i32 = kind == 0 ? 0x3ff : 0x7f;
  for (let r = 0; r < rows; r++) {
    const q = <i32>load<i16>(rowClasses + (<usize>r << 1));
    const z = zeros + <usize>((q & 3) * stride) * 2;
    const t = tableBits + <usize>((q & 3) * stride);
    const base = 4 * (q >> 2) - RELATIVE_ZERO + RELATIVE_MIN;
    const bases = i16x8.splat(<i16>base);
    let c = 0;
    for (; c + 8 <= cols; c += 8) {
      const patterns = v128.load(x + (<usize>c << 1));
      const coded = v128.and(i16x8.shr_u(patterns, shift), i16x8.splat(<i16>mask));
      const symbol = i16x8.sub(i16x8.sub(coded, bases), v128.load(z + (<usize>c << 1)));
      const isEscape = i16x8.ge_u(symbol, i16x8.splat(<i16>ESCAPE));
      const kept = v128.bitselect(i16x8.splat(<i16>ESCAPE), symbol, isEscape);
      const bytes = v128.or(i8x16.narrow_i16x8_u(kept, kept), v128.load64_zero(t + c));
      v128.store64_lane(symbols + c, bytes, 0);
      if (v128.any_true(isEscape)) {
        for (let j = c; j < c + 8; j++) escapes = putEscape(x, j, shift, mask, base, z, escapes);
      }
    }
    for (; c < cols; c++) {
      const symbol = ((<i32>load<u16>(x + (<usize>c << 1)) >> shift) & mask) - base - <i32>load<i16>(z + (<usize>c << 1));
      store<u8>(symbols + c, <u8>((<u32>symbol < <u32>ESCAPE ? symbol : ESCAPE) | <i32>load<u8>(t + c)));
      escapes = putEscape(x, c, shift, mask, base, z, escapes);
    }
    x += <usize>cols << 1;
    symbols += cols;
  }
  return <i32>(escapes - first);
}

function putEscape(x: usize, c: i32, shift: i32, mask: i32, base: i32, z: usize, escapes: usize): usize {
  const coded = (<i32>load<u16>(x + (<usize>c << 1)) >> shift) & mask;
  const symbol = coded - base - <i32>load<i16>(z + (<usize>c << 1));
  if (<u32>symbol < <u32>ESCAPE) return escapes;
  const relative = symbol + RELATIVE_MIN;
  if (<u32>relative < 255) {
    store<u8>(escapes, <u8>relative);
    return escapes + 1;
  }
  store<u8>(escapes, 255);
  store<u16>(escapes + 1, <u16>coded);
  return escapes + 3;
}

// @ts-ignore: decorator
@inline
function rawOf(x: usize): v128 {
  const a = v128.load(x);
  const b = v128.load(x, 16);
  const sign = i16x8.splat(0x20);
  const low = i16x8.splat(0x1f);
  return i8x16.narrow_i16x8_u(
    v128.or(v128.and(i16x8.shr_u(a, 10), sign), v128.and(a, low)),
    v128.or(v128.and(i16x8.shr_u(b, 10), sign), v128.and(b, low)),
  );
}

// @ts-ignore: decorator
@inline
function rawAt(x: usize, i: i32, count: i32): u32 {
  if (i >= count) return 0;
  const pattern = <u32>load<u16>(x + (<usize>i << 1));
  return ((pattern >> 10) & 0x20) | (pattern & 0x1f);
}

/** Raw bits of `count` patterns, see raw-bits.ts. `out` is zero before. */
export function packRawBits(x: usize, count: i32, kind: i32, out: usize): void {
  if (kind == 1) {
    const signs = out + ((count + 3) & ~3);
    let i = 0;
    for (; i + 8 <= count; i += 8) {
      const patterns = v128.load(x + (<usize>i << 1));
      const bytes = v128.and(patterns, i16x8.splat(0xff));
      v128.store64_lane(out + i, i8x16.narrow_i16x8_u(bytes, bytes), 0);
      store<u8>(signs + (i >> 3), <u8>i16x8.bitmask(patterns));
    }
    for (; i < count; i++) {
      const pattern = <u32>load<u16>(x + (<usize>i << 1));
      store<u8>(out + i, <u8>pattern);
      store<u8>(signs + (i >> 3), <u8>(load<u8>(signs + (i >> 3)) | ((pattern >> 15) << (i & 7))));
    }
    return;
  }
  let start = 0;
  for (; start + 64 <= count; start += 64) {
    const at = x + (<usize>start << 1);
    const last = rawOf(at + 96);
    const top = i8x16.splat(<i8>0xc0);
    v128.store(out, v128.or(rawOf(at), i8x16.shl(last, 6)));
    v128.store(out, v128.or(rawOf(at + 32), v128.and(i8x16.shl(last, 4), top)), 16);
    v128.store(out, v128.or(rawOf(at + 64), v128.and(i8x16.shl(last, 2), top)), 32);
    out += 48;
  }
  const left = count - start;
  const g = (left + 3) >> 2;
  for (let i = 0; i < g; i++) {
    const last = rawAt(x, start + 3 * g + i, count);
    for (let j = 0; j < 3; j++) store<u8>(out + j * g + i, <u8>(rawAt(x, start + j * g + i, count) | (((last >> (2 * j)) & 3) << 6)));
  }
}

/** Raw bits of bf16 back to a byte each: sign * 32 + low mantissa. Writes up to 63 bytes past the end. */
export function unpackRawBits(bits: usize, count: i32, out: usize): void {
  const low = i8x16.splat(0x3f);
  let start = 0;
  for (; start + 64 <= count; start += 64) {
    const a = v128.load(bits);
    const b = v128.load(bits, 16);
    const c = v128.load(bits, 32);
    v128.store(out, v128.and(a, low));
    v128.store(out, v128.and(b, low), 16);
    v128.store(out, v128.and(c, low), 32);
    v128.store(out, v128.or(i8x16.shr_u(a, 6), v128.or(i8x16.shl(i8x16.shr_u(b, 6), 2), i8x16.shl(i8x16.shr_u(c, 6), 4))), 48);
    bits += 48;
    out += 64;
  }
  const g = (count - start + 3) >> 2;
  for (let i = 0; i < g; i++) {
    let last: u32 = 0;
    for (let j = 0; j < 3; j++) {
      const byte = <u32>load<u8>(bits + j * g + i);
      store<u8>(out + j * g + i, <u8>(byte & 0x3f));
      last |= (byte >> 6) << (2 * j);
    }
    store<u8>(out + 3 * g + i, <u8>last);
  }
}

// One rANS step: the word below `words` is written, and kept when the state was too large.
// Entry of a symbol, 16 bytes: u64 ceil(2^44 / frequency), u32 frequency << 20, u16 start, u16 4096 - frequency.
// @ts-ignore: decorator
@inline
function put(x: u32, entry: usize): u32 {
  const quotient = <u32>((<u64>x * load<u64>(entry)) >> 44);
  return x + <u32>load<u16>(entry, 12) + quotient * <u32>load<u16>(entry, 14);
}

/**
 * rANS, backwards: from the last symbol to the first, words downwards from `words`.
 *
 * `table`: entries of 16 bytes by symbol byte. `states`: receives eight u32.
 * @returns where the first word lies.
 */
export function encodeRans(symbols: usize, rows: i32, cols: i32, table: usize, words: usize, states: usize): usize {
  for (let j = 0; j < 8; j++) store<u32>(states + (j << 2), STATE_MIN);
  let s0 = STATE_MIN, s1 = STATE_MIN, s2 = STATE_MIN, s3 = STATE_MIN, s4 = STATE_MIN, s5 = STATE_MIN, s6 = STATE_MIN, s7 = STATE_MIN;
  const whole = cols & ~7;
  let row = symbols + <usize>(rows - 1) * cols;
  for (let r = rows - 1; r >= 0; r--) {
    if (whole < cols) {
      store<u32>(states, s0); store<u32>(states, s1, 4); store<u32>(states, s2, 8); store<u32>(states, s3, 12);
      store<u32>(states, s4, 16); store<u32>(states, s5, 20); store<u32>(states, s6, 24); store<u32>(states, s7, 28);
      for (let c = cols - 1; c >= whole; c--) {
        const entry = table + (<usize>load<u8>(row + c) << 4);
        let x = load<u32>(states + (<usize>(c & 7) << 2));
        const over = <usize>(x >= load<u32>(entry, 8));
        store<u16>(words - 2, <u16>x);
        words -= over << 1;
        x >>= <u32>(over << 4);
        store<u32>(states + (<usize>(c & 7) << 2), put(x, entry));
      }
      s0 = load<u32>(states); s1 = load<u32>(states, 4); s2 = load<u32>(states, 8); s3 = load<u32>(states, 12);
      s4 = load<u32>(states, 16); s5 = load<u32>(states, 20); s6 = load<u32>(states, 24); s7 = load<u32>(states, 28);
    }
    for (let c = whole - 8; c >= 0; c -= 8) {
      const eight = load<u64>(row + c);
      let e = table + <usize>((eight >> 56) << 4);
      let over = <usize>(s7 >= load<u32>(e, 8));
      store<u16>(words - 2, <u16>s7);
      words -= over << 1;
      s7 = put(s7 >> <u32>(over << 4), e);
      e = table + <usize>((eight >> 44) & 0xff0);
      over = <usize>(s6 >= load<u32>(e, 8));
      store<u16>(words - 2, <u16>s6);
      words -= over << 1;
      s6 = put(s6 >> <u32>(over << 4), e);
      e = table + <usize>((eight >> 36) & 0xff0);
      over = <usize>(s5 >= load<u32>(e, 8));
      store<u16>(words - 2, <u16>s5);
      words -= over << 1;
      s5 = put(s5 >> <u32>(over << 4), e);
      e = table + <usize>((eight >> 28) & 0xff0);
      over = <usize>(s4 >= load<u32>(e, 8));
      store<u16>(words - 2, <u16>s4);
      words -= over << 1;
      s4 = put(s4 >> <u32>(over << 4), e);
      e = table + <usize>((eight >> 20) & 0xff0);
      over = <usize>(s3 >= load<u32>(e, 8));
      store<u16>(words - 2, <u16>s3);
      words -= over << 1;
      s3 = put(s3 >> <u32>(over << 4), e);
      e = table + <usize>((eight >> 12) & 0xff0);
      over = <usize>(s2 >= load<u32>(e, 8));
      store<u16>(words - 2, <u16>s2);
      words -= over << 1;
      s2 = put(s2 >> <u32>(over << 4), e);
      e = table + <usize>((eight >> 4) & 0xff0);
      over = <usize>(s1 >= load<u32>(e, 8));
      store<u16>(words - 2, <u16>s1);
      words -= over << 1;
      s1 = put(s1 >> <u32>(over << 4), e);
      e = table + <usize>((eight << 4) & 0xff0);
      over = <usize>(s0 >= load<u32>(e, 8));
      store<u16>(words - 2, <u16>s0);
      words -= over << 1;
      s0 = put(s0 >> <u32>(over << 4), e);
    }
    row -= cols;
  }
  store<u32>(states, s0); store<u32>(states, s1, 4); store<u32>(states, s2, 8); store<u32>(states, s3, 12);
  store<u32>(states, s4, 16); store<u32>(states, s5, 20); store<u32>(states, s6, 24); store<u32>(states, s7, 28);
  return words;
}

// Huffman code of one symbol onto the pending bits. Entry of a symbol, u32: code << 8 | length.
// @ts-ignore: decorator
@inline
function codeOf(table: usize, symbol: u64): u32 {
  return load<u32>(table + <usize>(symbol << 2));
}

/**
 * Huffman, one stream: every fourth row from `row`, to `out`, which is written up to 8 bytes past its end.
 * @returns where the stream ends (before padding); the last byte's upper bits are zero, and so are eight bytes after it.
 */
export function encodeStream(symbols: usize, first: i32, rows: i32, cols: i32, table: usize, out: usize): usize {
  let pending: u64 = 0;
  let held: u64 = 0;
  const whole = cols & ~3;
  for (let r = first; r < rows; r += 4) {
    const row = symbols + <usize>r * cols;
    for (let c = 0; c < whole; c += 4) {
      const four = <u64>load<u32>(row + c);
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
    for (let c = whole; c < cols; c++) {
      const a = codeOf(table, <u64>load<u8>(row + c));
      pending |= <u64>(a >> 8) << held;
      held += <u64>(a & 0xff);
      store<u64>(out, pending);
      out += <usize>(held >> 3);
      pending >>= held & 0x38;
      held &= 7;
    }
  }
  store<u64>(out, pending);
  if (held > 0) out++;
  store<u64>(out, 0);
  return out;
}

/** Escapes still to be read, and where they end; a reader that needs more gets zeros and ends past the end. */
let escapeAt: usize = 0;
let escapeEnd: usize = 0;

function nextEscape(expected: i32): i32 {
  const at = escapeAt;
  if (at >= escapeEnd) {
    escapeAt = escapeEnd + 1;
    return 0;
  }
  const relative = <i32>load<u8>(at);
  if (relative < 255) {
    escapeAt = at + 1;
    return expected + relative;
  }
  if (at + 3 > escapeEnd) {
    escapeAt = escapeEnd + 1;
    return 0;
  }
  escapeAt = at + 3;
  return <i32>load<u16>(at + 1);
}

// Coded bits of eight elements among which are escapes; `scratch` is 48 bytes.
function codedWithEscapes(symbol: v128, coded: v128, scratch: usize): v128 {
  v128.store(scratch, symbol);
  v128.store(scratch, coded, 16);
  for (let j: usize = 0; j < 16; j += 2) {
    if (load<u16>(scratch + j) != <u16>ESCAPE) continue;
    // What the symbol stands for, less the symbol: the coded bits of relative 0.
    const expected = <i32>load<i16>(scratch + j + 16) - ESCAPE - RELATIVE_MIN;
    store<i16>(scratch + j + 16, <i16>nextEscape(expected));
  }
  return v128.load(scratch, 16);
}

// Raw bits of elements i..i+7 in their places. bf16: `raw` is a byte an element; f16: `raw` low bytes, `signs` bits.
// @ts-ignore: decorator
@inline
function rawEight(kind: i32, raw: usize, signs: usize, i: usize): v128 {
  const bytes = v128.load8x8_u(raw + i);
  if (kind == 0) {
    return v128.or(v128.and(bytes, i16x8.splat(0x1f)), i16x8.shl(v128.and(bytes, i16x8.splat(0x20)), 10));
  }
  const eight = <i32>load<u16>(signs + (i >> 3)) >> <i32>(i & 7);
  const bits = v128.and(i16x8.splat(<i16>eight), i16x8(1, 2, 4, 8, 16, 32, 64, 128));
  return v128.or(bytes, v128.and(i16x8.ne(bits, i16x8.splat(0)), i16x8.splat(<i16>0x8000)));
}

// Patterns of eight symbols.
// @ts-ignore: decorator
@inline
function patternsOf(kind: i32, symbol: v128, bases: v128, zero: v128, raw: usize, signs: usize, i: usize, scratch: usize): v128 {
  let coded = i16x8.add(symbol, i16x8.add(bases, zero));
  if (v128.any_true(i16x8.eq(symbol, i16x8.splat(<i16>ESCAPE)))) coded = codedWithEscapes(symbol, coded, scratch);
  const rest = rawEight(kind, raw, signs, i);
  return kind == 0
    ? v128.or(i16x8.shl(v128.and(coded, i16x8.splat(0x3ff)), 5), rest)
    : v128.or(i16x8.shl(v128.and(coded, i16x8.splat(0x7f)), 8), rest);
}

// The last `count` elements of a row, fewer than eight: symbols (u16) lie in `scratch`, patterns go to `out`.
function finishTail(kind: i32, scratch: usize, count: i32, base: i32, z: usize, raw: usize, signs: usize, i: usize, out: usize): void {
  for (let j = 0; j < count; j++) {
    const symbol = <i32>load<u16>(scratch + (<usize>j << 1));
    if (kind == 2) {
      store<u8>(out + j, <u8>symbol);
      continue;
    }
    const zero = base + <i32>load<i16>(z + (<usize>j << 1));
    const coded = symbol == ESCAPE ? nextEscape(zero - RELATIVE_MIN) : zero + symbol;
    const at = i + j;
    const low = <i32>load<u8>(raw + at);
    const pattern = kind == 0
      ? ((coded & 0x3ff) << 5) | (low & 0x1f) | ((low & 0x20) << 10)
      : ((coded & 0x7f) << 8) | low | (((<i32>load<u8>(signs + (at >> 3)) >> <i32>(at & 7)) & 1) << 15);
    store<u16>(out + (<usize>j << 1), <u16>pattern);
  }
}

// One rANS step of four lanes: looks entries up. Entry by slot, u32: frequency << 20 | (slot - start) << 8 | symbol.
// @ts-ignore: decorator
@inline
function lookUp(x: v128, tables: usize, offsets: usize): v128 {
  const index = i32x4.add(i32x4.shl(v128.and(x, i32x4.splat(4095)), 2), v128.load16x4_u(offsets));
  const low = i64x2.extract_lane(index, 0);
  const high = i64x2.extract_lane(index, 1);
  let e = v128.load32_zero(tables + <usize>(low & 0xffff));
  e = v128.load32_lane(tables + <usize>(low >> 32), e, 1);
  e = v128.load32_lane(tables + <usize>(high & 0xffff), e, 2);
  return v128.load32_lane(tables + <usize>(high >> 32), e, 3);
}

// @ts-ignore: decorator
@inline
function step(x: v128, e: v128): v128 {
  return i32x4.add(i32x4.mul(i32x4.shr_u(e, 20), i32x4.shr_u(x, 12)), v128.and(i32x4.shr_u(e, 8), i32x4.splat(0xfff)));
}

/**
 * Decodes `rows` rows of a block at level `max`.
 *
 * `offsets`: u16 by (row class mod 4) and column, table * 16384; `zeros` as in `toSymbols`; `stride` of both.
 * `tables`: entries by table and slot. `shuffles`: 16 vectors: where lane j of a mask finds its word, 0x80 for none.
 * `raw`, `signs`: see `rawEight`. `scratch`: 64 bytes. `states`: eight u32, replaced by the last ones.
 * Reads at most two bytes an element from `words` on.
 * @returns where the words end; 0 when the escapes do not end with the elements.
 */
export function decodeRans(
  words: usize, states: usize, rows: i32, cols: i32, kind: i32, rowClasses: usize, zeros: usize, offsets: usize, stride: i32, tables: usize, shuffles: usize,
  raw: usize, signs: usize, escapes: usize, escapeBytes: i32, scratch: usize, out: usize,
): usize {
  escapeAt = escapes;
  escapeEnd = escapes + escapeBytes;
  let x0 = v128.load(states);
  let x1 = v128.load(states, 16);
  const whole = cols & ~7;
  const bits: usize = kind == 2 ? 0 : 1;
  let i: usize = 0;
  for (let r = 0; r < rows; r++) {
    const q = <i32>load<i16>(rowClasses + (<usize>r << 1));
    const z = zeros + <usize>((q & 3) * stride) * 2;
    const o = offsets + <usize>((q & 3) * stride) * 2;
    const base = 4 * (q >> 2) - RELATIVE_ZERO + RELATIVE_MIN;
    const bases = i16x8.splat(<i16>base);
    for (let c: usize = 0; c < <usize>whole; c += 8) {
      const e0 = lookUp(x0, tables, o + (c << 1));
      const e1 = lookUp(x1, tables, o + (c << 1) + 8);
      x0 = step(x0, e0);
      x1 = step(x1, e1);
      const small0 = i32x4.eq(i32x4.shr_u(x0, 16), i32x4.splat(0));
      const small1 = i32x4.eq(i32x4.shr_u(x1, 16), i32x4.splat(0));
      const m0 = i32x4.bitmask(small0);
      const m1 = i32x4.bitmask(small1);
      const w0 = v128.swizzle(v128.load64_zero(words), v128.load(shuffles + (<usize>m0 << 4)));
      words += <usize>popcnt(m0) << 1;
      const w1 = v128.swizzle(v128.load64_zero(words), v128.load(shuffles + (<usize>m1 << 4)));
      words += <usize>popcnt(m1) << 1;
      x0 = v128.bitselect(v128.or(i32x4.shl(x0, 16), w0), x0, small0);
      x1 = v128.bitselect(v128.or(i32x4.shl(x1, 16), w1), x1, small1);
      const low = i32x4.splat(0xff);
      const symbol = i16x8.narrow_i32x4_u(v128.and(e0, low), v128.and(e1, low));
      if (kind == 2) v128.store64_lane(out + c, i8x16.narrow_i16x8_u(symbol, symbol), 0);
      else v128.store(out + (c << 1), patternsOf(kind, symbol, bases, v128.load(z + (c << 1)), raw, signs, i + c, scratch));
    }
    if (whole < cols) {
      v128.store(scratch, x0);
      v128.store(scratch, x1, 16);
      for (let c = whole; c < cols; c++) {
        const lane = scratch + (<usize>(c & 7) << 2);
        let x = load<u32>(lane);
        const e = load<u32>(tables + <usize>load<u16>(o + (<usize>c << 1)) + <usize>((x & 4095) << 2));
        x = (e >> 20) * (x >> 12) + ((e >> 8) & 0xfff);
        if (x < STATE_MIN) {
          x = (x << 16) | <u32>load<u16>(words);
          words += 2;
        }
        store<u32>(lane, x);
        store<u16>(scratch + 32 + (<usize>(c & 7) << 1), <u16>(e & 0xff));
      }
      x0 = v128.load(scratch);
      x1 = v128.load(scratch, 16);
      finishTail(kind, scratch + 32, cols - whole, base, z + (<usize>whole << 1), raw, signs, i + whole, out + (<usize>whole << bits));
    }
    i += cols;
    out += <usize>cols << bits;
  }
  v128.store(states, x0);
  v128.store(states, x1, 16);
  return escapeAt == escapeEnd ? words : 0;
}

// Entry of the next symbol. `offset` is table * 2048: four small tables of 10 bits lie at `tables`, four of all 12 bits after them.
// Small ones stay in the nearest cache; one symbol in 150 has a longer code and finds 0 there.
// @ts-ignore: decorator
@inline
function entryOf(tables: usize, offset: usize, bits: u64): u64 {
  const e = <u64>load<u16>(tables + offset + (<usize>(bits & 0x3ff) << 1));
  return e != 0 ? e : <u64>load<u16>(tables + 8192 + (offset << 2) + (<usize>(bits & 0xfff) << 1));
}

// Four symbols of one stream, as u16 entries (symbol << 8 | length), to `to`; returns the bit after them.
// @ts-ignore: decorator
@inline
function fourSymbols(stream: usize, at: usize, tables: usize, offsets: usize, to: usize): usize {
  let bits = load<u64>(stream + (at >> 3)) >> <u64>(at & 7);
  const a = entryOf(tables, <usize>load<u16>(offsets), bits);
  store<u16>(to, <u16>a);
  bits >>= a;
  const b = entryOf(tables, <usize>load<u16>(offsets, 2), bits);
  store<u16>(to, <u16>b, 2);
  bits >>= b;
  const c = entryOf(tables, <usize>load<u16>(offsets, 4), bits);
  store<u16>(to, <u16>c, 4);
  bits >>= c;
  const d = entryOf(tables, <usize>load<u16>(offsets, 6), bits);
  store<u16>(to, <u16>d, 6);
  return at + <usize>((a + b + c + d) & 0xff);
}

// Symbols from column `c` on, one row.
function restOfRow(stream: usize, at: usize, tables: usize, offsets: usize, to: usize, c: i32, cols: i32): usize {
  for (; c + 4 <= cols; c += 4) at = fourSymbols(stream, at, tables, offsets + (<usize>c << 1), to + (<usize>c << 1));
  for (; c < cols; c++) {
    const bits = <u64>(load<u32>(stream + (at >> 3)) >> <u32>(at & 7));
    const e = entryOf(tables, <usize>load<u16>(offsets + (<usize>c << 1)), bits);
    store<u16>(to + (<usize>c << 1), <u16>e);
    at += <usize>(e & 0xff);
  }
  return at;
}

/**
 * Decodes `rows` rows of a block at level `fast`.
 *
 * As `decodeRans`, but `offsets` hold table * 2048, and `tables` u16 entries by table and bits: symbol << 8 | length (see `entryOf`).
 * `streams`: four u32, where each begins; replaced by the bit each ends at. `entries`: four rows of u16.
 * Reads at most 12 bits an element from a stream's begin on.
 * @returns 0 when the escapes do not end with the elements.
 */
export function decodeHuffman(
  streams: usize, rows: i32, cols: i32, kind: i32, rowClasses: usize, zeros: usize, offsets: usize, stride: i32, tables: usize,
  raw: usize, signs: usize, escapes: usize, escapeBytes: i32, scratch: usize, entries: usize, out: usize,
): i32 {
  escapeAt = escapes;
  escapeEnd = escapes + escapeBytes;
  const a = <usize>load<u32>(streams), b = <usize>load<u32>(streams, 4), c = <usize>load<u32>(streams, 8), d = <usize>load<u32>(streams, 12);
  let atA: usize = 0, atB: usize = 0, atC: usize = 0, atD: usize = 0;
  const whole = cols & ~7;
  const four = <usize>(cols & ~3) << 1;
  const bits: usize = kind == 2 ? 0 : 1;
  const rowBytes = <usize>((cols + 7) & ~7) << 1;
  let i: usize = 0;
  for (let r = 0; r < rows; r += 4) {
    const at = rowClasses + (<usize>r << 1);
    const members = min(4, rows - r);
    const oA = offsets + <usize>((<i32>load<i16>(at) & 3) * stride) * 2;
    if (members == 4) {
      const oB = offsets + <usize>((<i32>load<i16>(at, 2) & 3) * stride) * 2;
      const oC = offsets + <usize>((<i32>load<i16>(at, 4) & 3) * stride) * 2;
      const oD = offsets + <usize>((<i32>load<i16>(at, 6) & 3) * stride) * 2;
      const tB = entries + rowBytes, tC = tB + rowBytes, tD = tC + rowBytes;
      for (let j: usize = 0; j < four; j += 8) {
        atA = fourSymbols(a, atA, tables, oA + j, entries + j);
        atB = fourSymbols(b, atB, tables, oB + j, tB + j);
        atC = fourSymbols(c, atC, tables, oC + j, tC + j);
        atD = fourSymbols(d, atD, tables, oD + j, tD + j);
      }
      if (<i32>(four >> 1) < cols) {
        atA = restOfRow(a, atA, tables, oA, entries, cols & ~3, cols);
        atB = restOfRow(b, atB, tables, oB, tB, cols & ~3, cols);
        atC = restOfRow(c, atC, tables, oC, tC, cols & ~3, cols);
        atD = restOfRow(d, atD, tables, oD, tD, cols & ~3, cols);
      }
    } else {
      atA = restOfRow(a, atA, tables, oA, entries, 0, cols);
      if (members > 1) atB = restOfRow(b, atB, tables, offsets + <usize>((<i32>load<i16>(at, 2) & 3) * stride) * 2, entries + rowBytes, 0, cols);
      if (members > 2) atC = restOfRow(c, atC, tables, offsets + <usize>((<i32>load<i16>(at, 4) & 3) * stride) * 2, entries + 2 * rowBytes, 0, cols);
    }
    for (let m = 0; m < members; m++) {
      const q = <i32>load<i16>(at + (<usize>m << 1));
      const z = zeros + <usize>((q & 3) * stride) * 2;
      const from = entries + <usize>m * rowBytes;
      const base = 4 * (q >> 2) - RELATIVE_ZERO + RELATIVE_MIN;
      const bases = i16x8.splat(<i16>base);
      for (let k: usize = 0; k < <usize>whole; k += 8) {
        const symbol = i16x8.shr_u(v128.load(from + (k << 1)), 8);
        if (kind == 2) v128.store64_lane(out + k, i8x16.narrow_i16x8_u(symbol, symbol), 0);
        else v128.store(out + (k << 1), patternsOf(kind, symbol, bases, v128.load(z + (k << 1)), raw, signs, i + k, scratch));
      }
      if (whole < cols) {
        v128.store(scratch, i16x8.shr_u(v128.load(from + (<usize>whole << 1)), 8));
        finishTail(kind, scratch, cols - whole, base, z + (<usize>whole << 1), raw, signs, i + whole, out + (<usize>whole << bits));
      }
      i += cols;
      out += <usize>cols << bits;
    }
  }
  store<u32>(streams, <u32>atA);
  store<u32>(streams, <u32>atB, 4);
  store<u32>(streams, <u32>atC, 8);
  store<u32>(streams, <u32>atD, 12);
  return escapeAt == escapeEnd ? 1 : 0;
}
