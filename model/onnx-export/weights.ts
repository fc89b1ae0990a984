/**
 * Weights of an exported model: one initializer for each tensor of the checkpoint, under its name there, read when it is written.
 * @module
 */
import { InputError, UnsupportedError } from "../../core/errors.ts";
import { elementCount, type DType } from "../../core/dtype.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import { makeLazyOnnxTensor, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { expandFloat32 } from "../../kernels/expand/expand.ts";
import type { ValueType } from "../graph/graph.ts";
import type { Emitter } from "./emitter.ts";

/** "float32": widened. "stored": 16-bit floats stay 16-bit floats, behind a Cast that runtimes fold when they load the model. */
export type WeightStorage = "float32" | "stored";

const FLOATS: ReadonlySet<DType> = new Set<DType>(["F64", "F32", "F16", "BF16"]);
/** `TensorProto.DataType` number for Cast. */
const FLOAT = 1;

export class InitializerTable {
  readonly #emitter: Emitter;
  readonly #storage: WeightStorage;
  /** By tensor name: the initializer and the f32 value that nodes read. */
  readonly #bound = new Map<string, { readonly tensor: LazyTensor; readonly value: string; readonly initializer: string }>();

  constructor(emitter: Emitter, storage: WeightStorage) {
    this.#emitter = emitter;
    this.#storage = storage;
  }

  /**
   * The f32 value of a slot's tensor; two slots with one tensor (a tied head) have one value.
   *
   * @throws {InputError} `input.value` for a slot without a tensor; `input.shape` when two tensors of one name differ.
   * @throws {UnsupportedError} `unsupported.dtype` when the tensor holds no plain floats.
   */
  value(tensor: LazyTensor | undefined, slot: ValueType, block: string): string {
    if (tensor === undefined)
      throw new InputError("input.value", `block ${block}: no tensor for weight slot "${slot.name}"`, { block, slot: slot.name });
    const known = this.#bound.get(tensor.name);
    if (known !== undefined) {
      if (known.tensor.dtype === tensor.dtype && known.tensor.shape.join() === tensor.shape.join()) return known.value;
      throw new InputError(
        "input.shape",
        `two tensors are named ${tensor.name}, ${known.tensor.dtype} [${known.tensor.shape.join()}] and ${tensor.dtype} [${tensor.shape.join()}]`,
      );
    }
    if (!FLOATS.has(tensor.dtype))
      throw new UnsupportedError("unsupported.dtype", `${tensor.name} is ${tensor.dtype}; weights must be floats`, {
        tensor: tensor.name,
        dtype: tensor.dtype,
      });
    const initializer = this.#emitter.graph.weight(tensor.name, tensor.shape);
    const isWide = this.#isWide(tensor);
    const value = isWide
      ? initializer
      : this.#emitter.once(`float32 ${initializer}`, () =>
          this.#emitter.op("Cast", [initializer], { to: FLOAT }, `${initializer}/float32`),
        );
    this.#bound.set(tensor.name, { tensor, value, initializer });
    return value;
  }

  /** Initializers whose name is in `used`, in the order they were bound. */
  initializers(used: ReadonlySet<string>): readonly (readonly [string, OnnxTensor])[] {
    return [...this.#bound.values()]
      .filter(({ initializer }) => used.has(initializer))
      .map(({ initializer, tensor }) => [initializer, this.#isWide(tensor) ? widened(tensor) : asStored(tensor)]);
  }

  #isWide({ dtype }: LazyTensor): boolean {
    return this.#storage === "float32" || (dtype !== "F16" && dtype !== "BF16");
  }
}

function asStored(stored: LazyTensor): OnnxTensor {
  const { dtype, shape, location } = stored;
  const tensor = makeLazyOnnxTensor(dtype, shape, async () => (await stored.read()).bytes);
  return location === undefined ? tensor : { ...tensor, location };
}

function widened(tensor: LazyTensor): OnnxTensor {
  if (tensor.dtype === "F32") return asStored(tensor);
  return makeLazyOnnxTensor("F32", tensor.shape, async () => {
    const floats = expandFloat32(await tensor.read());
    return new Uint8Array(floats.buffer, floats.byteOffset, 4 * elementCount(tensor.shape));
  });
}
