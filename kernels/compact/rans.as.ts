// Level `max`, see rans.ts. AssemblyScript, not TypeScript.
import { endsEscapes, finishTail, fromSymbols, openEscapes, putEscapes, rowBase, storeBf16 } from "./symbols.as";

const STATE_MIN: u32 = 65536;
const LANES: i32 = 16;

// Entry of a symbol, 8 bytes: u32 floor(2^32 / frequency) (less one for frequency 1), u16 start, u16 frequency.

// One symbol onto the state at `lane`: the word below `words` is written, and kept when the state was too large. Returns where words begin then.
function put(words: usize, lane: usize, entry: usize): usize {
  let x = load<u32>(lane);
  const frequency = <u32>load<u16>(entry, 6);
  if (x >> 20 >= frequency) {
    words -= 2;
    store<u16>(words, <u16>x);
    x >>= 16;
  }
  store<u32>(lane, ((x / frequency) << 12) + (x % frequency) + <u32>load<u16>(entry, 4));
  return words;
}

// Entries of four symbols.
// @ts-ignore: decorator
@inline
function entryPair(table: usize, a: usize, b: usize): v128 {
  return v128.load64_lane(table + b, v128.load64_zero(table + a), 1);
}

/**
 * rANS, backwards: from the last symbol to the first, words downwards from `words`; up to 8 bytes below them are written.
 *
 * `table`: entries of 8 bytes by symbol byte. `states`: receives sixteen u32. `packs`: by mask of four lanes, 16 bytes: where the words of
 * those lanes lie, as bytes for a swizzle, so that they end at byte 8.
 * @returns where the first word lies.
 */
export function encodeRans(symbols: usize, rows: i32, cols: i32, table: usize, packs: usize, words: usize, states: usize): usize {
  for (let j = 0; j < LANES; j++) store<u32>(states + (j << 2), STATE_MIN);
  const whole = cols & ~15;
  let row = symbols + <usize>(rows - 1) * cols;
  const low = i32x4.splat(0xffff);
  const size = i32x4.splat(4096);
  for (let r = rows - 1; r >= 0; r--) {
    for (let c = cols - 1; c >= whole; c--) words = put(words, states + (<usize>(c & 15) << 2), table + (<usize>load<u8>(row + c) << 3));
    if (whole > 0) {
      let c = whole - 4;
      do {
        const four = <usize>load<u32>(row + c);
        const lane = states + (<usize>(c & 12) << 2);
        const e01 = entryPair(table, (four & 0xff) << 3, (four >> 5) & 0x7f8);
        const e23 = entryPair(table, (four >> 13) & 0x7f8, (four >> 21) & 0x7f8);
        const reciprocal = i32x4.shuffle(e01, e23, 0, 2, 4, 6);
        const facts = i32x4.shuffle(e01, e23, 1, 3, 5, 7);
        const frequency = i32x4.shr_u(facts, 16);
        let x = v128.load(lane);
        const over = i32x4.ge_s(i32x4.shr_u(x, 20), frequency);
        const mask = i32x4.bitmask(over);
        v128.store64_lane(words - 8, v128.swizzle(x, v128.load(packs + (<usize>mask << 4))), 0);
        words -= <usize>popcnt(mask) << 1;
        x = v128.bitselect(i32x4.shr_u(x, 16), x, over);
        // The quotient is right or one too small.
        const quotient = i8x16.shuffle(
          i64x2.extmul_low_i32x4_u(x, reciprocal), i64x2.extmul_high_i32x4_u(x, reciprocal),
          4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31,
        );
        const rest = i32x4.sub(x, i32x4.mul(quotient, frequency));
        const more = v128.and(i32x4.ge_s(rest, frequency), i32x4.sub(size, frequency));
        v128.store(lane, i32x4.add(i32x4.add(i32x4.shl(quotient, 12), rest), i32x4.add(v128.and(facts, low), more)));
        c -= 4;
      } while (c >= 0);
    }
    row -= cols;
  }
  return words;
}

