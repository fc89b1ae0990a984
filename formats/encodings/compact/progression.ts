/**
 * Tensors whose elements, as whole numbers, go up by equal steps: position ids, zeros, ones.
 * @module
 */
import { DTYPES, type DType } from "../../../core/dtype.ts";

/** Larger tensors are coded: a file of a few bytes must not stand for any amount of memory. */
export const MAX_PROGRESSION_BYTES = 2 ** 20;

/** Element i is `first + i * step`, modulo two to the power of the element's bits. */
export interface Progression {
  readonly first: bigint;
  readonly step: bigint;
}

/** Bytes of an element; codes under a byte are taken as bytes. */
const widthOf = (dtype: DType): 1 | 2 | 4 | 8 => {
  const { bits } = DTYPES[dtype];
  return bits >= 64 ? 8 : bits >= 32 ? 4 : bits >= 16 ? 2 : 1;
};

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function element(view: DataView, width: number, i: number): bigint {
  if (width === 8) return view.getBigUint64(8 * i, true);
  if (width === 4) return BigInt(view.getUint32(4 * i, true));
  return BigInt(width === 2 ? view.getUint16(2 * i, true) : view.getUint8(i));
}

/** @returns undefined when the elements are none, or the tensor is empty or large. */
export function findProgression(dtype: DType, bytes: Uint8Array): Progression | undefined {
  const width = widthOf(dtype);
  const count = bytes.length / width;
  if (count < 1 || !Number.isInteger(count) || bytes.length > MAX_PROGRESSION_BYTES) return undefined;
  const view = viewOf(bytes);
  const first = element(view, width, 0);
  const step = count === 1 ? 0n : BigInt.asUintN(8 * width, element(view, width, 1) - first);
  let expected = first;
  for (let i = 0; i < count; i++) {
    if (element(view, width, i) !== expected) return undefined;
    expected = BigInt.asUintN(8 * width, expected + step);
  }
  return { first, step };
}

/** Fills `out` with its elements. */
export function fillProgression(dtype: DType, { first, step }: Progression, out: Uint8Array): void {
  const width = widthOf(dtype);
  const view = viewOf(out);
  let value = BigInt.asUintN(8 * width, first);
  for (let at = 0; at + width <= out.length; at += width) {
    if (width === 8) view.setBigUint64(at, value, true);
    else if (width === 4) view.setUint32(at, Number(value), true);
    else if (width === 2) view.setUint16(at, Number(value), true);
    else view.setUint8(at, Number(value));
    value = BigInt.asUintN(8 * width, value + step);
  }
}
