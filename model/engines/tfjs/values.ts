/**
 * Host tensors ↔ tf tensors, and the steps that integers take on the host because the WASM backend computes them in float or not at all.
 * @module
 */
import type { DType } from "../../../core/dtype.ts";
import { InputError, UnsupportedError } from "../../../core/errors.ts";
import type { Tensor } from "../../../core/tensor.ts";
import type { HostTensor } from "../engine.ts";
import { HOST_ARRAYS } from "../feeds.ts";
import type { Call, Tf, TfTensor, Value } from "./call.ts";

/** What the engine takes and gives. */
const TO_HOST: ReadonlyMap<DType, (data: ArrayLike<number>) => HostTensor["data"]> = new Map<
  DType,
  (data: ArrayLike<number>) => HostTensor["data"]
>([
  ["F32", (data) => Float32Array.from(data)],
  ["I64", (data) => BigInt64Array.from(Array.from(data, BigInt))],
  ["I32", (data) => Int32Array.from(data)],
  ["U16", (data) => Uint16Array.from(data)],
  ["U8", (data) => Uint8Array.from(data)],
  ["I8", (data) => Int8Array.from(data)],
  ["BOOL", (data) => Uint8Array.from(data)],
]);

const INT32_MAX = 2 ** 31 - 1;
/** Beyond this an int64 means "to the end", as in Slice; it saturates instead of failing. */
const INFINITE_FROM = 2n ** 62n;

/**
 * @throws {UnsupportedError} `unsupported.dtype` for dtypes other than F32, I64, I32, U16, U8, I8, BOOL.
 * @throws {InputError} `input.value` for an int64 that does not fit 32 bits.
 */
export function fromHost(tf: Tf, name: string, { dtype, shape, data }: HostTensor): Value {
  const dims = [...shape];
  if (dtype === "F32") return { dtype, tensor: tf.tensor(data as Float32Array, dims, "float32") };
  if (dtype === "BOOL") return { dtype, tensor: tf.tensor(data as Uint8Array, dims, "bool") };
  if (!TO_HOST.has(dtype)) {
    throw new UnsupportedError("unsupported.dtype", `engine tfjs takes no ${dtype} ("${name}"), only ${[...TO_HOST.keys()].join(", ")}`, {
      name,
      dtype,
    });
  }
  const whole =
    data instanceof BigInt64Array ? Int32Array.from(data as Iterable<bigint>, narrow(name)) : Int32Array.from(data as Int32Array);
  return { dtype, tensor: tf.tensor(whole, dims, "int32") };
}

/** An int64 as a number of 32 bits. */
function narrow(name: string): (wide: bigint) => number {
  return (wide) => {
    if (wide >= INFINITE_FROM) return INT32_MAX;
    if (wide <= -INFINITE_FROM) return -INT32_MAX;
    const number = Number(wide);
    if (Math.abs(number) > INT32_MAX) {
      throw new InputError("input.value", `engine tfjs computes integers in 32 bits; "${name}" holds ${wide}`, {
        name,
        value: String(wide),
      });
    }
    return number;
  };
}

/** A constant of the graph; its bytes are copied when they are not aligned. */
export function fromConstant(tf: Tf, name: string, { dtype, shape, bytes }: Tensor): Value {
  const array = HOST_ARRAYS.get(dtype);
  if (array === undefined) throw new UnsupportedError("unsupported.dtype", `engine tfjs takes no ${dtype} ("${name}")`, { name, dtype });
  return fromHost(tf, name, { dtype, shape, data: new array(new Uint8Array(bytes).buffer) });
}

/** A copy in host memory. */
export function toHost({ dtype, tensor }: Value): HostTensor {
  const convert = TO_HOST.get(dtype);
  if (convert === undefined) throw new UnsupportedError("unsupported.dtype", `engine tfjs gives no ${dtype}`, { dtype });
  return { dtype, shape: [...tensor.shape], data: convert(tensor.dataSync()) };
}

/** A new int32 tensor with the dtype of ONNX it stands for. */
export function intValue(tf: Tf, data: readonly number[] | Int32Array, shape: readonly number[], dtype: DType = "I64"): Value {
  return { dtype, tensor: tf.tensor(Int32Array.from(data), [...shape], "int32") };
}

/** Apply a tf step that some backends lack for booleans: they go through int32. */
export function throughInt(tf: Tf, { dtype, tensor }: Value, step: (tensor: TfTensor) => TfTensor): Value {
  if (dtype !== "BOOL") return { dtype, tensor: step(tensor) };
  return { dtype, tensor: tf.cast(step(tf.cast(tensor, "int32")), "bool") };
}

/** The shape two shapes broadcast to, by numpy's rule. */
export function broadcastShapes(call: Call, a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) call.fail(`shapes [${a.join(", ")}] and [${b.join(", ")}] do not broadcast`, "input.shape");
    return x === 1 ? y : x;
  });
}

/** `tf.broadcastTo`, which the WASM backend does by tiling. */
export function broadcast(tf: Tf, tensor: TfTensor, shape: readonly number[]): TfTensor {
  if (tensor.shape.length === shape.length && tensor.shape.every((size, i) => size === shape[i])) return tensor;
  const padded = [...Array.from({ length: shape.length - tensor.shape.length }, () => 1), ...tensor.shape];
  return tf.tile(
    tf.reshape(tensor, padded),
    shape.map((size, i) => (padded[i] === 1 ? size : 1)),
  );
}

/** Combine two integer inputs element by element on the host, exactly. */
export function combineIntegers(call: Call, a: Value, b: Value, step: (x: number, y: number) => number): Value {
  const shape = broadcastShapes(call, a.tensor.shape, b.tensor.shape);
  const x = broadcast(call.tf, a.tensor, shape).dataSync<"int32">();
  const y = broadcast(call.tf, b.tensor, shape).dataSync<"int32">();
  return intValue(
    call.tf,
    Int32Array.from(x, (value, i) => step(value, y[i]!)),
    shape,
    a.dtype,
  );
}
