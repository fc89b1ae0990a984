/**
 * Fast twin of the DFloat11 decoder, for whole units and for ranges of one.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { checkUnit, type Df11Structure } from "../../formats/encodings/dfloat11/decode.ts";
import { BLOCK_BYTES, type Df11Unit } from "../../formats/encodings/dfloat11/fields.ts";
import { threadWorkspace, type Workspace } from "../load-wasm.ts";
import { createBlockDecoder, indexOf, LOOK_AHEAD } from "./blocks.ts";

/**
 * Decode one unit.
 *
 * @param name - the unit's module path, for messages.
 * @param out - receives the bf16 patterns as little-endian bytes, two an element.
 * @throws {FormatError} `format.field` when the structure or the stream disagrees with itself.
 */
export function decodeUnitFast(name: string, unit: Df11Unit, out: Uint8Array, workspace: Workspace = threadWorkspace()): void {
  checkUnit(name, unit);
  const mark = workspace.mark();
  try {
    const index = indexOf(unit);
    createBlockDecoder(name, unit.luts, index, workspace).decode(0, index.blocks, unit.encodedExponent, unit.signMantissa, out);
  } finally {
    workspace.release(mark);
  }
}

/** The blocks that hold a range of elements, and the bytes to read for them. */
export interface BlockRange {
  readonly first: number;
  readonly last: number;
  /** Bytes of encoded_exponent. */
  readonly stream: { readonly from: number; readonly to: number };
  /** Bytes of sign_mantissa, which are elements too. */
  readonly elements: { readonly from: number; readonly to: number };
}

/** Which blocks hold elements [from, to). The unit's structure has been checked. */
export function blocksOf({ outputPositions, encodedExponent }: Df11Structure, from: number, to: number): BlockRange {
  const blocks = outputPositions.length - 1;
  // Last block that starts at or before `from`, first that starts at or behind `to`.
  const first = Math.max(0, upperBound(outputPositions, from, blocks) - 1);
  let last = first;
  while (last < blocks && outputPositions[last]! < to) last++;
  return {
    first,
    last,
    stream: { from: first * BLOCK_BYTES, to: Math.min(last * BLOCK_BYTES + LOOK_AHEAD, encodedExponent.length) },
    elements: { from: outputPositions[first]!, to: outputPositions[last]! },
  };
}

/** First index in [0, count) whose position is larger than `value`; `count` when none is. */
function upperBound(positions: Uint32Array, value: number, count: number): number {
  let [low, high] = [0, count];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (positions[middle]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * Decode elements [from, to) of a unit from the bytes that `blocksOf` names.
 *
 * @returns bf16 patterns as little-endian bytes.
 * @throws {FormatError} `format.field`; {InputError} `input.shape` when the bytes are not those of the range.
 */
export function decodeRange(
  name: string,
  unit: Df11Structure & { readonly luts: Uint8Array },
  { from, to }: { readonly from: number; readonly to: number },
  { stream, signMantissa }: { readonly stream: Uint8Array; readonly signMantissa: Uint8Array },
  workspace: Workspace = threadWorkspace(),
): Uint8Array {
  const range = blocksOf(unit, from, to);
  const count = range.elements.to - range.elements.from;
  if (stream.length !== range.stream.to - range.stream.from || signMantissa.length !== count) {
    throw new InputError(
      "input.shape",
      `unit ${name}: elements ${from} to ${to} need ${range.stream.to - range.stream.from} + ${count} bytes`,
      { unit: name },
    );
  }
  const out = new Uint8Array(2 * count);
  const mark = workspace.mark();
  try {
    createBlockDecoder(name, unit.luts, indexOf(unit), workspace).decode(range.first, range.last, stream, signMantissa, out);
  } finally {
    workspace.release(mark);
  }
  return out.subarray(2 * (from - range.elements.from), 2 * (to - range.elements.from));
}
