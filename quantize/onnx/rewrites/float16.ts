/**
 * Float16: weights and the values between operators in half precision, inputs and outputs of the model as they were.
 * @module
 */
import { FLOAT32_OPERATORS, FLOAT_MAKERS, INTEGER_OUTPUTS, INTEGER_RESULTS, TYPE_INPUT } from "./float16-operators.ts";
import { castNode, FLOAT, FLOAT16, Float16Scope } from "./float16-scope.ts";
import { toHalfBits } from "./half-bits.ts";
import { findAngles } from "./float16-angles.ts";
import type {
  OnnxAttribute,
  OnnxGraph,
  OnnxModel,
  OnnxNode,
  OnnxSparseTensor,
  OnnxValueInfo,
} from "../../../formats/containers/onnx/model.ts";
import { makeLazyOnnxTensor, makeOnnxTensor, readFloat32, type OnnxTensor } from "../../../formats/containers/onnx/tensor.ts";
import { elementCount } from "../../../core/dtype.ts";
import { intAttribute } from "../../../model/onnx/attributes.ts";
import { bodiesOf } from "../../../model/onnx/bodies.ts";
import { floats } from "../nodes.ts";

/** Largest finite float16. */
export const HALF_MAX = 65_504;
/** Smallest positive float16. */
export const HALF_MIN = 2 ** -24;

/** Constants of operators in float32 stay so up to this many values: scales, steps, sizes. Larger ones are weights, cast when they are read. */
const MAX_SINGLE = 4096;

/** What stays in float32. */
export interface Float16Plan {
  readonly nodes: ReadonlySet<OnnxNode>;
  /** Initializers, tensors of Constant nodes, or such nodes themselves. */
  readonly constants: ReadonlySet<OnnxTensor | OnnxNode>;
}

/**
 * Convert a model whose functions are inlined. Operators of the plan, those of unknown domains and those that have no float16 kernels stand between
 * Casts; a value that only they read and write stays float32.
 *
 * Weights beyond float16 that the plan does not name are cut to ±65504, so that no infinity comes in; nonzero values below it keep their sign
 * and become the smallest one (2^-24), so that no division by zero does.
 *
 * @param plan - absent: the angles of rotary positions, because past position 2048 a half cannot even hold the position.
 */
export function convertToFloat16(model: OnnxModel, plan?: Float16Plan): OnnxModel {
  return { ...model, graph: new Converter(model, plan ?? findAngles(model)).main(model.graph) };
}

/** Computed values of the main graph, and its inputs, that the conversion takes for floats. Sequences are none. */
export function floatValuesOf(model: OnnxModel): readonly string[] {
  const converter = new Converter(model, { nodes: new Set(), constants: new Set() });
  converter.main(model.graph);
  const { inputs, initializers, nodes } = model.graph;
  const computed = nodes.flatMap(({ op, outputs }) => (op === "Constant" || /Sequence|Optional/.test(op) ? [] : outputs));
  const names = [...inputs.flatMap(({ name }) => (initializers.has(name) ? [] : [name])), ...computed];
  return names.filter((name) => converter.values.isFloat(name));
}

/** Whether an operator has no float16 form, whatever its values. */
export function isFloat32Operator({ op, domain }: OnnxNode): boolean {
  const isKnown = domain === "" || domain === "ai.onnx" || domain === "com.microsoft";
  return !isKnown || FLOAT32_OPERATORS.has(op) || /^(?:QLinear|QGemm|QAttention|DynamicQuantize|MatMulIntegerToFloat)/.test(op);
}

class Converter {
  /** Of the main graph. */
  readonly values: Float16Scope;
  readonly #plan: Float16Plan;
  readonly #names: Set<string>;
  /** Constants that only operators in float32 read, by name. */
  readonly #singles: ReadonlySet<string>;

