/**
 * Zero points as bytes, in the forms of `ZeroForm`.
 * @module
 */
import { InputError, NumericError } from "../../core/errors.ts";
import { packBits } from "../../core/pack.ts";
import type { ZeroForm } from "./task.ts";

/**
 * @param zeros - two's complement codes, shape [rows, groups].
 * @returns i8 or f32: shape [rows, groups]; packed-rows: I32 [ceil(rows · bits / 32), groups].
 * @throws {InputError} `input.option` without a form; {NumericError} `numeric.not-finite` when a zero point is not a code of `bits`.
 */
export function encodeZeros(
  name: string,
  zeros: Float32Array,
  rows: number,
  groups: number,
  bits: number,
  form: ZeroForm | undefined,
): Uint8Array {
  if (form === undefined)
    throw new InputError("input.option", `${name}: an asymmetric scheme needs a form for its zero points`, { tensor: name });
  if (form === "f32") return new Uint8Array(zeros.buffer, zeros.byteOffset, zeros.byteLength);
  const offset = 2 ** (bits - 1);
  const wrong = zeros.findIndex((zero) => !Number.isInteger(zero) || zero < -offset || zero >= offset);
  if (wrong >= 0) {
    throw new NumericError(
      "numeric.not-finite",
      `${name}: zero point ${zeros[wrong]} of group ${wrong} is no ${bits}-bit code; choose a dialect that clamps it, as compressed-tensors or awq`,
      { tensor: name, group: wrong, zero: zeros[wrong], bits },
    );
  }
  if (form === "i8") return new Uint8Array(Int8Array.from(zeros).buffer);
  const words = Math.ceil((rows * bits) / 32);
  const out = new Uint32Array(words * groups);
  const stream = new Uint32Array(words);
  const unsigned = new Uint8Array(rows);
  for (let g = 0; g < groups; g++) {
    for (let r = 0; r < rows; r++) unsigned[r] = zeros[r * groups + g]! + offset;
    packBits(unsigned, bits, new Uint8Array(stream.buffer));
    for (let w = 0; w < words; w++) out[w * groups + g] = stream[w]!;
  }
  return new Uint8Array(out.buffer);
}
