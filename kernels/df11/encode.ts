/**
 * Fast twin of the DFloat11 encoder: same bytes as `formats/encodings/dfloat11`,
 * histogram, code, split and bit stream in WASM.
 * @module
 */
import { NumericError } from "../../core/errors.ts";
import { END } from "../../formats/encodings/dfloat11/code-table.ts";
import { planUnit, type Df11Encoding } from "../../formats/encodings/dfloat11/encode.ts";
import { BLOCK_BYTES, BYTES_PER_THREAD, GAP_BYTES_PER_BLOCK } from "../../formats/encodings/dfloat11/fields.ts";
import { wasm } from "../generated/df11.wasm.ts";
import { threadWorkspace, type Workspace } from "../load-wasm.ts";
import type { Df11Kernel } from "./kernel.ts";

/** Patterns copied into the kernels' memory at a time. */
const PIECE = 2 ** 20;
const WINDOWS_PER_BLOCK = BLOCK_BYTES / BYTES_PER_THREAD;

/**
 * Encode one unit.
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
  const kernel = workspace.kernel<Df11Kernel>(wasm);
  const input = workspace.take(2 * PIECE);
  const counts = countAll(parts, kernel, workspace, input);
  const plan = planUnit(counts);
  if ("refusal" in plan) return plan;
  const elements = counts.reduce((sum, count) => sum + count, 0);
  const codes = workspace.take(256 * 8);
  const words = new BigUint64Array(workspace.memory.buffer, codes.at, 256).fill(0n);
  let totalBits = 0;
  for (const { symbol, length, bits } of plan.table) {
    if (symbol === END) continue;
    words[symbol] = (BigInt(bits) << 6n) | BigInt(length);
    totalBits += counts[symbol]! * length;
  }
  const streamBytes = Math.ceil(totalBits / 8);
  const blocks = Math.ceil(streamBytes / BLOCK_BYTES);
  const windows = blocks * WINDOWS_PER_BLOCK;
  const encodedExponent = new Uint8Array(streamBytes);
  const signMantissa = new Uint8Array(elements);

  // A code is at most 32 bits, so a piece writes at most one word an element.
  const stream = workspace.take(4 * PIECE);
  const rest = workspace.take(PIECE + 16);
  const gaps = workspace.take(windows + 64);
  const positions = workspace.take(4 * (blocks + 2));
  const state = workspace.take(24);
  workspace.bytes(gaps).fill(0);
  workspace.bytes(state).fill(0);
  const positionWords = (): Uint32Array => new Uint32Array(workspace.memory.buffer, positions.at, blocks + 2);
  positionWords().fill(elements);
  positionWords()[0] = 0;
  let streamAt = 0;
  let element = 0;
  for (const piece of pieces(parts)) {
    workspace.bytes(input).set(piece);
    const count = piece.length / 2;
    const bytes = 4 * kernel.encodeExponents(input.at, count, codes.at, stream.at, gaps.at, positions.at, state.at);
    encodedExponent.set(workspace.bytes({ at: stream.at, byteLength: bytes }), streamAt);
    streamAt += bytes;
    kernel.splitSignMantissa(input.at, count, rest.at);
    signMantissa.set(workspace.bytes({ at: rest.at, byteLength: count }), element);
    element += count;
  }
  const tail = new DataView(workspace.memory.buffer, state.at, 24);
  const held = tail.getUint32(8, true);
  const end = plan.table.find(({ symbol }) => symbol === END)!;
  finishStream(encodedExponent, streamAt, tail.getBigUint64(0, true), held, end);
  const gapBytes = workspace.bytes({ at: gaps.at, byteLength: windows });
  const outputPositions = positionWords().slice(0, blocks + 1);
  outputPositions[blocks] = elements;
  // No code starts where the last one ends on a byte boundary: the end symbol is not written there.
  const endWindow = Math.floor(totalBits / (8 * BYTES_PER_THREAD));
  if (totalBits % 8 === 0 && endWindow < windows) {
    const codesStartBefore =
      tail.getUint32(16, true) === elements &&
      gapBytes[endWindow] === totalBits % 64 &&
      endWindow * 64 + gapBytes[endWindow]! === totalBits;
    if (codesStartBefore) gapBytes[endWindow] = 0;
  }
  const packed = workspace.take(blocks * GAP_BYTES_PER_BLOCK);
  kernel.packGaps(gaps.at, windows, packed.at);
  return {
    unit: { luts: plan.luts, encodedExponent, signMantissa, outputPositions, gaps: workspace.bytes(packed).slice(), splitPositions },
  };
}

function* pieces(parts: readonly Uint8Array[]): Generator<Uint8Array> {
  for (const part of parts) for (let at = 0; at < part.length; at += 2 * PIECE) yield part.subarray(at, at + 2 * PIECE);
}

function countAll(
  parts: readonly Uint8Array[],
  kernel: Df11Kernel,
  workspace: Workspace,
  input: { readonly at: number; readonly byteLength: number },
): Float64Array {
  const tables = workspace.take(4096);
  const counts = new Float64Array(256);
  for (const piece of pieces(parts)) {
    if (piece.length % 2 !== 0) throw new NumericError("numeric.no-data", `a bf16 tensor has ${piece.length} bytes, an odd number`);
    workspace.bytes(tables).fill(0);
    workspace.bytes(input).set(piece);
    kernel.countExponents(input.at, piece.length / 2, tables.at);
    const found = new Uint32Array(workspace.memory.buffer, tables.at, 1024);
    for (let i = 0; i < 1024; i++) counts[i % 256]! += found[i]!;
  }
  return counts;
}

/** Writes the bits still held, then the leading bits of the end code into what is left of the last byte. */
function finishStream(
  out: Uint8Array,
  at: number,
  pending: bigint,
  held: number,
  end: { readonly length: number; readonly bits: number },
): void {
  let bits = pending & ((1n << BigInt(held)) - 1n);
  let count = held;
  const space = (8 - (held % 8)) % 8;
  const taken = Math.min(space, end.length);
  bits = (bits << BigInt(taken)) | BigInt(Math.floor(end.bits / 2 ** (end.length - taken)));
  bits <<= BigInt(space - taken);
  count += space;
  for (let i = at; count > 0; i++) {
    count -= 8;
    out[i] = Number((bits >> BigInt(count)) & 0xffn);
  }
}
