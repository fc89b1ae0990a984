/**
 * Resolves values of an ONNX model that are constant: initializers, Constant nodes, and what Identity, Transpose, Cast,
 * Reshape and DequantizeLinear make of them. A value of an outer graph is seen from inside.
 * @module
 */
import { elementCount } from "../../core/dtype.ts";
import { fromFloat32 } from "../../core/tensor.ts";
import { onnxBits, type OnnxDType } from "../../formats/containers/onnx/dtypes.ts";
import { DATA_TYPES } from "../../formats/containers/onnx/fields.ts";
import { encodeText } from "../../formats/containers/onnx/message.ts";
import type { OnnxNode, OnnxSparseTensor } from "../../formats/containers/onnx/model.ts";
import {
  isReadableAsFloat,
  makeLazyOnnxTensor,
  makeOnnxTensor,
  makeStringTensor,
  readFloat32,
  type OnnxTensor,
} from "../../formats/containers/onnx/tensor.ts";
import { intAttribute, intsAttribute } from "./attributes.ts";
import { mapTensor, type PlacedBody } from "./bodies.ts";
import { dequantize } from "./dequantize.ts";
import type { OnnxConstant } from "./site.ts";
import { transposeBytes } from "./transpose.ts";

/** Nodes between a stored tensor and its reader; more is no chain of a converter but a trap. */
const MAX_CHAIN = 16;

/** Resolves the values of one body. */
export class ConstantResolver {
  readonly #body: PlacedBody;
  readonly #outer: ConstantResolver | undefined;
  readonly #producers = new Map<string, OnnxNode>();
  readonly #hidden = new Set<string>();
  readonly #known = new Map<string, OnnxConstant | undefined>();

  constructor(body: PlacedBody, outer?: ConstantResolver) {
    this.#body = body;
    this.#outer = outer;
    for (const node of body.nodes) for (const output of node.outputs) if (output !== "") this.#producers.set(output, node);
    const inputs = body.function?.inputs ?? body.graph?.inputs.map(({ name }) => name) ?? [];
    for (const name of inputs) this.#hidden.add(name);
  }

  /** The constant that `value` is, or nothing when it is computed from inputs or in a way that is not followed. */
  resolve(value: string, depth = 0): OnnxConstant | undefined {
    if (value === "" || depth > MAX_CHAIN) return undefined;
    if (this.#known.has(value)) return this.#known.get(value);
    const constant = this.#find(value, depth);
    this.#known.set(value, constant);
    return constant;
  }

  #find(value: string, depth: number): OnnxConstant | undefined {
    const { initializers, graph, path } = this.#body;
    // An initializer that is an input as well (always up to IR 3) is its default value.
    const sparse = graph?.sparseInitializers?.get(value);
    const stored = initializers.get(value) ?? (sparse && makeDense(sparse));
    if (stored !== undefined) return { ...plain(value, stored), source: { kind: "initializer", name: value, path } };
    const node = this.#producers.get(value);
    if (node === undefined) return this.#hidden.has(value) ? undefined : this.#outer?.resolve(value, depth);
    if (node.domain !== "") return undefined;
    if (node.op === "Constant") {
      const tensor = constantValue(node);
      return tensor && { ...plain(value, tensor), source: { kind: "constant", name: value, path } };
    }
    const from = FOLLOWED.has(node.op) ? this.resolve(node.inputs[0]!, depth + 1) : undefined;
    if (from === undefined || node.outputs[0] !== value) return undefined;
    const tensor = this.#apply(node, from.tensor, depth);
    const isDequantized = from.isDequantized || node.op === "DequantizeLinear";
    return tensor && { ...from, tensor, value, chain: [...from.chain, node], isDequantized };
  }

  #apply(node: OnnxNode, tensor: OnnxTensor, depth: number): OnnxTensor | undefined {
    switch (node.op) {
      case "Identity":
        return tensor;
      case "Cast":
        return castTensor(tensor, intAttribute(node, "to", 0));
      case "Transpose": {
        const rank = tensor.shape.length;
        const perm = intsAttribute(node, "perm") ?? Array.from({ length: rank }, (_, i) => rank - 1 - i);
        return transposeTensor(tensor, perm);
      }
      case "DequantizeLinear": {
        const [scale, zero] = [1, 2].map((slot) => this.resolve(node.inputs[slot] ?? "", depth + 1)?.tensor);
        if (scale === undefined || (zero === undefined && (node.inputs[2] ?? "") !== "")) return undefined;
        return dequantize(tensor, scale, zero, intAttribute(node, "axis", 1), intAttribute(node, "block_size", 0));
      }
      default: {
        const list = intsAttribute(node, "shape") ?? intsAttribute(node, "axes") ?? this.#integers(node.inputs[1] ?? "", depth);
        const shape = reshaped(node, tensor.shape, list);
        return shape && mapTensor(tensor, { shape }, (bytes) => bytes);
      }
    }
  }

  /** Values of a small constant of int64, such as a shape. */
  #integers(value: string, depth: number): readonly number[] | undefined {
    const { tensor, chain } = this.resolve(value, depth + 1) ?? {};
    if (tensor?.dtype !== "I64" || tensor.bytes === undefined || chain!.length > 0) return undefined;
    const view = new DataView(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.byteLength);
    return Array.from({ length: tensor.byteLength / 8 }, (_, i) => Number(view.getBigInt64(8 * i, true)));
  }
}

