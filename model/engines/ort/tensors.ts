/**
 * Host tensors ↔ ONNX Runtime tensors.
 * @module
 */
import type { Tensor as OrtTensor } from "onnxruntime-common";
import type { DType } from "../../../core/dtype.ts";
import { UnsupportedError } from "../../../core/errors.ts";
import type { HostTensor } from "../engine.ts";
import { HOST_ARRAYS } from "../feeds.ts";
import type { OrtRuntime } from "./engine.ts";

const ORT_TYPES: ReadonlyMap<DType, OrtTensor.Type> = new Map<DType, OrtTensor.Type>([
  ["F32", "float32"],
  ["F64", "float64"],
  ["F16", "float16"],
  ["I64", "int64"],
  ["I32", "int32"],
  ["I8", "int8"],
  ["U16", "uint16"],
  ["U8", "uint8"],
  ["BOOL", "bool"],
]);
const DTYPES_BY_ORT_TYPE: ReadonlyMap<OrtTensor.Type, DType> = new Map([...ORT_TYPES].map(([dtype, type]) => [type, dtype]));

/**
 * A view over the host tensor's memory; the runtime reads it in place. Shared memory, which the runtime refuses, is copied.
 *
 * @throws {UnsupportedError} `unsupported.dtype` naming the value.
 */
export function toOrt(runtime: OrtRuntime, name: string, { dtype, shape, data }: HostTensor): OrtTensor {
  const type = ORT_TYPES.get(dtype);
  if (type === undefined) throw new UnsupportedError("unsupported.dtype", `ONNX Runtime takes no ${dtype} ("${name}")`, { name, dtype });
  const owned = data.buffer instanceof SharedArrayBuffer ? data.slice() : data;
  return new runtime.Tensor(type, owned as OrtTensor.DataType, [...shape]);
}

/** A view over the result's memory. @throws {UnsupportedError} `unsupported.dtype` naming the value. */
export function fromOrt(name: string, tensor: OrtTensor): HostTensor {
  const dtype = DTYPES_BY_ORT_TYPE.get(tensor.type);
  const array = dtype === undefined ? undefined : HOST_ARRAYS.get(dtype);
  if (dtype === undefined || array === undefined) {
    throw new UnsupportedError(
      "unsupported.dtype",
      `value "${name}" is ${tensor.type}, which no host tensor holds; tap a value before or after it`,
      {
        name,
        type: tensor.type,
      },
    );
  }
  const data = tensor.data as HostTensor["data"];
  // Newer Nodes have Float16Array, and the runtime gives it; our 16-bit floats are bits everywhere.
  const bits = data instanceof array ? data : new Uint16Array((data as Uint8Array).buffer, (data as Uint8Array).byteOffset, tensor.size);
  return { dtype, shape: [...tensor.dims], data: bits };
}