  constructor(model: OnnxModel, plan: Float16Plan) {
    this.#plan = plan;
    this.values = new Float16Scope(this.#fresh);
    const bodies = bodiesOf(model);
    this.#names = new Set(
      bodies.flatMap(({ nodes, initializers, graph }) => [
        ...initializers.keys(),
        ...(graph?.inputs.map(({ name }) => name) ?? []),
        ...nodes.flatMap(({ outputs, name }) => [...outputs, name]),
      ]),
    );
    const readers = new Map<string, boolean>();
    for (const { nodes, graph } of bodies) {
      for (const node of nodes)
        for (const input of node.inputs) readers.set(input, readers.get(input) !== false && this.#staysSingle(node));
      for (const { name } of graph?.outputs ?? []) readers.set(name, false);
    }
    this.#singles = new Set([...readers].flatMap(([name, all]) => (all ? [name] : [])));
  }

  main(graph: OnnxGraph): OnnxGraph {
    const scope = this.values;
    for (const { name, dtype } of graph.inputs) if (!graph.initializers.has(name)) scope.set(name, dtype === "F32" ? "single" : "other");
    const inner = this.#graph(graph, scope);
    const after = new Map<string, OnnxNode>();
    const moved = new Map<string, string>();
    for (const { name, dtype } of graph.outputs) {
      if ((dtype !== "F32" && dtype !== undefined) || scope.kind(name) !== "half" || moved.has(name)) continue;
      const half = this.#fresh(`${name}_float16`);
      moved.set(name, half);
      after.set(half, castNode(half, name, FLOAT, this.#fresh));
    }
    const initializers = new Map([...inner.initializers].map(([name, tensor]) => [moved.get(name) ?? name, tensor]));
    // Casts of inputs first, those of outputs behind what makes them: memory is then reused as in the source, which attention with a cache depends on.
    const inputs = new Set(graph.inputs.map(({ name }) => name));
    const isFirst = ({ op, inputs: [from], outputs: [to] }: OnnxNode): boolean => op === "Cast" && inputs.has(from!) && scope.isTwin(to!);
    const [first, others] = [inner.nodes.filter(isFirst), inner.nodes.filter((node) => !isFirst(node))];
    const placed = renameAll(others, moved).flatMap((node) => [node, ...node.outputs.flatMap((name) => takeFrom(after, name))]);
    const isHalf = ({ name }: OnnxValueInfo): boolean => initializers.get(name)?.dtype === "F16";
    return {
      ...inner,
      nodes: [...first, ...after.values(), ...placed],
      initializers,
      inputs: graph.inputs.map((input) => (isHalf(input) ? retype(input) : input)),
      outputs: graph.outputs,
    };
  }

  /** Initializers and nodes of a graph in half precision; `scope` learns which values are. */
  #graph(graph: OnnxGraph, scope: Float16Scope): OnnxGraph {
    const initializers = new Map<string, OnnxTensor>();
    for (const [name, tensor] of graph.initializers) {
      const kind = tensor.dtype !== "F32" ? "other" : this.#isSingle(name, tensor) ? "single" : "half";
      initializers.set(name, kind === "half" ? halfTensor(tensor) : tensor);
      scope.set(name, kind);
    }
    const sparse = new Map<string, OnnxSparseTensor>();
    for (const [name, tensor] of graph.sparseInitializers ?? []) {
      const kind = tensor.values.dtype === "F32" ? "half" : "other";
      sparse.set(name, kind === "half" ? { ...tensor, values: halfTensor(tensor.values) } : tensor);
      scope.set(name, kind);
    }
    for (const node of graph.nodes) this.#node(node, scope);
    const { valueInfos: _, ...rest } = graph;
    return { ...rest, nodes: scope.nodes, initializers, ...(graph.sparseInitializers && { sparseInitializers: sparse }) };
  }

  #staysSingle(node: OnnxNode): boolean {
    return this.#plan.nodes.has(node) || isFloat32Operator(node);
  }

  #isSingle(name: string, tensor: OnnxTensor): boolean {
    return this.#plan.constants.has(tensor) || (this.#singles.has(name) && elementCount(tensor.shape) <= MAX_SINGLE);
  }

  /** Write a node, with Casts in front of it where its inputs need them. */
  #node(node: OnnxNode, scope: Float16Scope): void {
    if (node.op === "Constant" && node.domain === "") return this.#constant(node, scope);
    if ([...node.attributes.values()].some(({ kind }) => kind === "graph" || kind === "graphs")) return this.#control(node, scope);
    if (this.#staysSingle(node)) return this.#single(node, scope);
    if (node.op === "Cast" && node.domain === "") return this.#cast(node, scope);
    if (node.op === "ConstantOfShape" && node.domain === "") return this.#filled(node, scope);
    const anyFloat = node.inputs.some((name) => scope.isFloat(name));
    const inputs = node.inputs.map((name) => scope.half(name));
    scope.nodes.push({ ...node, inputs });
    markOutputs(node, scope, anyFloat, "half");
  }

