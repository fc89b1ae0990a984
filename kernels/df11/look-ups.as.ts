// Codes by a table: up to six of them a look-up. AssemblyScript, not TypeScript.
import { turn } from "./merge.as";
import { decodeSlow } from "./rows.as";

/** Bits of a code that one look-up sees: 16 KiB of table, half of a small first-level cache. */
const WINDOW: i32 = 11;
/** Exponents of a look-up, at most: bytes 0 to 5 of an entry. */
const SYMBOLS: u64 = 6;
/** Byte 6 of an entry: how many bits its codes have, or LONG. */
export const BITS_SHIFT: u64 = 48;
/** Byte 7 of an entry: how many exponents count. */
export const COUNT_SHIFT: u64 = 56;
/** In an entry whose first code is longer than the window; it has no bits and no exponents. */
export const LONG: u64 = 0x80 << BITS_SHIFT;
/** Where the next bit stands: an index that needs no shift to be one of 8 bytes. */
const UNIT: u64 = 3;

// 57 bits of the turned stream and more from bit `at`, the first one in bit 3, and a one on top: how far it has moved tells how many are used.
// @ts-ignore: decorator
@inline
export function loadMarked(stream: usize, at: u32): u64 {
  return rotr<u64>(load<u64>(stream + (at >> 3)), <u64>(at & 7) - UNIT) | (1 << 63);
}

// @ts-ignore: decorator
@inline
export function lookUp(table: usize, bits: u64): u64 {
  return load<u64>(table + (<usize>bits & (((1 << WINDOW) - 1) << 3)));
}

/** Builds the look-ups at `table`: 2^11 entries of 8 bytes, by the next 11 bits, the first one lowest. */
export function buildTable(luts: usize, rows: i32, table: usize): void {
  for (let index: u64 = 0; index < 1 << WINDOW; index++) {
    let bits: u64 = index << (64 - WINDOW);
    let left: u32 = WINDOW;
    let symbols: u64 = 0;
    let count: u64 = 0;
    while (count < SYMBOLS) {
      const found = decodeSlow(bits, luts, rows);
      const length = found >> 8;
      if (length == 0 || length > left) break;
      // The end symbol's slots repeat a neighbour, so a code may seem to fit bits that are not there yet: both extremes must agree.
      if (decodeSlow(bits | (~(<u64>0) >> <u64>left), luts, rows) != found) break;
      symbols |= (<u64>turn(found)) << (count << 3);
      bits <<= <u64>length;
      left -= length;
      count++;
    }
    let place: usize = 0;
    for (let k = 0; k < WINDOW; k++) place |= <usize>((index >> <u64>k) & 1) << (WINDOW - 1 - k);
    store<u64>(table + (place << 3), count == 0 ? LONG : (<u64>(WINDOW - left) << BITS_SHIFT) | symbols | (count << COUNT_SHIFT));
  }
}
