/**
 * Every element type, in one table. Names are those of safetensors, so that a
 * file's header and our code speak alike (safetensors 0.8 `Dtype`).
 * @module
 */
import { UnsupportedError } from "./errors.ts";

/** Facts about one dtype. `bits` is the storage width of one element. */
export interface DTypeFacts {
  readonly bits: number;
  readonly kind: "float" | "int" | "uint" | "bool" | "complex" | "scale";
}

/** In the order of the reference writer of safetensors, highest rank first (`formats.md` §1.1). */
export const DTYPES = {
  U64: { bits: 64, kind: "uint" },
  I64: { bits: 64, kind: "int" },
  F64: { bits: 64, kind: "float" },
  C64: { bits: 64, kind: "complex" },
  F32: { bits: 32, kind: "float" },
  U32: { bits: 32, kind: "uint" },
  I32: { bits: 32, kind: "int" },
  BF16: { bits: 16, kind: "float" },
  F16: { bits: 16, kind: "float" },
  U16: { bits: 16, kind: "uint" },
  I16: { bits: 16, kind: "int" },
  F8_E5M2FNUZ: { bits: 8, kind: "float" },
  F8_E4M3FNUZ: { bits: 8, kind: "float" },
  F8_E8M0: { bits: 8, kind: "scale" },
  F8_E4M3: { bits: 8, kind: "float" },
  F8_E5M2: { bits: 8, kind: "float" },
  I8: { bits: 8, kind: "int" },
  U8: { bits: 8, kind: "uint" },
  F6_E3M2: { bits: 6, kind: "float" },
  F6_E2M3: { bits: 6, kind: "float" },
  F4: { bits: 4, kind: "float" },
  BOOL: { bits: 8, kind: "bool" },
} as const satisfies Record<string, DTypeFacts>;

export type DType = keyof typeof DTYPES;

/** Whether `name` is a dtype of the table. */
export function isDType(name: string): name is DType {
  return Object.hasOwn(DTYPES, name);
}

/** Elements in a tensor of `shape`; 1 for a scalar (`[]`). Exact up to 2^53. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * Bytes of a tensor.
 *
 * @throws {UnsupportedError} `unsupported.dtype` when a sub-byte tensor does not fill whole bytes.
 */
export function byteLength(dtype: DType, shape: readonly number[]): number {
  const bits = elementCount(shape) * DTYPES[dtype].bits;
  if (bits % 8 !== 0) {
    throw new UnsupportedError("unsupported.dtype", `${dtype} ${JSON.stringify(shape)} takes ${bits} bits, not whole bytes`, {
      dtype,
      shape,
    });
  }
  return bits / 8;
}
