/**
 * Classes in bytes: each minus a base, folded to 0, 1, 2, … for 0, -1, 1, …, in Rice codes.
 *
 * Bits go from the lowest of a byte to the highest. A value v with parameter k: v >> k ones, a zero, then the low k bits of v, lowest first.
 * A run of ones longer than 2048 means a broken file.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";

const MAX_RUN = 2048;

const fold = (d: number): number => (d >= 0 ? 2 * d : -2 * d - 1);
const unfold = (v: number): number => (v % 2 === 0 ? v / 2 : -(v + 1) / 2);

export interface RiceParameters {
  readonly base: number;
  readonly k: number;
}

/** The base (the median) and the parameter with the fewest bits; the smaller of equals. */
export function chooseRice(values: Int16Array): RiceParameters {
  const base = values.toSorted()[Math.floor(values.length / 2)] ?? 0;
  let best = { k: 0, bits: Infinity };
  for (let k = 0; k < 8; k++) {
    let bits = values.length * (k + 1);
    for (const value of values) bits += fold(value - base) >> k;
    if (bits < best.bits) best = { k, bits };
  }
  return { base, k: best.k };
}

/** The lists one after the other, in whole words of four bytes. */
export function encodeClasses(lists: readonly (readonly [Int16Array, RiceParameters])[]): Uint8Array {
  const bytes: number[] = [];
  let held = 0;
  let count = 0;
  const put = (bit: number): void => {
    held |= bit << count++;
    if (count < 8) return;
    bytes.push(held);
    held = 0;
    count = 0;
  };
  for (const [values, { base, k }] of lists) {
    for (const value of values) {
      const v = fold(value - base);
      for (let i = v >> k; i > 0; i--) put(1);
      put(0);
      for (let bit = 0; bit < k; bit++) put((v >> bit) & 1);
    }
  }
  if (count > 0) bytes.push(held);
  while (bytes.length % 4 !== 0) bytes.push(0);
  return Uint8Array.from(bytes);
}

/** Reads classes back, list by list. */
export interface ClassReader {
  /** @throws {FormatError} `format.truncated`; `format.field` for a value outside min..max. */
  read(count: number, parameters: RiceParameters, min: number, max: number): Int16Array;
  /** Bytes used so far, in whole words. */
  used(): number;
}

/** @param name - the tensor, for messages. */
export function readClasses(name: string, bytes: Uint8Array): ClassReader {
  let at = 0;
  const take = (): number => {
    const byte = bytes[at >> 3];
    if (byte === undefined) {
      throw new FormatError("format.truncated", `tensor ${name}: its classes end after ${bytes.length} bytes`, { tensor: name });
    }
    return (byte >> (at++ & 7)) & 1;
  };
  return {
    read(count, { base, k }, min, max) {
      const values = new Int16Array(count);
      for (let i = 0; i < count; i++) {
        let v = 0;
        while (take() === 1) {
          if (++v > MAX_RUN) throw new FormatError("format.field", `tensor ${name}: class ${i} has no end`, { tensor: name });
        }
        v *= 2 ** k;
        for (let bit = 0; bit < k; bit++) v += take() << bit;
        const value = base + unfold(v);
        if (value < min || value > max) {
          throw new FormatError("format.field", `tensor ${name}: class ${i} is ${value}, outside ${min}..${max}`, { tensor: name });
        }
        values[i] = value;
      }
      return values;
    },
    used: () => 4 * Math.ceil(at / 32),
  };
}
