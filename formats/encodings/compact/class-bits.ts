/**
 * Classes in bytes: lists of small integers, each list in the shorter of two ways. Bits go from the lowest of a byte to the highest.
 *
 * Parameter 0 to 7, Rice codes: each value minus the base, folded to 0, 1, 2, … for 0, -1, 1, …; then v >> k ones, a zero, and the low k bits, lowest first.
 * Parameter 15, a canonical code of at most 12 bits: 8 bits n - 1, four bits for each of the lengths of base, base + 1, … base + n - 1
 * (0: does not occur), then the codes, as in `table.ts`.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import { TABLE_BITS, TABLE_SIZE } from "./frequencies.ts";
import { canonicalCodes, limitedLengths } from "./table.ts";

/** The parameter that stands for a canonical code. */
export const CANONICAL = 15;
/** Parameters of Rice codes are below this. */
const RICE_LIMIT = 8;
/** A longer run of ones means a broken file. */
const MAX_RUN = 2048;
const MAX_SYMBOLS = 256;

const fold = (d: number): number => (d >= 0 ? 2 * d : -2 * d - 1);
const unfold = (v: number): number => (v % 2 === 0 ? v / 2 : -(v + 1) / 2);

export interface ClassCode {
  readonly base: number;
  /** 0 to 7 or `CANONICAL`. */
  readonly parameter: number;
  /** Of a canonical code: lengths from the base on. */
  readonly lengths?: Uint8Array;
}

/** The way with the fewest bits; the first of equals, Rice codes before the canonical one. */
export function chooseClassCode(values: Int16Array): ClassCode {
  let low = values[0] ?? 0;
  let high = low;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const counts = Array.from({ length: high - low + 1 }, () => 0);
  for (const value of values) counts[value - low]!++;
  const base = low + medianIndex(counts, Math.floor(values.length / 2));
  let best: ClassCode = { base, parameter: 0 };
  let least = Infinity;
  for (let k = 0; k < RICE_LIMIT; k++) {
    let bits = values.length * (k + 1);
    for (const [i, count] of counts.entries()) bits += count * (fold(low + i - base) >> k);
    if (bits < least) {
      least = bits;
      best = { base, parameter: k };
    }
  }
  // A single value would have a code of no bits; what is read back must take some.
  if (high === low || high - low >= MAX_SYMBOLS) return best;
  const lengths = limitedLengths(counts, TABLE_BITS);
  let bits = 8 + 4 * counts.length;
  counts.forEach((count, s) => (bits += count * lengths[s]!));
  return bits < least ? { base: low, parameter: CANONICAL, lengths } : best;
}

/** Where the `rank`-th lies, counted from 0. */
function medianIndex(counts: readonly number[], rank: number): number {
  let before = 0;
  const found = counts.findIndex((count) => (before += count) > rank);
  return Math.max(0, found);
}

/** The lists one after the other, in whole words of four bytes. */
export function encodeClasses(lists: readonly (readonly [Int16Array, ClassCode])[]): Uint8Array {
  const bytes: number[] = [];
  let held = 0;
  let count = 0;
  const put = (value: number, bits: number): void => {
    for (let bit = 0; bit < bits; bit++) {
      held |= ((value >> bit) & 1) << count++;
      if (count < 8) continue;
      bytes.push(held);
      held = 0;
      count = 0;
    }
  };
  for (const [values, { base, parameter, lengths }] of lists) {
    if (lengths === undefined) {
      for (const value of values) {
        const v = fold(value - base);
        for (let i = v >> parameter; i > 0; i--) put(1, 1);
        put(0, 1);
        put(v, parameter);
      }
      continue;
    }
    put(lengths.length - 1, 8);
    for (const length of lengths) put(length, 4);
    const { codes } = canonicalCodes(lengths);
    for (const value of values) put(codes[value - base]!, lengths[value - base]!);
  }
  if (count > 0) bytes.push(held);
  while (bytes.length % 4 !== 0) bytes.push(0);
  return Uint8Array.from(bytes);
}

/** Reads classes back, list by list. */
export interface ClassReader {
  /** @throws {FormatError} `format.truncated`; `format.field` for a value outside min..max or a code that is none. */
  read(count: number, code: Pick<ClassCode, "base" | "parameter">, min: number, max: number): Int16Array;
  /** Bytes used so far, in whole words. */
  used(): number;
}

/** @param name - the tensor, for messages. */
export function readClasses(name: string, bytes: Uint8Array): ClassReader {
  let at = 0;
  const fail = (text: string): FormatError => new FormatError("format.field", `tensor ${name}: ${text}`, { tensor: name });
  const peek = (): number => {
    const i = at >> 3;
    return ((bytes[i] ?? 0) | ((bytes[i + 1] ?? 0) << 8) | ((bytes[i + 2] ?? 0) << 16)) >> (at & 7);
  };
  const skip = (bits: number): void => {
    at += bits;
    if (at <= 8 * bytes.length) return;
    throw new FormatError("format.truncated", `tensor ${name}: its classes end after ${bytes.length} bytes`, { tensor: name });
  };
  const take = (bits: number): number => {
    const value = peek() & ((1 << bits) - 1);
    skip(bits);
    return value;
  };
  const readRice = (k: number): number => {
    let v = 0;
    while (take(1) === 1) if (++v > MAX_RUN) throw fail("a class has no end");
    return unfold(v * 2 ** k + take(k));
  };
  const readCode = (): (() => number) => {
    const lengths = Uint8Array.from({ length: take(8) + 1 }, () => take(4));
    let space = 0;
    for (const length of lengths) if (length > 0) space += length > TABLE_BITS ? Infinity : TABLE_SIZE >> length;
    if (space !== TABLE_SIZE) throw fail("the lengths of its class codes fit no code");
    const { byBits } = canonicalCodes(lengths);
    return () => {
      const entry = byBits[peek() & (TABLE_SIZE - 1)]!;
      skip(entry & 0xff);
      return entry >> 8;
    };
  };
  return {
    read(count, { base, parameter }, min, max) {
      if (parameter >= RICE_LIMIT && parameter !== CANONICAL) throw fail(`class parameter ${parameter} is unknown`);
      const next = parameter === CANONICAL ? readCode() : (): number => readRice(parameter);
      const values = new Int16Array(count);
      for (let i = 0; i < count; i++) {
        const value = base + next();
        if (value < min || value > max) throw fail(`class ${i} is ${value}, outside ${min}..${max}`);
        values[i] = value;
      }
      return values;
    },
    used: () => 4 * Math.ceil(at / 32),
  };
}
