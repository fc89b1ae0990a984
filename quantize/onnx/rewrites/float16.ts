/**
 * Float16: weights and the values between operators in half precision, inputs and outputs of the model as they were.
 * @module
 */
import { FLOAT32_INPUTS, FLOAT32_OPERATORS, INTEGER_OUTPUTS, INTEGER_RESULTS, TYPE_INPUT } from "./float16-operators.ts";
import { toHalfBits } from "./half-bits.ts";
import type {
  OnnxAttribute,
  OnnxGraph,
  OnnxModel,
  OnnxNode,
  OnnxSparseTensor,
  OnnxValueInfo,
} from "../../../formats/containers/onnx/model.ts";
import { makeLazyOnnxTensor, readFloat32, type OnnxTensor } from "../../../formats/containers/onnx/tensor.ts";
import { bodiesOf } from "../../../model/onnx/bodies.ts";
import { inlineFunctions } from "../../../model/onnx/inline.ts";
import { makeNode } from "../nodes.ts";

/** TensorProto.DataType. */
const FLOAT = 1;
const FLOAT16 = 10;
const HALF_MAX = 65504;

export interface Float16Options {
  /** More operators to leave in float32. */
  readonly keep?: ReadonlySet<string>;
}

export interface Float16Result {
  readonly model: OnnxModel;
  /** Values beyond ±65504 that were cut to it, and tiny ones that became 0, by tensor; filled while the model is written. */
  readonly lost: ReadonlyMap<string, { readonly clipped: number; readonly flushed: number }>;
}

/**
 * Convert a model. Functions are inlined: a function may be called with either type.
 *
 * Weights beyond float16 are cut to ±65504, so that no infinity comes in; nonzero values below it keep their sign and become the smallest
 * one (2^-24), so that no division by zero does.
 */
export function convertToFloat16(source: OnnxModel, { keep }: Float16Options = {}): Float16Result {
  const model = inlineFunctions(source);
  const converter = new Converter(model, keep ?? new Set());
  return { model: { ...model, graph: converter.main(model.graph) }, lost: converter.lost };
}

class Converter {
  readonly lost = new Map<string, { clipped: number; flushed: number }>();
  readonly #keep: ReadonlySet<string>;
  readonly #names: Set<string>;