// Entries of four lanes. `places`: i32, where each lane's table lies. Entry by slot, u32: frequency << 20 | (slot - start) << 8 | symbol.
// @ts-ignore: decorator
@inline
function lookUp(x: v128, places: v128): v128 {
  const at = i32x4.add(i32x4.shl(v128.and(x, i32x4.splat(4095)), 2), places);
  const low = i64x2.extract_lane(at, 0);
  const high = i64x2.extract_lane(at, 1);
  let e = v128.load32_zero(<usize>low);
  e = v128.load32_lane(<usize>(low >> 32), e, 1);
  e = v128.load32_lane(<usize>high, e, 2);
  return v128.load32_lane(<usize>(high >> 32), e, 3);
}

// @ts-ignore: decorator
@inline
function step(x: v128, e: v128): v128 {
  return i32x4.add(i32x4.mul(i32x4.shr_u(e, 20), i32x4.shr_u(x, 12)), v128.and(i32x4.shr_u(e, 8), i32x4.splat(0xfff)));
}

// @ts-ignore: decorator
@inline
function isSmall(x: v128): v128 {
  return i32x4.eq(i32x4.shr_u(x, 16), i32x4.splat(0));
}

// @ts-ignore: decorator
@inline
function refill(x: v128, small: v128, mask: i32, words: usize, shuffles: usize): v128 {
  const w = v128.swizzle(v128.load64_zero(words), v128.load(shuffles + (<usize>mask << 4)));
  return v128.bitselect(v128.or(i32x4.shl(x, 16), w), x, small);
}

/**
 * Decodes `rows` rows of a block.
 *
 * `offsets`: u16 by (row class mod 4) and column, table * 16384; `zeros` as in `toSymbols`; `stride` of both.
 * `tables`: entries by table and slot. `shuffles`: 16 vectors: where lane j of a mask finds its word, 0x80 for none.
 * `raw`, `signs`: see `rawEight`. `scratch`: 96 bytes. `states`: sixteen u32, replaced by the last ones.
 * Reads at most two bytes an element from `words` on.
 * @returns where the words end; 0 when the escapes do not end with the elements.
 */
