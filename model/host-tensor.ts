/**
 * Host tensors: typed views of bytes and back, for feeding engines.
 * @module
 */
import { DTYPES, elementCount, type DType } from "../core/dtype.ts";
import { InputError, UnsupportedError } from "../core/errors.ts";
import type { Tensor } from "../core/tensor.ts";
import type { HostTensor } from "./engines/engine.ts";

type TypedArray = HostTensor["data"];
type TypedArrayConstructor = new (buffer: ArrayBufferLike, offset: number, length: number) => TypedArray;

/** Element types an engine may be fed, with the array that holds them. */
const ARRAYS: Partial<Record<DType, TypedArrayConstructor>> = {
  F32: Float32Array,
  F64: Float64Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
  I32: Int32Array,
  I64: BigInt64Array,
};

/**
 * A typed view over `buffer`.
 *
 * @param offset - bytes, a multiple of the element size.
 * @throws {UnsupportedError} `unsupported.dtype` for types no engine takes.
 */
export function typedView(dtype: DType, buffer: ArrayBufferLike, offset: number, count: number): TypedArray {
  const constructor = ARRAYS[dtype];
  if (constructor === undefined) {
    throw new UnsupportedError("unsupported.dtype", `engines cannot be fed ${dtype}; they take ${Object.keys(ARRAYS).join(", ")}`, {
      dtype,
    });
  }
  return new constructor(buffer, offset, count);
}

/** The tensor as an engine takes it, dtype unchanged: a view where the bytes are aligned, else a copy. */
export function hostTensorOf(tensor: Tensor): HostTensor {
  const { dtype, shape } = tensor;
  const bytes = tensor.bytes.byteOffset % (DTYPES[dtype].bits / 8) === 0 ? tensor.bytes : tensor.bytes.slice();
  return { dtype, shape, data: typedView(dtype, bytes.buffer, bytes.byteOffset, elementCount(shape)) };
}

/** The bytes of a host tensor (a view, not a copy). */
export function bytesOf({ data }: HostTensor): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** The tensor as f32 values. @throws {InputError} `input.dtype` naming `what` when it holds something else. */
export function floatsOf(tensor: HostTensor, what: string): Float32Array {
  if (tensor.data instanceof Float32Array) return tensor.data;
  throw new InputError("input.dtype", `${what} is ${tensor.dtype}; expected F32`, { what, dtype: tensor.dtype });
}

/**
 * Tensors joined along the first axis; one tensor alone is returned as it is.
 *
 * @param tensors - equal dtypes and shapes, except for the first axis.
 */
export function concatenate(tensors: readonly HostTensor[]): HostTensor {
  const first = tensors[0]!;
  if (tensors.length === 1) return first;
  const total = tensors.reduce((sum, tensor) => sum + tensor.data.byteLength, 0);
  const bytes = new Uint8Array(total);
  let offset = 0;
  for (const tensor of tensors) {
    bytes.set(bytesOf(tensor), offset);
    offset += tensor.data.byteLength;
  }
  const shape = [tensors.reduce((sum, tensor) => sum + tensor.shape[0]!, 0), ...first.shape.slice(1)];
  return { dtype: first.dtype, shape, data: typedView(first.dtype, bytes.buffer, 0, elementCount(shape)) };
}