  /** An operator left in float32. */
  #single(node: OnnxNode, scope: Float16Scope): void {
    const makes = FLOAT_MAKERS.has(node.op) || (node.op === "Cast" && intAttribute(node, "to", 0) === FLOAT);
    const anyFloat = makes
      ? intAttribute(node, node.op === "Cast" ? "to" : "dtype", intAttribute(node, "output_datatype", FLOAT)) === FLOAT
      : node.inputs.some((name) => scope.isFloat(name));
    const inputs = node.inputs.map((name) => scope.single(name));
    scope.nodes.push({ ...node, inputs });
    if (node.op === "Cast" && !makes) for (const name of node.outputs) scope.set(name, "other");
    else markOutputs(node, scope, anyFloat, "single");
  }

  #cast(node: OnnxNode, scope: Float16Scope): void {
    const isFloat = intAttribute(node, "to", 0) === FLOAT;
    const attributes = isFloat ? new Map(node.attributes).set("to", { kind: "int", value: FLOAT16 }) : node.attributes;
    scope.nodes.push({ ...node, attributes });
    scope.set(node.outputs[0]!, isFloat ? "half" : "other");
  }

  #constant(node: OnnxNode, scope: Float16Scope): void {
    const attributes = new Map<string, OnnxAttribute>();
    const output = node.outputs[0]!;
    let kind: "half" | "single" | "other" = "other";
    for (const [name, attribute] of node.attributes) {
      const tensor = floatTensor(name, attribute);
      if (tensor === undefined) {
        attributes.set(name, attribute);
        continue;
      }
      const stays = this.#plan.constants.has(node) || this.#isSingle(output, tensor);
      kind = stays ? "single" : "half";
      if (stays) attributes.set(name, attribute);
      else if (attribute.kind === "sparse_tensor")
        attributes.set(name, { kind: "sparse_tensor", value: { ...attribute.value, values: halfTensor(tensor) } });
      else attributes.set("value", { kind: "tensor", value: halfTensor(tensor) });
    }
    scope.nodes.push({ ...node, attributes });
    scope.set(output, kind);
  }

  #filled(node: OnnxNode, scope: Float16Scope): void {
    const value = node.attributes.get("value");
    const isFloat = value === undefined || (value.kind === "tensor" && value.value.dtype === "F32");
    scope.set(node.outputs[0]!, isFloat ? "half" : "other");
    const tensor = value?.kind === "tensor" ? halfTensor(value.value) : halvesOf(Float32Array.of(0), [1]);
    scope.nodes.push(isFloat ? { ...node, attributes: new Map(node.attributes).set("value", { kind: "tensor", value: tensor }) } : node);
  }

  /** If, Loop, Scan: bodies take and give halves. */
  #control(node: OnnxNode, scope: Float16Scope): void {
    const attributes = new Map<string, OnnxAttribute>();
    const inputs = node.inputs.map((name) => scope.half(name));
    const halves = new Set<number>();
    const convert = (graph: OnnxGraph): OnnxGraph => {
      const inner = new Float16Scope(this.#fresh, scope);
      // The body's own inputs follow what the node is fed.
      for (const [i, { name, dtype }] of graph.inputs.entries()) {
        const isHalf = dtype === "F32" || (dtype === undefined && scope.isFloat(node.inputs[i] ?? ""));
        inner.set(name, isHalf ? "half" : "other");
      }
      const body = this.#graph(graph, inner);
      const outputs = graph.outputs.map((output) => ({ ...output, name: inner.half(output.name) }));
      const skipped = node.op === "Loop" ? 1 : 0;
      for (const [i, { name }] of graph.outputs.entries()) if (i >= skipped && inner.isFloat(name)) halves.add(i - skipped);
      return { ...body, inputs: graph.inputs.map(retype), outputs: outputs.map(retype) };
    };
    for (const [name, attribute] of node.attributes) {
      if (attribute.kind === "graph") attributes.set(name, { ...attribute, value: convert(attribute.value) });
      else if (attribute.kind === "graphs") attributes.set(name, { ...attribute, value: attribute.value.map(convert) });
      else attributes.set(name, attribute);
    }
    scope.nodes.push({ ...node, inputs, attributes });
    for (const [i, name] of node.outputs.entries()) scope.set(name, halves.has(i) ? "half" : "other");
  }

  readonly #fresh = (base: string): string => {
    let name = base;
    for (let i = 2; this.#names.has(name); i++) name = `${base}_${i}`;
    this.#names.add(name);
    return name;
  };
}

