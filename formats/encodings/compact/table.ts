/**
 * Tables of the two levels, made from frequencies that sum to 4096: cumulative counts for rANS,
 * canonical codes of at most 12 bits for Huffman.
 * @module
 */
import { TABLE_BITS, TABLE_SIZE } from "./frequencies.ts";

/** One symbol alphabet, ready to code with. Symbols of frequency 0 cannot occur. */
export interface CodeTable {
  /** By symbol; the sum is 4096, each at most 4095. */
  readonly frequencies: Uint16Array;
  /** By symbol: sum of the frequencies before it. */
  readonly starts: Uint16Array;
  /** By symbol: bits of the Huffman code, 0 for a symbol that cannot occur. */
  readonly lengths: Uint8Array;
  /** By symbol: the Huffman code, first bit lowest. */
  readonly codes: Uint16Array;
  /** By the next 12 bits (first bit lowest): symbol * 256 + length. */
  readonly byBits: Uint16Array;
  /** By rANS slot: symbol. */
  readonly bySlot: Uint8Array;
}

/**
 * @param frequencies - sum 4096, at least two of them not 0.
 * @param codeLengths - of the Huffman codes; from the frequencies when absent.
 */
export function createCodeTable(frequencies: readonly number[] | Uint16Array, codeLengths?: readonly number[]): CodeTable {
  const count = frequencies.length;
  const starts = new Uint16Array(count);
  const bySlot = new Uint8Array(TABLE_SIZE);
  let at = 0;
  for (let s = 0; s < count; s++) {
    starts[s] = at;
    bySlot.fill(s, at, at + frequencies[s]!);
    at += frequencies[s]!;
  }
  const lengths = codeLengths === undefined ? limitedLengths(frequencies, TABLE_BITS) : Uint8Array.from(codeLengths);
  const { codes, byBits } = canonicalCodes(lengths);
  return { frequencies: Uint16Array.from(frequencies), starts, lengths, codes, byBits, bySlot };
}

/**
 * Code lengths of at most `limit` bits with the least total (package-merge, Larmore and Hirschberg 1990).
 * Ties: equal weights keep the order of symbols, and symbols go before packages.
 */
export function limitedLengths(frequencies: readonly number[] | Uint16Array, limit: number): Uint8Array {
  const items: { weight: number; symbols: readonly number[] }[] = [];
  for (let s = 0; s < frequencies.length; s++) if (frequencies[s]! > 0) items.push({ weight: frequencies[s]!, symbols: [s] });
  items.sort((a, b) => a.weight - b.weight || a.symbols[0]! - b.symbols[0]!);
  let list = items;
  for (let level = 1; level < limit; level++) {
    const packages: typeof items = [];
    for (let i = 0; i + 1 < list.length; i += 2) {
      const [a, b] = [list[i]!, list[i + 1]!];
      packages.push({ weight: a.weight + b.weight, symbols: [...a.symbols, ...b.symbols] });
    }
    // The sort is stable: items stay before packages of the same weight.
    list = [...items, ...packages].toSorted((a, b) => a.weight - b.weight);
  }
  const lengths = new Uint8Array(frequencies.length);
  for (const { symbols } of list.slice(0, 2 * items.length - 2)) for (const s of symbols) lengths[s]!++;
  return lengths;
}

/** Canonical codes: by length, then by symbol; the first bit of a code is the lowest of its number. @param lengths - at most 12, of a complete code. */
export function canonicalCodes(lengths: Uint8Array): { codes: Uint16Array; byBits: Uint16Array } {
  const codes = new Uint16Array(lengths.length);
  const byBits = new Uint16Array(TABLE_SIZE);
  let code = 0;
  for (let length = 1; length <= TABLE_BITS; length++) {
    code <<= 1;
    for (let s = 0; s < lengths.length; s++) {
      if (lengths[s] !== length) continue;
      let reversed = 0;
      for (let bit = 0; bit < length; bit++) reversed |= ((code >> bit) & 1) << (length - 1 - bit);
      codes[s] = reversed;
      for (let rest = reversed; rest < TABLE_SIZE; rest += 1 << length) byBits[rest] = s * 256 + length;
      code++;
    }
  }
  return { codes, byBits };
}

/**
 * Frequencies for counted symbols: sum 4096, at least 1 where a symbol occurs, chosen to make the coded size least.
 * A single symbol gets a partner, so that no frequency is 4096.
 *
 * @param counts - occurrences by byte, 256 entries, not all 0.
 */
export function fitFrequencies(counts: Float64Array): Uint16Array {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const frequencies = new Uint16Array(256);
  let left = TABLE_SIZE;
  for (let s = 0; s < 256; s++) {
    if (counts[s] === 0) continue;
    frequencies[s] = Math.max(1, Math.floor((counts[s]! / total) * TABLE_SIZE));
    left -= frequencies[s]!;
  }
  if (frequencies.some((frequency) => frequency === TABLE_SIZE)) {
    const only = frequencies.indexOf(TABLE_SIZE);
    frequencies[only] = TABLE_SIZE - 1;
    frequencies[only === 0 ? 1 : 0] = 1;
    return frequencies;
  }
  // What is over goes, one by one, where it saves most; what is missing comes from where it costs least.
  const best = (value: (s: number) => number): number => {
    let found = -1;
    for (let s = 0; s < 256; s++) if (value(s) > -Infinity && (found < 0 || value(s) > value(found))) found = s;
    return found;
  };
  for (; left > 0; left--) {
    frequencies[best((s) => (counts[s]! > 0 ? counts[s]! / frequencies[s]! : -Infinity))]!++;
  }
  for (; left < 0; left++) {
    frequencies[best((s) => (frequencies[s]! > 1 ? -counts[s]! / (frequencies[s]! - 1) : -Infinity))]!--;
  }
  return frequencies;
}
