/**
 * DFloat11 decoder that trusts nothing: every index is checked, every loop
 * bounded, and the stream must agree with its own gaps and positions.
 *
 * This is the definition; `kernels/df11` has the fast twins.
 * Source: the kernel's description in DFloat11 0.5.0 `decode.cu`, read sequentially.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import {
  BLOCK_BYTES,
  BYTES_PER_THREAD,
  FIRST_POINTER,
  GAP_BYTES_PER_BLOCK,
  joinPattern,
  MAX_CODE_BITS,
  MAX_DECODE_ROWS,
  THREADS_PER_BLOCK,
  type Df11Unit,
} from "./fields.ts";

/** What is known of a unit before its streams are read: their lengths and the small tensors. */
export interface Df11Structure extends Omit<Df11Unit, "encodedExponent" | "signMantissa"> {
  readonly encodedExponent: { readonly length: number };
  readonly signMantissa: { readonly length: number };
}

/**
 * Structure of a unit: everything that can be checked without decoding.
 *
 * @param name - the unit's module path, for messages.
 * @throws {FormatError} `format.field` / `format.truncated`
 */
export function checkUnit(name: string, unit: Df11Structure): void {
  const { luts, encodedExponent, signMantissa, outputPositions, gaps, splitPositions } = unit;
  const fail = (text: string): FormatError => new FormatError("format.field", `DFloat11 unit ${name}: ${text}`, { unit: name });
  const rows = luts.length / 256;
  if (!Number.isInteger(rows) || rows < 2 || rows > MAX_DECODE_ROWS + 1)
    throw fail(`luts has ${luts.length} values, must be 2 to ${MAX_DECODE_ROWS + 1} rows of 256`);
  const lengths = luts.subarray((rows - 1) * 256);
  for (let i = 0; i < (rows - 1) * 256; i++) {
    const value = luts[i]!;
    if (value >= FIRST_POINTER) {
      const target = 256 - value;
      // Pointers only lead down, so following them ends.
      if (target > rows - 2 || target <= Math.floor(i / 256))
        throw fail(`luts[${Math.floor(i / 256)}][${i % 256}] points to row ${target} of ${rows - 1}`);
    } else if (lengths[value] === 0) throw fail(`luts[${Math.floor(i / 256)}][${i % 256}] is exponent ${value}, which has no code length`);
  }
  for (let e = 0; e < 256; e++)
    if (lengths[e]! > MAX_CODE_BITS) throw fail(`exponent ${e} has a code of ${lengths[e]} bits, at most ${MAX_CODE_BITS}`);
  const blocks = Math.ceil(encodedExponent.length / BLOCK_BYTES);
  if (outputPositions.length !== blocks + 1)
    throw fail(`output_positions has ${outputPositions.length} entries for ${blocks} blocks, must be ${blocks + 1}`);
  if (gaps.length !== blocks * GAP_BYTES_PER_BLOCK)
    throw fail(`gaps has ${gaps.length} bytes for ${blocks} blocks, must be ${blocks * GAP_BYTES_PER_BLOCK}`);
  if (outputPositions[0] !== 0) throw fail(`output_positions starts at ${outputPositions[0]}, must be 0`);
  for (let b = 1; b <= blocks; b++) {
    if (outputPositions[b]! < outputPositions[b - 1]!)
      throw fail(`output_positions falls from ${outputPositions[b - 1]} to ${outputPositions[b]} at block ${b}`);
  }
  if (outputPositions[blocks] !== signMantissa.length)
    throw fail(`output_positions ends at ${outputPositions[blocks]}, sign_mantissa has ${signMantissa.length}`);
  splitPositions.forEach((position, i) => {
    const previous = i === 0 ? 0 : splitPositions[i - 1]!;
    if (!Number.isSafeInteger(position) || position < previous || position > signMantissa.length) {
      throw fail(`split_positions[${i}] is ${position}, must rise from ${previous} to at most ${signMantissa.length}`);
    }
  });
}

/**
 * Decode one unit.
 *
 * @param name - the unit's module path, for messages.
 * @returns bf16 bit patterns, one an element.
 * @throws {FormatError} `format.field` when the structure or the stream disagrees with itself.
 */
export function decodeUnit(name: string, unit: Df11Unit): Uint16Array {
  checkUnit(name, unit);
  const { luts, encodedExponent, signMantissa, outputPositions, gaps } = unit;
  const lengths = luts.subarray(luts.length - 256);
  const out = new Uint16Array(signMantissa.length);
  const windowBits = 8 * BYTES_PER_THREAD;
  const totalBits = 8 * encodedExponent.length;
  const fail = (text: string): FormatError => new FormatError("format.field", `DFloat11 unit ${name}: ${text}`, { unit: name });
  let at = 0;
  let window = -1;
  for (let i = 0; i < out.length; i++) {
    if (at >= totalBits) throw fail(`the stream ends at element ${i} of ${out.length}`);
    const here = Math.floor(at / windowBits);
    if (here !== window) {
      // The first code of each window must be where the gap says; no window is skipped, since codes are at most 32 bits.
      if (gapAt(gaps, here) !== at % windowBits)
        throw fail(`element ${i} starts at bit ${at % windowBits} of window ${here}, its gap says ${gapAt(gaps, here)}`);
      if (here % THREADS_PER_BLOCK === 0 && outputPositions[here / THREADS_PER_BLOCK] !== i) {
        throw fail(
          `block ${here / THREADS_PER_BLOCK} starts at element ${i}, output_positions says ${outputPositions[here / THREADS_PER_BLOCK]}`,
        );
      }
      window = here;
    }
    let row = 0;
    let value = luts[byteAt(encodedExponent, at)]!;
    for (let hop = 1; value >= FIRST_POINTER; hop++) {
      if (hop > 3) throw fail(`element ${i} follows more than three pointers`);
      row = 256 - value;
      value = luts[row * 256 + byteAt(encodedExponent, at + 8 * hop)]!;
    }
    out[i] = joinPattern(value, signMantissa[i]!);
    at += lengths[value]!;
  }
  if (Math.ceil(at / 8) !== encodedExponent.length)
    throw fail(`${out.length} elements take ${Math.ceil(at / 8)} bytes of the stream, it has ${encodedExponent.length}`);
  return out;
}

/** Eight bits from bit `at`, zeros after the end. */
function byteAt(stream: Uint8Array, at: number): number {
  const index = Math.floor(at / 8);
  const pair = ((stream[index] ?? 0) << 8) | (stream[index + 1] ?? 0);
  return (pair >> (8 - (at % 8))) & 0xff;
}

/** Bit at which the first code of a 64-bit window starts, 0 to 31. */
export function gapAt(gaps: Uint8Array, window: number): number {
  const index = Math.floor((5 * window) / 8);
  const pair = ((gaps[index] ?? 0) << 8) | (gaps[index + 1] ?? 0);
  return (pair >> (11 - ((5 * window) % 8))) & 31;
}