export function decodeRans(
  words: usize, states: usize, rows: i32, cols: i32, kind: i32, rowClasses: usize, zeros: usize, offsets: usize, stride: i32, tables: usize, shuffles: usize,
  raw: usize, signs: usize, escapes: usize, escapeBytes: i32, scratch: usize, out: usize,
): usize {
  openEscapes(escapes, escapeBytes);
  let x0 = v128.load(states), x1 = v128.load(states, 16), x2 = v128.load(states, 32), x3 = v128.load(states, 48);
  const whole = cols & ~15;
  const bits: usize = kind == 2 ? 0 : 1;
  const low = i32x4.splat(0xff), tableBase = i32x4.splat(<i32>tables);
  let i: usize = 0;
  for (let r = 0; r < rows; r++) {
    const q = <i32>load<i16>(rowClasses + (<usize>r << 1));
    const z = zeros + <usize>((q & 3) * stride) * 2;
    const o = offsets + <usize>((q & 3) * stride) * 2;
    const base = rowBase(q);
    const bases = i16x8.splat(<i16>base);
    let c: usize = 0;
    while (kind == 0 && c < <usize>whole) {
      // Escapes are looked for in the condition: a loop of one block keeps its constants in registers, and putting elements together fills the time that states wait.
      let found: i32;
      do {
        const e0 = lookUp(x0, i32x4.add(tableBase, v128.load16x4_u(o + (c << 1))));
        const e1 = lookUp(x1, i32x4.add(tableBase, v128.load16x4_u(o + (c << 1), 8)));
        const e2 = lookUp(x2, i32x4.add(tableBase, v128.load16x4_u(o + (c << 1), 16)));
        const e3 = lookUp(x3, i32x4.add(tableBase, v128.load16x4_u(o + (c << 1), 24)));
        x0 = step(x0, e0);
        x1 = step(x1, e1);
        x2 = step(x2, e2);
        x3 = step(x3, e3);
        let small = isSmall(x0);
        let mask = i32x4.bitmask(small);
        x0 = refill(x0, small, mask, words, shuffles);
        words += <usize>popcnt(mask) << 1;
        small = isSmall(x1);
        mask = i32x4.bitmask(small);
        x1 = refill(x1, small, mask, words, shuffles);
        words += <usize>popcnt(mask) << 1;
        small = isSmall(x2);
        mask = i32x4.bitmask(small);
        x2 = refill(x2, small, mask, words, shuffles);
        words += <usize>popcnt(mask) << 1;
        small = isSmall(x3);
        mask = i32x4.bitmask(small);
        x3 = refill(x3, small, mask, words, shuffles);
        words += <usize>popcnt(mask) << 1;
        const a = i16x8.narrow_i32x4_u(v128.and(e0, low), v128.and(e1, low));
        const b = i16x8.narrow_i32x4_u(v128.and(e2, low), v128.and(e3, low));
        found = storeBf16(i8x16.narrow_i16x8_u(a, b), bases, z + (c << 1), raw + i + c, out + (c << 1));
        c += 16;
      } while (((found - 1) & (<i32>c - whole)) < 0);
      if (found != 0) putEscapes(found, base, z + ((c - 16) << 1), out + ((c - 16) << 1));
    }
    // Symbols of f16 wait in the second half of where the row's elements go: those are written from the first on, and never reach one that is still to be read.
    const symbols = out + (<usize>cols << bits) - <usize>cols;
    for (; c < <usize>whole; c += 16) {
      const e0 = lookUp(x0, i32x4.add(tableBase, v128.load16x4_u(o + (c << 1))));
      const e1 = lookUp(x1, i32x4.add(tableBase, v128.load16x4_u(o + (c << 1), 8)));
      const e2 = lookUp(x2, i32x4.add(tableBase, v128.load16x4_u(o + (c << 1), 16)));
      const e3 = lookUp(x3, i32x4.add(tableBase, v128.load16x4_u(o + (c << 1), 24)));
      x0 = step(x0, e0);
      x1 = step(x1, e1);
      x2 = step(x2, e2);
      x3 = step(x3, e3);
      let small = isSmall(x0);
      let mask = i32x4.bitmask(small);
      x0 = refill(x0, small, mask, words, shuffles);
      words += <usize>popcnt(mask) << 1;
      small = isSmall(x1);
      mask = i32x4.bitmask(small);
      x1 = refill(x1, small, mask, words, shuffles);
      words += <usize>popcnt(mask) << 1;
      small = isSmall(x2);
      mask = i32x4.bitmask(small);
      x2 = refill(x2, small, mask, words, shuffles);
      words += <usize>popcnt(mask) << 1;
      small = isSmall(x3);
      mask = i32x4.bitmask(small);
      x3 = refill(x3, small, mask, words, shuffles);
      words += <usize>popcnt(mask) << 1;
      const a = i16x8.narrow_i32x4_u(v128.and(e0, low), v128.and(e1, low));
      const b = i16x8.narrow_i32x4_u(v128.and(e2, low), v128.and(e3, low));
      v128.store(symbols + c, i8x16.narrow_i16x8_u(a, b));
    }
    if (kind == 1) fromSymbols(symbols, whole, base, z, raw, signs, i, scratch, out);
    if (whole < cols) {
      v128.store(states, x0);
      v128.store(states, x1, 16);
      v128.store(states, x2, 32);
      v128.store(states, x3, 48);
      for (let c = whole; c < cols; c++) {
        const lane = states + (<usize>(c & 15) << 2);
        let x = load<u32>(lane);
        const e = load<u32>(tables + <usize>load<u16>(o + (<usize>c << 1)) + <usize>((x & 4095) << 2));
        x = (e >> 20) * (x >> 12) + ((e >> 8) & 0xfff);
        if (x < STATE_MIN) {
          x = (x << 16) | <u32>load<u16>(words);
          words += 2;
        }
        store<u32>(lane, x);
        store<u16>(scratch + 48 + (<usize>(c & 15) << 1), <u16>(e & 0xff));
      }
      x0 = v128.load(states);
      x1 = v128.load(states, 16);
      x2 = v128.load(states, 32);
      x3 = v128.load(states, 48);
      finishTail(kind, scratch + 48, cols - whole, base, z + (<usize>whole << 1), raw, signs, i + whole, out + (<usize>whole << bits));
    }
    i += cols;
    out += <usize>cols << bits;
  }
  v128.store(states, x0);
  v128.store(states, x1, 16);
  v128.store(states, x2, 32);
  v128.store(states, x3, 48);
  return endsEscapes() ? words : 0;
}