const FOLLOWED: ReadonlySet<string> = new Set([
  "Identity",
  "Cast",
  "Transpose",
  "DequantizeLinear",
  "Reshape",
  "Flatten",
  "Squeeze",
  "Unsqueeze",
]);

function plain(value: string, tensor: OnnxTensor): Omit<OnnxConstant, "source"> {
  return { tensor, value, stored: tensor, chain: [], isDequantized: false };
}

/** The tensor of a Constant node, whichever attribute holds it. */
export function constantValue(node: OnnxNode): OnnxTensor | undefined {
  for (const [name, attribute] of node.attributes) {
    const key = `${name} ${attribute.kind}`;
    if (key === "value tensor" && attribute.kind === "tensor") return attribute.value;
    if (key === "sparse_value sparse_tensor" && attribute.kind === "sparse_tensor") return makeDense(attribute.value);
    if (key === "value_float float" && attribute.kind === "float") return bytesOf("F32", [], Float32Array.of(attribute.value));
    if (key === "value_floats floats" && attribute.kind === "floats") {
      return bytesOf("F32", [attribute.value.length], Float32Array.from(attribute.value));
    }
    if (key === "value_int int" && attribute.kind === "int") return bytesOf("I64", [], BigInt64Array.of(BigInt(attribute.value)));
    if (key === "value_ints ints" && attribute.kind === "ints") {
      return bytesOf("I64", [attribute.value.length], BigInt64Array.from(attribute.value, BigInt));
    }
    if (key === "value_string string" && attribute.kind === "string") return makeStringTensor([], [encodeText(attribute.value)]);
    if (key === "value_strings strings" && attribute.kind === "strings") {
      return makeStringTensor([attribute.value.length], attribute.value.map(encodeText));
    }
  }
  return undefined;
}

function bytesOf(dtype: OnnxDType, shape: readonly number[], data: Float32Array | BigInt64Array): OnnxTensor {
  return makeOnnxTensor(dtype, shape, new Uint8Array(data.buffer));
}

function makeDense({ values, indices, shape }: OnnxSparseTensor): OnnxTensor {
  const width = onnxBits(values.dtype) / 8;
  return makeLazyOnnxTensor(values.dtype, shape, async () => {
    const out = new Uint8Array(elementCount(shape) * width);
    const [from, places] = [await values.read(), await indices.read()];
    const view = new DataView(places.buffer, places.byteOffset, places.byteLength);
    const rank = indices.shape.length === 2 ? shape.length : 1;
    for (let i = 0; i * width < from.byteLength; i++) {
      let at = 0;
      for (let axis = 0; axis < rank; axis++)
        at = at * (rank === 1 ? 1 : shape[axis]!) + Number(view.getBigInt64(8 * (i * rank + axis), true));
      out.set(from.subarray(i * width, (i + 1) * width), at * width);
    }
    return out;
  });
}

function castTensor(tensor: OnnxTensor, id: number): OnnxTensor | undefined {
  const dtype = [...DATA_TYPES].find(([, known]) => known === id)?.[0];
  if (dtype === tensor.dtype) return tensor;
  if ((dtype !== "F32" && dtype !== "F16" && dtype !== "BF16" && dtype !== "F64") || !isReadableAsFloat(tensor.dtype)) return undefined;
  return makeLazyOnnxTensor(dtype, tensor.shape, async () => fromFloat32(await readFloat32(tensor), tensor.shape, dtype).bytes);
}

/** The tensor with its axes in another order; nothing for packed types. */
export function transposeTensor(tensor: OnnxTensor, perm: readonly number[]): OnnxTensor | undefined {
  const width = onnxBits(tensor.dtype) / 8;
  const rank = tensor.shape.length;
  if (width < 1 || perm.length !== rank || new Set(perm).size !== rank || perm.some((axis) => axis < 0 || axis >= rank)) return undefined;
  const shape = perm.map((axis) => tensor.shape[axis]!);
  return mapTensor(tensor, { shape }, (bytes) => transposeBytes(bytes, tensor.shape, perm, width));
}

/** The shape that Reshape, Flatten, Squeeze or Unsqueeze gives; nothing when it does not hold the same elements. */
function reshaped(node: OnnxNode, shape: readonly number[], list: readonly number[] | undefined): readonly number[] | undefined {
  const count = elementCount(shape);
  let result: number[];
  if (node.op === "Flatten") {
    const axis = intAttribute(node, "axis", 1);
    const split = axis < 0 ? axis + shape.length : axis;
    result = [elementCount(shape.slice(0, split)), elementCount(shape.slice(split))];
  } else if (node.op === "Squeeze") {
    const axes = new Set(list?.map((axis) => (axis < 0 ? axis + shape.length : axis)));
    result = shape.filter((size, axis) => (list === undefined ? size !== 1 : !axes.has(axis)));
  } else if (list === undefined) return undefined;
  else if (node.op === "Unsqueeze") {
    const rank = shape.length + list.length;
    const axes = new Set(list.map((axis) => (axis < 0 ? axis + rank : axis)));
    const rest = shape.values();
    result = Array.from({ length: rank }, (_, axis) => (axes.has(axis) ? 1 : (rest.next().value ?? 0)));
  } else {
    const copies = intAttribute(node, "allowzero", 0) === 0;
    result = list.map((size, axis) => (size === 0 && copies ? (shape[axis] ?? 0) : size));
    const open = result.indexOf(-1);
    if (open !== -1) result[open] = count / elementCount(result.filter((_, axis) => axis !== open));
  }
  return elementCount(result) === count && result.every((size) => Number.isInteger(size) && size >= 0) ? result : undefined;
}
