/**
 * Tensors of ONNX models: a type, a shape, and raw little-endian bytes that are read when asked for.
 * @module
 */
import { InputError, UnsupportedError } from "../../../core/errors.ts";
import { elementCount } from "../../../core/dtype.ts";
import { toFloat32, type Tensor } from "../../../core/tensor.ts";
import { isCoreDType, onnxBits, onnxByteLength, type OnnxDType } from "./dtypes.ts";

/**
 * A tensor, whatever field of TensorProto it was stored in. Its bytes are row-major and little-endian;
 * 4- and 2-bit elements are packed with the first in the low bits and the last byte filled with zeros.
 */
export interface OnnxTensor {
  readonly dtype: OnnxDType;
  readonly shape: readonly number[];
  /** Its name where it is not a key: attributes, values and indices of sparse tensors. */
  readonly name?: string;
  /** Bytes that `read` gives; of a STRING tensor the sum over its strings. */
  readonly byteLength: number;
  /** A fresh copy the caller owns. @throws {UnsupportedError} `unsupported.dtype` for STRING: see `strings`. */
  read(): Promise<Uint8Array>;
  /** The bytes where they are in memory anyway: a view that nobody may write to. */
  readonly bytes?: Uint8Array;
  /** Where the bytes lie when they are one run of a file. */
  readonly location?: { readonly path: string; readonly offset: number };
  /** `location` key of the external data it came from. */
  readonly external?: string;
  /** Elements of a STRING tensor. */
  readonly strings?: readonly Uint8Array[];
  readonly docString?: string;
  readonly metadata?: ReadonlyMap<string, string>;
  readonly unknownFields?: Uint8Array;
}

/** A tensor over bytes in memory (a view). @throws {InputError} `input.shape` when they do not fill the shape. */
export function makeOnnxTensor(dtype: OnnxDType, shape: readonly number[], bytes: Uint8Array): OnnxTensor {
  const expected = onnxByteLength(dtype, shape);
  if (bytes.byteLength !== expected) {
    throw new InputError("input.shape", `${dtype} ${JSON.stringify(shape)} takes ${expected} bytes, got ${bytes.byteLength}`, {
      dtype,
      shape,
      bytes: bytes.byteLength,
    });
  }
  return { dtype, shape, byteLength: expected, bytes, read: async () => bytes.slice() };
}

/**
 * A tensor whose bytes are computed or read when they are asked for, at every `read`.
 *
 * @param read - gives a fresh array of exactly the tensor's length.
 */
export function makeLazyOnnxTensor(dtype: OnnxDType, shape: readonly number[], read: () => Promise<Uint8Array>): OnnxTensor {
  const byteLength = onnxByteLength(dtype, shape);
  return {
    dtype,
    shape,
    byteLength,
    read: async () => {
      const bytes = await read();
      if (bytes.byteLength !== byteLength) {
        throw new InputError("input.shape", `${dtype} ${JSON.stringify(shape)} takes ${byteLength} bytes, got ${bytes.byteLength}`, {
          dtype,
          shape,
          bytes: bytes.byteLength,
        });
      }
      return bytes;
    },
  };
}

/** A STRING tensor. @throws {InputError} `input.shape` when the number of strings is not that of the shape. */
export function makeStringTensor(shape: readonly number[], strings: readonly Uint8Array[]): OnnxTensor {
  if (strings.length !== elementCount(shape)) {
    throw new InputError("input.shape", `STRING ${JSON.stringify(shape)} takes ${elementCount(shape)} strings, got ${strings.length}`, {
      shape,
      strings: strings.length,
    });
  }
  return { dtype: "STRING", shape, byteLength: strings.reduce((sum, { byteLength }) => sum + byteLength, 0), strings, read: refuseStrings };
}

async function refuseStrings(): Promise<never> {
  throw new UnsupportedError("unsupported.dtype", "a STRING tensor has no raw bytes; read its strings", { dtype: "STRING" });
}

/** An ONNX tensor over the bytes of one of the house's (a view). */
export function onnxTensorOf({ dtype, shape, bytes }: Tensor): OnnxTensor {
  return makeOnnxTensor(dtype, shape, bytes);
}

/** The tensor read, as one of the house's. @throws {UnsupportedError} `unsupported.dtype` for types the house lacks. */
export async function tensorOfOnnx(tensor: OnnxTensor): Promise<Tensor> {
  const { dtype, shape } = tensor;
  if (!isCoreDType(dtype)) throw new UnsupportedError("unsupported.dtype", `an ${dtype} tensor of ONNX has no counterpart here`, { dtype });
  return { dtype, shape, bytes: await tensor.read() };
}

/** Whether {@link readFloat32} reads the type. */
export function isReadableAsFloat(dtype: OnnxDType): boolean {
  return !["STRING", "C64", "C128", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "F6_E3M2", "F6_E2M3", "F4"].includes(dtype);
}

/**
 * The tensor's values as f32, in order: floats of 8 to 64 bits, and integers (2- and 4-bit ones too) as numbers.
 *
 * @returns a fresh array.
 * @throws {UnsupportedError} `unsupported.dtype` for the rest.
 */
export async function readFloat32(tensor: OnnxTensor): Promise<Float32Array> {
  const { dtype } = tensor;
  if (dtype === "I4" || dtype === "U4" || dtype === "I2" || dtype === "U2") {
    return Float32Array.from(unpackIntegers(await tensor.read(), onnxBits(dtype), dtype[0] === "I", elementCount(tensor.shape)));
  }
  return toFloat32(await tensorOfOnnx(tensor));
}

/** Elements of 2 or 4 bits, first in the low bits. */
export function unpackIntegers(bytes: Uint8Array, bits: number, signed: boolean, count: number): Int8Array {
  const out = new Int8Array(count);
  const perByte = 8 / bits;
  const mask = 2 ** bits - 1;
  const sign = signed ? 2 ** (bits - 1) : 2 ** bits;
  for (let i = 0; i < count; i++) {
    const code = (bytes[Math.floor(i / perByte)]! >> (bits * (i % perByte))) & mask;
    out[i] = code >= sign ? code - 2 ** bits : code;
  }
  return out;
}