/** The entry, if there is one, taken out. */
function takeFrom<T>(map: Map<string, T>, key: string): readonly T[] {
  const found = map.get(key);
  map.delete(key);
  return found === undefined ? [] : [found];
}

function markOutputs(node: OnnxNode, scope: Float16Scope, anyFloat: boolean, kind: "half" | "single"): void {
  const slot = node.domain === "" ? TYPE_INPUT.get(node.op) : undefined;
  const isFloat = givesIntegers(node) ? false : slot === undefined ? anyFloat : scope.isFloat(node.inputs[slot] ?? "");
  for (const [i, name] of node.outputs.entries())
    scope.set(name, isFloat && INTEGER_OUTPUTS.get(node.op)?.includes(i) !== true ? kind : "other");
}

/** QLinear operators take floats for scales only; QGemm gives codes where it is told their scale. */
function givesIntegers({ op, inputs }: OnnxNode): boolean {
  return INTEGER_RESULTS.has(op) || op.startsWith("QLinear") || (op === "QGemm" && (inputs[7] ?? "") !== "");
}

/** The float32 tensor that an attribute of a Constant node holds. */
export function floatTensor(name: string, attribute: OnnxAttribute): OnnxTensor | undefined {
  if (attribute.kind === "tensor" && attribute.value.dtype === "F32") return attribute.value;
  if (attribute.kind === "sparse_tensor" && attribute.value.values.dtype === "F32") return attribute.value.values;
  if (name === "value_float" && attribute.kind === "float") return floats([attribute.value]);
  if (name === "value_floats" && attribute.kind === "floats") return floats(attribute.value, [attribute.value.length]);
  return undefined;
}

function retype(info: OnnxValueInfo): OnnxValueInfo {
  if (info.dtype !== "F32") return info;
  const { typeProto: _, ...rest } = info;
  return { ...rest, dtype: "F16" };
}

function renameAll(nodes: readonly OnnxNode[], names: ReadonlyMap<string, string>): readonly OnnxNode[] {
  if (names.size === 0) return nodes;
  const to = (name: string): string => names.get(name) ?? name;
  const inner = (graph: OnnxGraph): OnnxGraph => ({
    ...graph,
    nodes: renameAll(graph.nodes, names),
    outputs: graph.outputs.map((output) => ({ ...output, name: to(output.name) })),
  });
  return nodes.map((node) => {
    const attributes = new Map<string, OnnxAttribute>();
    for (const [key, attribute] of node.attributes) {
      if (attribute.kind === "graph") attributes.set(key, { ...attribute, value: inner(attribute.value) });
      else if (attribute.kind === "graphs") attributes.set(key, { ...attribute, value: attribute.value.map(inner) });
      else attributes.set(key, attribute);
    }
    return { ...node, inputs: node.inputs.map(to), outputs: node.outputs.map(to), attributes };
  });
}

/** A tensor in half precision, computed when it is read. */
export function halfTensor(tensor: OnnxTensor): OnnxTensor {
  const lazy = makeLazyOnnxTensor("F16", tensor.shape, async () => toHalf(await readFloat32(tensor)));
  return tensor.external === undefined ? lazy : { ...lazy, external: tensor.external };
}

function halvesOf(values: Float32Array, shape: readonly number[]): OnnxTensor {
  return makeOnnxTensor("F16", shape, toHalf(values));
}

/** Bits of values in half precision. Infinities and NaN stay: masks are made of them. */
function toHalf(values: Float32Array): Uint8Array {
  const held = values.map((value) => {
    const size = Math.abs(value);
    if (size > HALF_MAX && size !== Infinity) return Math.sign(value) * HALF_MAX;
    return size !== 0 && size < HALF_MIN ? Math.sign(value) * HALF_MIN : value;
  });
  return toHalfBits(held);
}
