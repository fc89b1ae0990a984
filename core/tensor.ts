/**
 * Tensors: bytes with a dtype and a shape, in memory or still on disk.
 * @module
 */
import { decodeBf16, decodeFloat, E4M3, E5M2, encodeBf16, encodeFloat, F16 } from "./float.ts";
import { byteLength, elementCount, type DType } from "./dtype.ts";
import { InputError, UnsupportedError } from "./errors.ts";

/** Row-major little-endian bytes with a dtype and a shape. `bytes` may be a view over a larger buffer. */
export interface Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A tensor that is read when it is asked for. */
export interface LazyTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Bytes of the whole tensor. */
  readonly byteLength: number;
  /** A fresh copy the caller owns. */
  read(): Promise<Tensor>;
  /** Where the bytes lie when they are one run of a file, so that workers can read them themselves. */
  readonly location?: { readonly path: string; readonly offset: number };
  /** Only the number of elements is known: `shape` has one axis, and whoever knows better may put another in its place. */
  readonly shapeless?: boolean;
}

/** Float matrix view, row-major, shape [rows, cols]. */
export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float32Array;
}

/** @throws {InputError} `input.shape` when the bytes do not fill the shape. */
export function createTensor(dtype: DType, shape: readonly number[], bytes: Uint8Array): Tensor {
  const expected = byteLength(dtype, shape);
  if (bytes.byteLength !== expected) {
    throw new InputError("input.shape", `${dtype} ${JSON.stringify(shape)} takes ${expected} bytes, got ${bytes.byteLength}`, {
      dtype,
      shape,
      bytes: bytes.byteLength,
    });
  }
  return { dtype, shape, bytes };
}

/** A tensor over the memory of a typed array (a view, not a copy). */
export function tensorOf(
  data:
    | Float32Array
    | Float64Array
    | Int8Array
    | Uint8Array
    | Int16Array
    | Uint16Array
    | Int32Array
    | Uint32Array
    | BigInt64Array
    | BigUint64Array,
  shape: readonly number[],
): Tensor {
  const dtype = TYPED_ARRAY_DTYPES.get(data.constructor);
  if (dtype === undefined) throw new InputError("input.dtype", `no dtype for ${data.constructor.name}`);
  return createTensor(dtype, shape, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

const TYPED_ARRAY_DTYPES = new Map<unknown, DType>([
  [Float32Array, "F32"],
  [Float64Array, "F64"],
  [Int8Array, "I8"],
  [Uint8Array, "U8"],
  [Int16Array, "I16"],
  [Uint16Array, "U16"],
  [Int32Array, "I32"],
  [Uint32Array, "U32"],
  [BigInt64Array, "I64"],
  [BigUint64Array, "U64"],
]);

/** A lazy tensor that is already in memory. `read` copies, as every LazyTensor does. */
export function lazyOf(name: string, tensor: Tensor): LazyTensor {
  const { dtype, shape, bytes } = tensor;
  return { name, dtype, shape, byteLength: bytes.byteLength, read: async () => ({ dtype, shape, bytes: bytes.slice() }) };
}

/** A lazy f32 tensor computed from others; `compute` runs at every read. */
export function lazyFloat(name: string, shape: readonly number[], compute: () => Promise<Float32Array>): LazyTensor {
  return { name, dtype: "F32", shape, byteLength: elementCount(shape) * 4, read: async () => tensorOf(await compute(), shape) };
}

/** The bytes as 16-bit words; copies only when they are not aligned. */
function words16({ bytes }: Tensor): Uint16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  return new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 2);
}

/**
 * Values as f32, in order. Exact for every 16-bit and 8-bit float and for integers up to 2^24;
 * F64 and wider integers round to nearest even.
 *
 * This is the definition; `kernels/expand` is its fast twin.
 *
 * @returns a fresh copy, except that an aligned F32 tensor gives a view over its bytes.
 * @throws {UnsupportedError} `unsupported.dtype` for packed and complex types.
 */
