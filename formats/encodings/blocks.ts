/**
 * Codes of block formats as rows of bits: mantissas of BFP and MXINT8, elements of MXFP8, MXFP6, MXFP4 and NVFP4.
 *
 *   row r     ceil(cols * b / 8) bytes, from byte r * ceil(cols * b / 8)
 *   code i    bits [i * b, i * b + b) of the row, bit 0 of byte 0 first
 *   integers  two's complement of b bits; floats: the bit pattern, sign highest
 *   padding   bits after the last code of a row are 0
 *
 * So 8-bit mantissas are plain signed bytes, 16-bit ones little-endian i16, 4-bit codes two a byte with the first in the
 * low nibble: what dot products read without unpacking. MXFP4 and NVFP4 are those of compressed-tensors 0.19 `pack_fp4_to_uint8`.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { packBits, packedLength, unpackBits } from "../../core/pack.ts";
import type { CodeEncoding } from "./encoding.ts";

type BlockCodes = Int8Array | Int16Array | Uint8Array;

function check(what: string, found: number, expected: number): void {
  if (found !== expected) throw new InputError("input.shape", `${what} has ${found} elements, expected ${expected}`, { found, expected });
}

/**
 * @param codes - integers in [-2^(bits-1), 2^(bits-1)) or bit patterns in [0, 2^bits), row-major [rows, cols].
 * @param bits - 2 to 16.
 * @throws {InputError} `input.shape`; `input.value` for a code that does not fit.
 */
export function packElements(codes: BlockCodes, rows: number, cols: number, bits: number): Uint8Array {
  check("codes", codes.length, rows * cols);
  const isSigned = !(codes instanceof Uint8Array);
  const [low, high] = isSigned ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
  const mask = 2 ** bits - 1;
  const rowBytes = packedLength(cols, bits);
  const out = new Uint8Array(rows * rowBytes);
  const row = new Uint16Array(cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const code = codes[r * cols + c]!;
      if (code < low || code > high) {
        throw new InputError("input.value", `code ${code} at [${r}, ${c}] does not fit ${bits} bits`, { row: r, col: c, bits });
      }
      row[c] = code & mask;
    }
    packBits(row, bits, out.subarray(r * rowBytes, (r + 1) * rowBytes));
  }
  return out;
}

/** Bit patterns of float elements. @throws {InputError} `input.shape`. */
export function unpackElements(bytes: Uint8Array, rows: number, cols: number, bits: number): Uint8Array {
  const out = new Uint8Array(rows * cols);
  unpackInto(bytes, rows, cols, bits, out);
  return out;
}

/** Signed mantissas: i8 for at most 8 bits, i16 above. @throws {InputError} `input.shape`. */
export function unpackMantissas(bytes: Uint8Array, rows: number, cols: number, bits: number): Int8Array | Int16Array {
  const out = bits <= 8 ? new Int8Array(rows * cols) : new Int16Array(rows * cols);
  unpackInto(bytes, rows, cols, bits, out);
  const up = 32 - bits;
  for (let i = 0; i < out.length; i++) out[i] = (out[i]! << up) >> up;
  return out;
}

function unpackInto(bytes: Uint8Array, rows: number, cols: number, bits: number, out: BlockCodes): void {
  const rowBytes = packedLength(cols, bits);
  check("bytes", bytes.length, rows * rowBytes);
  for (let r = 0; r < rows; r++) unpackBits(bytes.subarray(r * rowBytes, (r + 1) * rowBytes), bits, out.subarray(r * cols, (r + 1) * cols));
}

function elements(name: string, bits: number, isSigned: boolean, source: string): CodeEncoding {
  return {
    name,
    source,
    dtype: "U8",
    bits,
    storedCols: (cols) => packedLength(cols, bits),
    encode: (codes, rows, cols) =>
      packElements(
        isSigned
          ? new Int8Array(codes.buffer, codes.byteOffset, codes.length)
          : new Uint8Array(codes.buffer, codes.byteOffset, codes.length),
        rows,
        cols,
        bits,
      ),
    decode(bytes, rows, cols, out) {
      check("out", out.length, rows * cols);
      out.set(isSigned ? unpackMantissas(bytes, rows, cols, bits) : unpackElements(bytes, rows, cols, bits));
    },
  };
}

/** BFP mantissas of 2 to 8 bits, and the floats of MX and NVFP4. */
export const blockEncodings: readonly CodeEncoding[] = [
  ...[2, 3, 4, 5, 6, 7, 8].map((bits) => elements(`bfp-${bits}`, bits, true, "arXiv 2403.20137, d-Matrix BFP")),
  elements("mxfp8", 8, false, "OCP MX v1.0"),
  elements("mxfp6", 6, false, "OCP MX v1.0"),
  elements("fp4", 4, false, "OCP MX v1.0; compressed-tensors 0.19 pack_fp4_to_uint8"),
];
