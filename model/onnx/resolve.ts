/**
 * Resolves values of an ONNX model that are constant: initializers, Constant nodes, and what Identity, Transpose, Cast,
 * Reshape and DequantizeLinear make of them. A value of an outer graph is seen from inside.
 * @module
 */
import { elementCount } from "../../core/dtype.ts";
import { onnxBits, type OnnxDType } from "../../formats/containers/onnx/dtypes.ts";
import { encodeText } from "../../formats/containers/onnx/message.ts";
import type { OnnxNode, OnnxSparseTensor } from "../../formats/containers/onnx/model.ts";
import { makeLazyOnnxTensor, makeOnnxTensor, makeStringTensor, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { intAttribute } from "./attributes.ts";
import type { PlacedBody } from "./bodies.ts";
import { dequantize } from "./dequantize.ts";
import { integersOf, moveTensor } from "./movement.ts";
import type { OnnxConstant } from "./site.ts";

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

  /** The node that gives a value, in this body or in one around it, and the resolver of that body. */
  producer(value: string): { readonly node: OnnxNode; readonly resolver: ConstantResolver } | undefined {
    const node = this.#producers.get(value);
    if (node !== undefined) return { node, resolver: this };
    return this.#hidden.has(value) ? undefined : this.#outer?.producer(value);
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
    const isDequantized = from.isDequantized || node.op === "DequantizeLinear" || node.op === "Mul";
    return tensor && { ...from, tensor, value, chain: [...from.chain, node], isDequantized };
  }

  #apply(node: OnnxNode, tensor: OnnxTensor, depth: number): OnnxTensor | undefined {
    if (node.op === "Mul") return this.#scale(node, tensor, depth);
    if (node.op !== "DequantizeLinear") return moveTensor(node, [tensor], (slot) => this.#integers(node.inputs[slot] ?? "", depth));
    const [scale, zero] = [1, 2].map((slot) => this.resolve(node.inputs[slot] ?? "", depth + 1)?.tensor);
    if (scale === undefined || (zero === undefined && (node.inputs[2] ?? "") !== "")) return undefined;
    return dequantize(tensor, scale, zero, intAttribute(node, "axis", 1), intAttribute(node, "block_size", 0));
  }

  /** Codes, cast to floats, times one scale an index of one axis: DequantizeLinear in operators that runtimes fold. */
  #scale(node: OnnxNode, tensor: OnnxTensor, depth: number): OnnxTensor | undefined {
    const codes = this.resolve(node.inputs[0]!, depth + 1);
    const scale = this.resolve(node.inputs[1] ?? "", depth + 1)?.tensor;
    if (scale === undefined || codes?.chain.at(-1)?.op !== "Cast" || !CODES.has(codes.stored.dtype)) return undefined;
    const count = elementCount(scale.shape);
    const axis = scale.shape.findIndex((size) => size !== 1);
    if (count !== 1 && (scale.shape.length !== tensor.shape.length || scale.shape[axis] !== count)) return undefined;
    return dequantize(tensor, { ...scale, shape: [count] }, undefined, Math.max(axis, 0), 0);
  }

  /** Values of a small constant of int64, such as a shape. */
  #integers(value: string, depth: number): readonly number[] | undefined {
    const { tensor, chain } = this.resolve(value, depth + 1) ?? {};
    return tensor !== undefined && chain!.length === 0 ? integersOf(tensor) : undefined;
  }
}

const CODES: ReadonlySet<OnnxDType> = new Set<OnnxDType>(["I8", "U8"]);

const FOLLOWED: ReadonlySet<string> = new Set([
  "Identity",
  "Cast",
  "Transpose",
  "DequantizeLinear",
  "Mul",
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
