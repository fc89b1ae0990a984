/**
 * Rows of keys and values as bytes and back, one codec a number format.
 *
 * A row is one head of one token, cut into blocks along its channels; a head that the block does not divide ends in a shorter one
 * (`core/blocks`). Codes are one bit stream a row (`core/pack.ts`), scales follow in a buffer of their own. Everything is per token,
 * so storing a prompt at once or token by token leaves the same bytes.
 * @module
 */
import { blockCount, decodeScales, dequantizeBlocks, encodeScales, quantizeBlocks } from "../../core/blocks/quantize.ts";
import { blockScheme } from "../../core/blocks/format.ts";
import { NumericError } from "../../core/errors.ts";
import { decodeBf16, decodeF16, encodeBf16, encodeF16 } from "../../core/float.ts";
import { packBits, packedLength, unpackBits } from "../../core/pack.ts";
import { clamp, roundHalfEven } from "../../core/round.ts";
import { codeBits } from "../../core/scheme.ts";
import type { KvCode } from "./scheme.ts";

/** Encoded rows: the buffers that a cache holds and counts. */
export interface StoredRows {
  readonly rows: number;
  readonly codes: Uint8Array;
  readonly scales: Uint8Array;
}

/** How rows of one width become bytes. */
interface RowCodec {
  /** Bits of a code, at most 16; 32 = plain f32. */
  readonly bits: number;
  encode(x: Float32Array, rows: number, cols: number): { readonly codes: ArrayLike<number>; readonly scales: Uint8Array };
  decode(codes: Uint16Array, scales: Uint8Array, rows: number, cols: number): Float32Array;
}

/**
 * Encode rows.
 *
 * @param x - finite values, shape [rows, cols]; @param cols - channels of a head.
 * @throws {NumericError} `numeric.not-finite` for NaN and infinity: a stored key that is not a number would spoil every later token.
 */
export function encodeRows(code: KvCode, x: Float32Array, cols: number): StoredRows {
  const bad = x.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    throw new NumericError("numeric.not-finite", `channel ${bad % cols} of a key or value is ${x[bad]}; it cannot be stored`, {
      channel: bad % cols,
    });
  }
  const rows = x.length / cols;
  if (code.kind === "float" && code.dtype === "F32") return { rows, codes: new Uint8Array(x.slice().buffer), scales: new Uint8Array() };
  const codec = codecOf(code);
  const { codes, scales } = codec.encode(x, rows, cols);
  const stride = packedLength(cols, codec.bits);
  const mask = 2 ** codec.bits - 1;
  const packed = new Uint8Array(rows * stride);
  const row = new Uint16Array(cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) row[c] = codes[r * cols + c]! & mask;
    packBits(row, codec.bits, packed.subarray(r * stride, (r + 1) * stride));
  }
  return { rows, codes: packed, scales };
}

/** Values of encoded rows, shape [rows, cols]. */
export function decodeRows(code: KvCode, { rows, codes, scales }: StoredRows, cols: number): Float32Array {
  if (code.kind === "float" && code.dtype === "F32") return new Float32Array(codes.slice().buffer);
  const codec = codecOf(code);
  const stride = packedLength(cols, codec.bits);
  const unpacked = new Uint16Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    unpackBits(codes.subarray(r * stride, (r + 1) * stride), codec.bits, unpacked.subarray(r * cols, (r + 1) * cols));
  }
  return codec.decode(unpacked, scales, rows, cols);
}

function codecOf(code: KvCode): RowCodec {
  switch (code.kind) {
    case "block":
      return blockCodec(code);
    case "int":
      return intCodec(code.bits);
    case "float":
      return floatCodec(code.dtype);
    default:
      return code satisfies never;
  }
}

function blockCodec({ format, rule }: KvCode & { readonly kind: "block" }): RowCodec {
  const scheme = blockScheme(format, "static", rule);
  const bits = codeBits(scheme.format);
  const { element } = format;
  return {
    bits,
    encode(x, rows, cols) {
      const { codes, scales } = quantizeBlocks(x, rows, cols, format, rule === undefined ? {} : { rule });
      return { codes: codes.data, scales: encodeScales(format, scales) };
    },
    decode(codes, scales, rows, cols) {
      const wide = element.kind === "int" && element.bits > 8;
      const shift = element.kind === "int" ? (wide ? 16 : 8) - element.bits : 0;
      // Two's complement of `bits` in the low bits: shifted up and down again, the sign fills the rest.
      const signed = (out: Int8Array | Int16Array): typeof out => {
        for (let i = 0; i < codes.length; i++) out[i] = codes[i]! << shift;
        for (let i = 0; i < codes.length; i++) out[i] = out[i]! >> shift;
        return out;
      };
      return dequantizeBlocks({
        shape: [rows, cols],
        channelAxis: 0,
        scheme,
        codes:
          element.kind === "float"
            ? { kind: "u8", data: Uint8Array.from(codes) }
            : wide
              ? { kind: "i16", data: signed(new Int16Array(codes.length)) as Int16Array }
              : { kind: "i8", data: signed(new Int8Array(codes.length)) as Int8Array },
        scales: decodeScales(format, scales.subarray(0, blockCount(format, rows, cols))),
      });
    },
  };
}

/** Integers under one F16 scale a row, absmax / (2^(bits − 1) − 1) rounded to F16 before codes are taken. */
function intCodec(bits: number): RowCodec {
  const top = 2 ** (bits - 1) - 1;
  const wrap = 2 ** bits;
  /** The smallest F16 above 0, so that no scale is 0. */
  const least = 2 ** -24;
  return {
    bits,
    encode(x, rows, cols) {
      const codes = new Int16Array(x.length);
      const scales = new Uint8Array(2 * rows);
      const view = new DataView(scales.buffer);
      for (let r = 0; r < rows; r++) {
        let most = 0;
        for (let i = r * cols; i < (r + 1) * cols; i++) most = Math.max(most, Math.abs(x[i]!));
        const pattern = encodeF16(Math.max(least, most / top), true);
        view.setUint16(2 * r, pattern, true);
        const scale = decodeF16(pattern);
        for (let i = r * cols; i < (r + 1) * cols; i++) codes[i] = clamp(roundHalfEven(x[i]! / scale), -top, top);
      }
      return { codes, scales };
    },
    decode(codes, scales, rows, cols) {
      const view = new DataView(scales.buffer, scales.byteOffset, scales.byteLength);
      const out = new Float32Array(rows * cols);
      for (let r = 0; r < rows; r++) {
        const scale = decodeF16(view.getUint16(2 * r, true));
        for (let i = r * cols; i < (r + 1) * cols; i++) out[i] = (codes[i]! > top ? codes[i]! - wrap : codes[i]!) * scale;
      }
      return out;
    },
  };
}

/** Two bytes a value, no scale. */
function floatCodec(dtype: "F32" | "F16" | "BF16"): RowCodec {
  const encode = dtype === "BF16" ? encodeBf16 : (x: number): number => encodeF16(x, true);
  const decode = dtype === "BF16" ? decodeBf16 : decodeF16;
  return {
    bits: 16,
    encode: (x) => ({ codes: Uint16Array.from(x, encode), scales: new Uint8Array() }),
    decode: (codes) => Float32Array.from(codes, decode),
  };
}
