/**
 * Sub-byte codes as a little-endian bit stream: element i takes bits
 * [i·bits, (i+1)·bits) of the stream, bit 0 of byte 0 first.
 *
 * For 4 bits this is "first code in the low nibble". It is the order of
 * compressed-tensors `pack-quantized`, GPTQ and ONNX int4 alike.
 * @module
 */
import { InputError } from "./errors.ts";

/** Bytes that `count` codes of `bits` take. */
export function packedLength(count: number, bits: number): number {
  return Math.ceil((count * bits) / 8);
}

/**
 * Pack unsigned codes.
 *
 * @param codes - integers in [0, 2^bits).
 * @param bits - 1 to 16.
 * @param out - receives at least `packedLength(codes.length, bits)` bytes; the rest is set to 0.
 * @throws {InputError} `input.shape` when `out` is too short, `input.option` for another width.
 */
export function packBits(codes: ArrayLike<number>, bits: number, out: Uint8Array): void {
  checkWidth(bits);
  if (out.length < packedLength(codes.length, bits)) {
    throw new InputError("input.shape", `packBits: out (${out.length} bytes) must hold ${codes.length} codes of ${bits} bits`);
  }
  out.fill(0);
  let pending = 0;
  let held = 0;
  let at = 0;
  for (let i = 0; i < codes.length; i++) {
    pending |= codes[i]! << held;
    held += bits;
    while (held >= 8) {
      out[at++] = pending & 0xff;
      pending >>>= 8;
      held -= 8;
    }
  }
  if (held > 0) out[at] = pending & 0xff;
}

/**
 * Unpack unsigned codes.
 *
 * @param out - receives `out.length` codes in [0, 2^bits).
 * @throws {InputError} `input.shape` when `bytes` is too short, `input.option` for another width.
 */
export function unpackBits(bytes: Uint8Array, bits: number, out: { length: number; [index: number]: number }): void {
  checkWidth(bits);
  if (bytes.length < packedLength(out.length, bits)) {
    throw new InputError("input.shape", `unpackBits: ${bytes.length} bytes hold fewer than ${out.length} codes of ${bits} bits`);
  }
  const mask = 2 ** bits - 1;
  let pending = 0;
  let held = 0;
  let at = 0;
  for (let i = 0; i < out.length; i++) {
    while (held < bits) {
      pending |= bytes[at++]! << held;
      held += 8;
    }
    out[i] = pending & mask;
    pending >>>= bits;
    held -= bits;
  }
}

function checkWidth(bits: number): void {
  if (!Number.isInteger(bits) || bits < 1 || bits > 16) throw new InputError("input.option", `bits (${bits}) must be 1 to 16`, { bits });
}