  constructor(model: OnnxModel, keep: ReadonlySet<string>) {
    this.#keep = keep;
    this.#names = new Set(
      bodiesOf(model).flatMap(({ nodes, initializers, graph }) => [
        ...initializers.keys(),
        ...(graph?.inputs.map(({ name }) => name) ?? []),
        ...nodes.flatMap(({ outputs, name }) => [...outputs, name]),
      ]),
    );
  }

  main(graph: OnnxGraph): OnnxGraph {
    const before: OnnxNode[] = [];
    const after: OnnxNode[] = [];
    const renames = new Map<string, string>();
    const floatInputs = graph.inputs.filter(({ name, dtype }) => dtype === "F32" && !graph.initializers.has(name));
    for (const { name } of floatInputs) {
      const half = this.#fresh(`${name}_float16`);
      before.push(this.#cast(name, half, FLOAT16));
      renames.set(name, half);
    }
    const halves = new Set(renames.values());
    const scope = new Scope(undefined);
    for (const name of halves) scope.halves.add(name);
    for (const input of graph.inputs) if (!floatInputs.includes(input)) scope.others.add(input.name);
    const inner = this.#graph(graph, scope, renames);
    const nodes = [...inner.nodes];
    const produced = new Map(graph.outputs.map(({ name }) => [name, name]));
    for (const { name, dtype } of graph.outputs) {
      if (dtype !== "F32" && dtype !== undefined) continue;
      const value = renames.get(name) ?? name;
      if (!scope.isHalf(value)) continue;
      const half = renames.has(name) ? value : this.#fresh(`${name}_float16`);
      produced.set(name, half);
      after.push(this.#cast(half, name, FLOAT));
    }
    const moved = new Map([...produced].filter(([from, to]) => from !== to && !renames.has(from)));
    const initializers = new Map<string, OnnxTensor>();
    for (const [name, tensor] of inner.initializers) initializers.set(moved.get(name) ?? name, tensor);
    return {
      ...inner,
      nodes: [...before, ...renameAll(nodes, moved), ...after],
      initializers,
      inputs: graph.inputs.map((input) => (graph.initializers.has(input.name) ? retype(input) : input)),
      outputs: graph.outputs,
    };
  }

  /** Initializers and nodes of a graph in half precision; `scope` learns which values are. */
  #graph(graph: OnnxGraph, scope: Scope, renames: ReadonlyMap<string, string>): OnnxGraph {
    const initializers = new Map<string, OnnxTensor>();
    for (const [name, tensor] of graph.initializers) {
      const isFloat = tensor.dtype === "F32";
      initializers.set(name, isFloat ? this.#half(name, tensor) : tensor);
      (isFloat ? scope.halves : scope.others).add(name);
    }
    const nodes: OnnxNode[] = [];
    for (const node of graph.nodes) nodes.push(...this.#node(node, scope, renames));
    const { valueInfos: _, ...rest } = graph;
    return {
      ...rest,
      nodes,
      initializers,
      ...(graph.sparseInitializers && { sparseInitializers: this.#sparse(graph.sparseInitializers, scope) }),
    };
  }

  #node(source: OnnxNode, scope: Scope, renames: ReadonlyMap<string, string>): readonly OnnxNode[] {
    const node = { ...source, inputs: source.inputs.map((name) => renames.get(name) ?? name) };
    if (node.op === "Constant" && node.domain === "") return [this.#constant(node, scope)];
    if (node.op === "Cast" && node.domain === "") {
      const to = node.attributes.get("to");
      const isFloat = to?.kind === "int" && Number(to.value) === FLOAT;
      (isFloat ? scope.halves : scope.others).add(node.outputs[0]!);
      return [isFloat ? { ...node, attributes: new Map([...node.attributes, ["to", { kind: "int", value: FLOAT16 }]]) } : node];
    }
    const hasGraphs = [...node.attributes.values()].some(({ kind }) => kind === "graph" || kind === "graphs");
    if (hasGraphs) return [this.#control(node, scope, renames)];
    if (node.op === "ConstantOfShape" && node.domain === "") return [this.#filled(node, scope)];
    const known = node.domain === "" || node.domain === "ai.onnx" || node.domain === "com.microsoft";
    if (
      !known ||
      FLOAT32_OPERATORS.has(node.op) ||
      /^(?:QLinear|QGemm|QAttention|DynamicQuantize|MatMulIntegerToFloat)/.test(node.op) ||
      this.#keep.has(node.op)
    )
      return this.#around(node, scope);
    const pinned = FLOAT32_INPUTS.get(node.op) ?? [];
    const before: OnnxNode[] = [];
    const inputs = node.inputs.map((name, slot) => {
      if (!pinned.includes(slot) || !scope.isHalf(name)) return name;
      const wide = this.#fresh(`${name}_float32`);
      before.push(this.#cast(name, wide, FLOAT));
      return wide;
    });
    const halves = node.inputs.some((name) => name !== "" && scope.isHalf(name));
    markOutputs(node, scope, halves);
    return [...before, { ...node, inputs }];
  }

  /** An operator left in float32: half inputs widened, float outputs narrowed. */
  #around(node: OnnxNode, scope: Scope): readonly OnnxNode[] {
    const before: OnnxNode[] = [];
    const after: OnnxNode[] = [];
    const inputs = node.inputs.map((name) => {
      if (name === "" || !scope.isHalf(name)) return name;
      const wide = this.#fresh(`${name}_float32`);
      before.push(this.#cast(name, wide, FLOAT));
      return wide;
    });
    const isFloat = before.length > 0 && !INTEGER_RESULTS.has(node.op);
    const outputs = node.outputs.map((name, slot) => {
      if (name === "") return name;
      if (!isFloat || INTEGER_OUTPUTS.get(node.op)?.includes(slot) === true) {
        scope.others.add(name);
        return name;
      }
      const wide = this.#fresh(`${name}_float32`);
      after.push(this.#cast(wide, name, FLOAT16));
      scope.halves.add(name);
      return wide;
    });
    return [...before, { ...node, inputs, outputs }, ...after];
  }

  #constant(node: OnnxNode, scope: Scope): OnnxNode {
    const attributes = new Map<string, OnnxAttribute>();
    let isHalf = false;
    for (const [name, attribute] of node.attributes) {
      const output = node.outputs[0]!;
      if (attribute.kind === "tensor" && attribute.value.dtype === "F32") {
        isHalf = true;
        attributes.set(name, { kind: "tensor", value: this.#half(output, attribute.value) });
      } else if (attribute.kind === "sparse_tensor" && attribute.value.values.dtype === "F32") {
        isHalf = true;
        attributes.set(name, { kind: "sparse_tensor", value: { ...attribute.value, values: this.#half(output, attribute.value.values) } });
      } else if (name === "value_float" && attribute.kind === "float") {
        isHalf = true;
        attributes.set("value", { kind: "tensor", value: halvesOf(Float32Array.of(attribute.value), []) });
      } else if (name === "value_floats" && attribute.kind === "floats") {
        isHalf = true;
        attributes.set("value", { kind: "tensor", value: halvesOf(Float32Array.from(attribute.value), [attribute.value.length]) });
      } else attributes.set(name, attribute);
    }
    (isHalf ? scope.halves : scope.others).add(node.outputs[0]!);
    return { ...node, attributes };
  }

  #filled(node: OnnxNode, scope: Scope): OnnxNode {
    const value = node.attributes.get("value");
    const isFloat = value === undefined || (value.kind === "tensor" && value.value.dtype === "F32");
    (isFloat ? scope.halves : scope.others).add(node.outputs[0]!);
    if (!isFloat) return node;
    const tensor =
      value === undefined ? halvesOf(Float32Array.of(0), [1]) : this.#half(node.outputs[0]!, (value as { value: OnnxTensor }).value);
    return { ...node, attributes: new Map([...node.attributes, ["value", { kind: "tensor", value: tensor }]]) };
  }

  #control(node: OnnxNode, scope: Scope, renames: ReadonlyMap<string, string>): OnnxNode {
    const attributes = new Map<string, OnnxAttribute>();
    const outputs = new Map<number, boolean>();
    for (const [name, attribute] of node.attributes) {
      if (attribute.kind !== "graph") {
        attributes.set(name, attribute);
        continue;
      }
      const inner = new Scope(scope);
      const own = new Map([...renames].filter(([from]) => !attribute.value.inputs.some((input) => input.name === from)));
      // The body's own inputs follow what the node is fed.
      for (const [i, input] of attribute.value.inputs.entries()) {
        const fed = node.op === "Loop" ? node.inputs[i] : node.inputs[i];
        const isHalf = input.dtype === "F32" || (input.dtype === undefined && fed !== undefined && scope.isHalf(fed));
        (isHalf ? inner.halves : inner.others).add(input.name);
      }
      const body = this.#graph(attribute.value, inner, own);
      const results = attribute.value.outputs.map((output) => ({ ...output, name: own.get(output.name) ?? output.name }));
      const skipped = node.op === "Loop" ? 1 : 0;
      for (const [i, { name: result }] of results.entries())
        if (i >= skipped) outputs.set(i - skipped, outputs.get(i - skipped) === true || inner.isHalf(result));
      attributes.set(name, {
        ...attribute,
        value: {
          ...body,
          inputs: attribute.value.inputs.map(retype),
          outputs: results.map((output) => (output.dtype === "F32" ? retype(output) : output)),
        },
      });
    }
    for (const [i, name] of node.outputs.entries()) if (name !== "") (outputs.get(i) === true ? scope.halves : scope.others).add(name);
    return { ...node, attributes };
  }

  #sparse(tensors: ReadonlyMap<string, OnnxSparseTensor>, scope: Scope): ReadonlyMap<string, OnnxSparseTensor> {
    return new Map(
      [...tensors].map(([name, tensor]) => {
        const isFloat = tensor.values.dtype === "F32";
        (isFloat ? scope.halves : scope.others).add(name);
        return [name, isFloat ? { ...tensor, values: this.#half(name, tensor.values) } : tensor];
      }),
    );
  }

  #half(name: string, tensor: OnnxTensor): OnnxTensor {
    const read = async (): Promise<Uint8Array> => {
      const { bytes, clipped, flushed } = toHalf(await readFloat32(tensor));
      if (clipped > 0 || flushed > 0) this.lost.set(name, { clipped, flushed });
      return bytes;
    };
    const lazy = makeLazyOnnxTensor("F16", tensor.shape, read);
    return tensor.external === undefined ? lazy : { ...lazy, external: tensor.external };
  }

  #cast(from: string, to: string, type: number): OnnxNode {
    return { ...makeNode("Cast", [from], [to], { to: type }), name: this.#fresh(`${to}_Cast`) };
  }

  #fresh(base: string): string {
    let name = base;
    for (let i = 2; this.#names.has(name); i++) name = `${base}_${i}`;
    this.#names.add(name);
    return name;
  }
}

/** Which values are float16, in a graph and those around it. */
class Scope {
  readonly halves = new Set<string>();
  readonly others = new Set<string>();
  readonly #outer: Scope | undefined;

  constructor(outer: Scope | undefined) {
    this.#outer = outer;
  }

  isHalf(name: string): boolean {
    return this.halves.has(name) || (!this.others.has(name) && this.#outer?.isHalf(name) === true);
  }

  isOther(name: string): boolean {
    return this.others.has(name);
  }
}

function markOutputs(node: OnnxNode, scope: Scope, anyHalf: boolean): void {
  const slot = node.domain === "" ? TYPE_INPUT.get(node.op) : undefined;
  const isHalf = INTEGER_RESULTS.has(node.op) ? false : slot === undefined ? anyHalf : scope.isHalf(node.inputs[slot] ?? "");
  for (const [i, name] of node.outputs.entries()) {
    if (name === "") continue;
    (isHalf && INTEGER_OUTPUTS.get(node.op)?.includes(i) !== true ? scope.halves : scope.others).add(name);
  }
}

function retype(info: OnnxValueInfo): OnnxValueInfo {
  if (info.dtype !== "F32") return info;
  const { typeProto: _, ...rest } = info;
  return { ...rest, dtype: "F16" };
}

function renameAll(nodes: readonly OnnxNode[], names: ReadonlyMap<string, string>): readonly OnnxNode[] {
  if (names.size === 0) return nodes;
  const to = (name: string): string => names.get(name) ?? name;
  return nodes.map((node) => {
    const attributes = new Map<string, OnnxAttribute>();
    for (const [key, attribute] of node.attributes) {
      attributes.set(
        key,
        attribute.kind === "graph"
          ? {
              ...attribute,
              value: {
                ...attribute.value,
                nodes: renameAll(attribute.value.nodes, names),
                outputs: attribute.value.outputs.map((output) => ({ ...output, name: to(output.name) })),
              },
            }
          : attribute,
      );
    }
    return { ...node, inputs: node.inputs.map(to), outputs: node.outputs.map(to), attributes };
  });
}

/** A tensor in half precision, computed when it is read. */
export function halfTensor(tensor: OnnxTensor): OnnxTensor {
  return makeLazyOnnxTensor("F16", tensor.shape, async () => toHalf(await readFloat32(tensor)).bytes);
}

function halvesOf(values: Float32Array, shape: readonly number[]): OnnxTensor {
  const { bytes } = toHalf(values);
  return { dtype: "F16", shape, byteLength: bytes.byteLength, bytes, read: async () => bytes.slice() };
}

/** Bits of values in half precision. Infinities and NaN stay: masks are made of them. */
function toHalf(values: Float32Array): { readonly bytes: Uint8Array; readonly clipped: number; readonly flushed: number } {
  let [clipped, flushed] = [0, 0];
  const held = values.map((value) => {
    const size = Math.abs(value);
    if (size > HALF_MAX && size !== Infinity) {
      clipped++;
      return Math.sign(value) * HALF_MAX;
    }
    if (size !== 0 && size < 2 ** -24) {
      flushed++;
      return Math.sign(value) * 2 ** -24;
    }
    return value;
  });
  return { bytes: toHalfBits(held), clipped, flushed };
}
