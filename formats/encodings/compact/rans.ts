/**
 * Level `max`: rANS with sixteen states of 32 bits, tables of 12 bits, words of 16 bits. State c mod 16 codes column c of every row.
 * @module
 */
import { TABLE_BITS, TABLE_SIZE } from "./frequencies.ts";
import { tableOf, type TensorModel } from "./symbols.ts";

export const LANES = 16;
/** States lie in 2^16 .. 2^32 - 1. */
export const STATE_MIN = 65536;

/** From the last symbol to the first: a decoder goes the other way. @returns states to begin with, and words in reading order. */
export function encodeRans(
  model: TensorModel,
  symbols: Uint8Array,
  firstRow: number,
  rows: number,
  cols: number,
): { readonly states: Uint32Array; readonly words: Uint8Array } {
  const states = new Uint32Array(LANES).fill(STATE_MIN);
  const words: number[] = [];
  for (let r = rows - 1; r >= 0; r--) {
    for (let c = cols - 1; c >= 0; c--) {
      const { frequencies, starts } = tableOf(model, firstRow + r, c);
      const symbol = symbols[r * cols + c]!;
      const frequency = frequencies[symbol]!;
      let x = states[c % LANES]!;
      if (x >= frequency * 2 ** 20) {
        words.push(x % 65536);
        x = Math.floor(x / 65536);
      }
      states[c % LANES] = Math.floor(x / frequency) * TABLE_SIZE + (x % frequency) + starts[symbol]!;
    }
  }
  return { states, words: new Uint8Array(Uint16Array.from(words.toReversed()).buffer) };
}

/** @returns the symbols; undefined when states, words and elements do not end together. @param words - up to three bytes of padding behind them. */
export function decodeRans(
  model: TensorModel,
  states: Uint32Array,
  words: Uint8Array,
  firstRow: number,
  rows: number,
  cols: number,
): Uint8Array | undefined {
  const symbols = new Uint8Array(rows * cols);
  let at = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const { bySlot, frequencies, starts } = tableOf(model, firstRow + r, c);
      const x = states[c % LANES]!;
      const slot = x % TABLE_SIZE;
      const symbol = bySlot[slot]!;
      let next = frequencies[symbol]! * (x >>> TABLE_BITS) + slot - starts[symbol]!;
      if (next < STATE_MIN) {
        next = next * 65536 + (words[at] ?? 0) + 256 * (words[at + 1] ?? 0);
        at += 2;
      }
      states[c % LANES] = next;
      symbols[r * cols + c] = symbol;
    }
  }
  const isDone = at <= words.length && words.length - at < 4 && states.every((state) => state === STATE_MIN);
  return isDone ? symbols : undefined;
}
