/**
 * Fast twin of the DFloat11 encoder: same bytes as `formats/encodings/dfloat11`,
 * histogram, code, split and bit stream in WASM.
 * @module
 */
import { NumericError } from "../../core/errors.ts";
import type { Df11Encoding } from "../../formats/encodings/dfloat11/encode.ts";
import { threadWorkspace, type Workspace } from "../load-wasm.ts";
import { createExponentCounter, createUnitEncoder, planCode, STRIP } from "./unit-encoder.ts";

/**
 * Encode one unit that lies in memory.
 *
 * @param parts - bf16 bit patterns of the unit's tensors, little-endian bytes, in stream order.
 * @returns the six tensors (fresh memory), or why the unit cannot be held.
 */
export function encodeUnitFast(
  parts: readonly Uint8Array[],
  splitPositions: readonly number[],
  workspace: Workspace = threadWorkspace(),
): Df11Encoding {
  const mark = workspace.mark();
  try {
    return encode(parts, splitPositions, workspace);
  } finally {
    workspace.release(mark);
  }
}

function encode(parts: readonly Uint8Array[], splitPositions: readonly number[], workspace: Workspace): Df11Encoding {
  const mark = workspace.mark();
  const counter = createExponentCounter(workspace);
  for (const piece of pieces(parts)) {
    workspace.bytes(counter.input).set(piece);
    counter.add(piece.length / 2);
  }
  workspace.release(mark);
  const code = planCode(counter.counts);
  if ("refusal" in code) return code;
  const encodedExponent = new Uint8Array(code.streamBytes);
  const signMantissa = new Uint8Array(code.elements);
  const encoder = createUnitEncoder("", code, workspace);
  let streamAt = 0;
  let element = 0;
  for (const piece of pieces(parts)) {
    const count = piece.length / 2;
    encoder.input(count).set(piece);
    const strip = encoder.push(count);
    encodedExponent.set(strip.stream, streamAt);
    signMantissa.set(strip.signMantissa, element);
    streamAt += strip.stream.length;
    element += count;
  }
  const { stream, gaps, outputPositions } = encoder.finish();
  encodedExponent.set(stream, streamAt);
  return { unit: { luts: code.luts, encodedExponent, signMantissa, outputPositions, gaps, splitPositions } };
}

function* pieces(parts: readonly Uint8Array[]): Generator<Uint8Array> {
  for (const part of parts) {
    if (part.length % 2 !== 0) throw new NumericError("numeric.no-data", `a bf16 tensor has ${part.length} bytes, an odd number`);
    for (let at = 0; at < part.length; at += 2 * STRIP) yield part.subarray(at, at + 2 * STRIP);
  }
}