export function toFloat32(tensor: Tensor): Float32Array {
  const { dtype, bytes } = tensor;
  const count = elementCount(tensor.shape);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const read = (get: (i: number) => number): Float32Array => Float32Array.from({ length: count }, (_, i) => get(i));
  switch (dtype) {
    case "F32": {
      const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
      return new Float32Array(aligned.buffer, aligned.byteOffset, count);
    }
    case "BF16": {
      const source = words16(tensor);
      const out = new Float32Array(count);
      const bits = new Uint32Array(out.buffer);
      for (let i = 0; i < count; i++) bits[i] = source[i]! << 16;
      return out;
    }
    case "F16": {
      const source = words16(tensor);
      return read((i) => decodeFloat(F16, source[i]!));
    }
    case "F8_E4M3":
      return read((i) => decodeFloat(E4M3, bytes[i]!));
    case "F8_E5M2":
      return read((i) => decodeFloat(E5M2, bytes[i]!));
    case "F64":
      return read((i) => view.getFloat64(8 * i, true));
    case "I8":
      return read((i) => view.getInt8(i));
    case "U8":
    case "BOOL":
      return read((i) => bytes[i]!);
    case "I16":
      return read((i) => view.getInt16(2 * i, true));
    case "U16":
      return read((i) => view.getUint16(2 * i, true));
    case "I32":
      return read((i) => view.getInt32(4 * i, true));
    case "U32":
      return read((i) => view.getUint32(4 * i, true));
    case "I64":
      return read((i) => Number(view.getBigInt64(8 * i, true)));
    case "U64":
      return read((i) => Number(view.getBigUint64(8 * i, true)));
    case "C64":
    case "F8_E5M2FNUZ":
    case "F8_E4M3FNUZ":
    case "F8_E8M0":
    case "F6_E3M2":
    case "F6_E2M3":
    case "F4":
      throw new UnsupportedError("unsupported.dtype", `cannot read ${dtype} as f32`, { dtype });
    default:
      return dtype satisfies never;
  }
}

/**
 * Values rounded to nearest even in `dtype`.
 *
 * @param saturating - for FP8: clamp to ±max instead of NaN/Inf.
 * @throws {UnsupportedError} `unsupported.dtype` for non-float targets.
 */
export function fromFloat32(data: Float32Array, shape: readonly number[], dtype: DType, saturating = false): Tensor {
  switch (dtype) {
    case "F32":
      return tensorOf(data, shape);
    case "BF16":
      return createTensor(dtype, shape, new Uint8Array(Uint16Array.from(data, encodeBf16).buffer));
    case "F16":
      return createTensor(dtype, shape, new Uint8Array(Uint16Array.from(data, (x) => encodeFloat(F16, x)).buffer));
    case "F64":
      return createTensor(dtype, shape, new Uint8Array(Float64Array.from(data).buffer));
    case "F8_E4M3":
      return createTensor(
        dtype,
        shape,
        Uint8Array.from(data, (x) => encodeFloat(E4M3, x, saturating)),
      );
    case "F8_E5M2":
      return createTensor(
        dtype,
        shape,
        Uint8Array.from(data, (x) => encodeFloat(E5M2, x, saturating)),
      );
    default:
      throw new UnsupportedError("unsupported.dtype", `cannot round f32 to ${dtype}; choose F32, BF16, F16, F64, F8_E4M3 or F8_E5M2`, {
        dtype,
      });
  }
}

/** The value of one element rounded as it would be stored in `dtype`. */
export function roundToDType(x: number, dtype: DType): number {
  switch (dtype) {
    case "F32":
      return Math.fround(x);
    case "BF16":
      return decodeBf16(encodeBf16(x));
    case "F16":
      return decodeFloat(F16, encodeFloat(F16, x));
    case "F64":
      return x;
    default:
      throw new UnsupportedError("unsupported.dtype", `${dtype} is not a storage dtype for scales; choose F32, BF16, F16 or F64`, {
        dtype,
      });
  }
}
