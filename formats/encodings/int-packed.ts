/**
 * int-packed: signed integer codes of 1 to 8 bits as a dense little-endian bit stream in 32-bit words.
 *
 *   row r        ceil(cols · b / 32) words, I32 little-endian, from word r · ceil(cols · b / 32)
 *   code i       bits [i · b, i · b + b) of the row's stream, bit 0 of byte 0 first
 *   stored as    u = code + 2^(b-1), offset binary: the smallest code is 0
 *   padding      bits after the last code of a row are 0
 *
 * A code may lie across two words when b does not divide 32; 32 codes take exactly b words.
 * For b = 4 this is the classic eight codes a word, first code in the lowest nibble.
 *
 * Source: compressed-tensors 0.19 `pack_to_int32`. Releases before dense packing put only
 * floor(32 / b) codes of 3, 5, 6 or 7 bits into a word: {@link legacyWords} tells them apart.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { packBits, unpackBits } from "../../core/pack.ts";
import type { CodeEncoding } from "./encoding.ts";

const WORD_BITS = 32;
const WORD_BYTES = 4;

/** Words of one row. */
export function packedWords(cols: number, bits: number): number {
  return Math.ceil((cols * bits) / WORD_BITS);
}

/** Words of one row in releases that did not split codes across words. */
export function legacyWords(cols: number, bits: number): number {
  return Math.ceil(cols / Math.floor(WORD_BITS / bits));
}

/**
 * Pack rows of signed codes.
 *
 * @param codes - each in [-2^(bits-1), 2^(bits-1) - 1], row-major [rows, cols].
 * @param bits - 1 to 8.
 * @returns I32 words [rows, packedWords(cols, bits)] as bytes.
 * @throws {InputError} `input.option` for another width, `input.shape`, `input.value` as {@link CodeEncoding.encode}.
 */
export function packRows(codes: Int8Array, rows: number, cols: number, bits: number): Uint8Array {
  checkWidth(bits);
  checkCount("codes", codes.length, rows * cols);
  const offset = 2 ** (bits - 1);
  const rowBytes = packedWords(cols, bits) * WORD_BYTES;
  const out = new Uint8Array(rows * rowBytes);
  const shifted = new Uint8Array(cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const u = codes[r * cols + c]! + offset;
      if (u < 0 || u >= 2 * offset) {
        throw new InputError("input.value", `code ${u - offset} at [${r}, ${c}] does not fit ${bits} bits`, { row: r, col: c, bits });
      }
      shifted[c] = u;
    }
    packBits(shifted, bits, out.subarray(r * rowBytes, (r + 1) * rowBytes));
  }
  return out;
}

/** The inverse of {@link packRows}. @param out - receives rows · cols signed codes. */
export function unpackRows(bytes: Uint8Array, rows: number, cols: number, bits: number, out: Int8Array): void {
  checkWidth(bits);
  checkCount("out", out.length, rows * cols);
  const rowBytes = packedWords(cols, bits) * WORD_BYTES;
  checkCount("bytes", bytes.length, rows * rowBytes);
  const offset = 2 ** (bits - 1);
  for (let r = 0; r < rows; r++) {
    const row = out.subarray(r * cols, (r + 1) * cols);
    // Codes up to 255 pass through an Int8Array modulo 256; the subtraction below undoes it.
    unpackBits(bytes.subarray(r * rowBytes, (r + 1) * rowBytes), bits, row);
    for (let c = 0; c < cols; c++) row[c] = row[c]! - offset;
  }
}

/**
 * Pack down the rows: word [w, c] holds codes of column c. How compressed-tensors stores zero points.
 *
 * @param codes - signed, row-major [rows, cols].
 * @returns I32 words [packedWords(rows, bits), cols] as bytes.
 */
export function packColumns(codes: Int8Array, rows: number, cols: number, bits: number): Uint8Array {
  checkCount("codes", codes.length, rows * cols);
  const packed = packRows(transposed(codes, rows, cols), cols, rows, bits);
  return transposeWords(packed, cols, packedWords(rows, bits));
}

/** The inverse of {@link packColumns}. @param out - receives rows · cols signed codes, row-major. */
export function unpackColumns(bytes: Uint8Array, rows: number, cols: number, bits: number, out: Int8Array): void {
  const words = packedWords(rows, bits);
  checkCount("bytes", bytes.length, words * cols * WORD_BYTES);
  checkCount("out", out.length, rows * cols);
  const columns = new Int8Array(rows * cols);
  unpackRows(transposeWords(bytes, words, cols), cols, rows, bits, columns);
  out.set(transposed(columns, cols, rows));
}

function transposed(source: Int8Array, rows: number, cols: number): Int8Array {
  const out = new Int8Array(source.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = source[r * cols + c]!;
  return out;
}

function transposeWords(bytes: Uint8Array, rows: number, cols: number): Uint8Array {
  const out = new Uint8Array(bytes.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const at = (r * cols + c) * WORD_BYTES;
      out.set(bytes.subarray(at, at + WORD_BYTES), (c * rows + r) * WORD_BYTES);
    }
  }
  return out;
}

function checkWidth(bits: number): void {
  if (!Number.isInteger(bits) || bits < 1 || bits > 8) throw new InputError("input.option", `bits (${bits}) must be 1 to 8`, { bits });
}

function checkCount(what: string, found: number, expected: number): void {
  if (found !== expected) throw new InputError("input.shape", `${what} has ${found} elements, expected ${expected}`, { found, expected });
}

/** The encoding for one width. @param bits - 1 to 8. */
export function intPacked(bits: number): CodeEncoding {
  checkWidth(bits);
  return {
    name: `int-packed-${bits}`,
    source: "compressed-tensors 0.19 pack_to_int32",
    dtype: "I32",
    bits,
    storedCols: (cols) => packedWords(cols, bits),
    encode: (codes, rows, cols) => packRows(asSigned(codes), rows, cols, bits),
    decode: (bytes, rows, cols, out) => unpackRows(bytes, rows, cols, bits, asSigned(out)),
  };
}

/** A view with signed elements over the same bytes. */
function asSigned(codes: Int8Array | Uint8Array): Int8Array {
  return codes instanceof Int8Array ? codes : new Int8Array(codes.buffer, codes.byteOffset, codes.length);
}
