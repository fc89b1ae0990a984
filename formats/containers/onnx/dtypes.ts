/**
 * Element types of ONNX tensors: those of the house and the few that only ONNX has.
 * @module
 */
import { DTYPES, elementCount, type DType } from "../../../core/dtype.ts";
import { InputError, UnsupportedError } from "../../../core/errors.ts";
import { DATA_TYPES } from "./fields.ts";

/** Types that only ONNX has: packed integers, text, and pairs of doubles. */
const ONNX_ONLY = { I4: 4, U4: 4, I2: 2, U2: 2, C128: 128, STRING: 0 } as const;

/** Element type of an ONNX tensor; the two 6-bit floats of {@link DType} are refused when written. */
export type OnnxDType = DType | keyof typeof ONNX_ONLY;

/** Bits of one element; packed types lie several to a byte, first element in the low bits. 0 for STRING. */
export function onnxBits(dtype: OnnxDType): number {
  return isOnnxOnly(dtype) ? ONNX_ONLY[dtype] : DTYPES[dtype].bits;
}

/** Whether the house's own tensors can hold the type. */
export function isCoreDType(dtype: OnnxDType): dtype is DType {
  return !isOnnxOnly(dtype);
}

function isOnnxOnly(dtype: OnnxDType): dtype is keyof typeof ONNX_ONLY {
  return Object.hasOwn(ONNX_ONLY, dtype);
}

/** Bytes of a tensor in raw little-endian form; packed types fill the last byte with zeros. @throws {InputError} for STRING. */
export function onnxByteLength(dtype: OnnxDType, shape: readonly number[]): number {
  if (dtype === "STRING") throw new InputError("input.dtype", "a STRING tensor has no fixed length", { dtype });
  return Math.ceil((elementCount(shape) * onnxBits(dtype)) / 8);
}

const BY_ID: ReadonlyMap<number, OnnxDType> = new Map([...DATA_TYPES].map(([dtype, id]) => [id, dtype]));

/** The type that TensorProto.DataType `id` means, if it is known. */
export function dtypeOfId(id: number): OnnxDType | undefined {
  return BY_ID.get(id);
}

/** TensorProto.DataType of a type. @throws {UnsupportedError} `unsupported.dtype` for types ONNX lacks. */
export function idOfDType(dtype: OnnxDType): number {
  const id = DATA_TYPES.get(dtype);
  if (id === undefined) {
    throw new UnsupportedError(
      "unsupported.dtype",
      `ONNX has no ${dtype} tensors; convert to one of ${[...DATA_TYPES.keys()].join(", ")}`,
      { dtype },
    );
  }
  return id;
}
