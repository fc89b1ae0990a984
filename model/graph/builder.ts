/**
 * GraphBuilder: writes a graph node by node. Value names are given by the
 * caller where they matter (taps, sites) and numbered otherwise; the numbering
 * depends only on the calls, so equal code gives equal graphs.
 * @module
 */
import type { DType } from "../../core/dtype.ts";
import { InputError } from "../../core/errors.ts";
import { tensorOf, type Tensor } from "../../core/tensor.ts";
import type { Attribute, Graph, GraphNode, ValueType } from "./graph.ts";

/** Attribute values as written in code: integers → int, {float: x} → float, arrays of integers → ints. */
export type AttributeInput = number | string | readonly number[] | { readonly float: number } | Attribute;

/** ONNX opset of the graphs we build: RMSNormalization, RotaryEmbedding and Attention are standard from here on. */
export const OPSET = 23;

export class GraphBuilder {
  readonly #name: string;
  readonly #opset: number;
  readonly #inputs: ValueType[] = [];
  readonly #weights: ValueType[] = [];
  readonly #constants = new Map<string, Tensor>();
  readonly #nodes: GraphNode[] = [];
  readonly #names = new Set<string>();
  #next = 0;

  constructor(name: string, opset: number = OPSET) {
    this.#name = name;
    this.#opset = opset;
  }

  /** A builder that already holds `graph`, to append to or to rewrite; `graph` itself is not changed. */
  static from(graph: Graph): GraphBuilder {
    const builder = new GraphBuilder(graph.name, graph.opsets[""] ?? OPSET);
    builder.#inputs.push(...graph.inputs);
    builder.#weights.push(...graph.weights);
    for (const [name, tensor] of graph.constants) builder.#constants.set(name, tensor);
    builder.#nodes.push(...graph.nodes);
    for (const value of [...graph.inputs, ...graph.weights]) builder.#names.add(value.name);
    for (const name of graph.constants.keys()) builder.#names.add(name);
    for (const node of graph.nodes) for (const output of node.outputs) builder.#names.add(output);
    return builder;
  }

  input(name: string, dtype: DType, shape: readonly (number | string)[]): string {
    this.#inputs.push({ name: this.#claim(name), dtype, shape });
    return name;
  }

  /** A weight slot, fed as `dtype` (F32 unless said otherwise). */
  weight(slot: string, shape: readonly (number | string)[], dtype: DType = "F32"): string {
    this.#weights.push({ name: this.#claim(slot), dtype, shape });
    return slot;
  }

  constant(tensor: Tensor, name: string = this.#fresh("constant")): string {
    this.#constants.set(this.#claim(name), tensor);
    return name;
  }

  /** An int64 constant: [values.length] for an array, a scalar for a number. */
  int64(values: number | readonly number[]): string {
    const list = typeof values === "number" ? [values] : values;
    return this.constant(tensorOf(BigInt64Array.from(list, BigInt), typeof values === "number" ? [] : [list.length]));
  }

  /** An f32 scalar constant. */
  float32(value: number): string {
    return this.constant(tensorOf(Float32Array.of(value), []));
  }

  /**
   * Append a node with one output.
   *
   * @param output - the value's name; numbered after the operator when left out.
   * @returns the output's name.
   */
  op(op: string, inputs: readonly string[], attributes: Readonly<Record<string, AttributeInput>> = {}, output?: string): string {
    return this.multi(op, inputs, attributes, [output ?? this.#fresh(op.toLowerCase())])[0]!;
  }

  /** Append a node with the outputs named. @returns their names. */
  multi(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeInput>>,
    outputs: readonly string[],
    domain = "",
  ): readonly string[] {
    const first = outputs.find((name) => name !== "") ?? op;
    for (const name of outputs) if (name !== "") this.#claim(name);
    this.#nodes.push({ name: `${op}:${first}`, op, domain, inputs, outputs, attributes: tagAttributes(attributes) });
    return outputs;
  }

  /** Names for `count` outputs of a node, for `multi`. */
  fresh(stem: string, count: number): string[] {
    return Array.from({ length: count }, () => this.#fresh(stem));
  }

  build(outputs: readonly string[]): Graph {
    const domains = [...new Set(this.#nodes.map((node) => node.domain))].filter((domain) => domain !== "");
    return {
      name: this.#name,
      inputs: [...this.#inputs],
      weights: [...this.#weights],
      constants: new Map(this.#constants),
      nodes: [...this.#nodes],
      outputs,
      opsets: { "": this.#opset, ...Object.fromEntries(domains.map((domain) => [domain, 1])) },
    };
  }

  #fresh(stem: string): string {
    let name: string;
    do name = `${stem}_${this.#next++}`;
    while (this.#names.has(name));
    return name;
  }

  #claim(name: string): string {
    if (name === "" || this.#names.has(name))
      throw new InputError("input.value", `value name "${name}" is empty or taken in graph ${this.#name}`);
    this.#names.add(name);
    return name;
  }
}

function tagAttributes(attributes: Readonly<Record<string, AttributeInput>>): Record<string, Attribute> {
  return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [name, tagAttribute(value)]));
}

function tagAttribute(value: AttributeInput): Attribute {
  if (typeof value === "number") return { kind: "int", value };
  if (typeof value === "string") return { kind: "string", value };
  if (isIntegers(value)) return { kind: "ints", value };
  return "float" in value ? { kind: "float", value: value.float } : value;
}

function isIntegers(value: AttributeInput): value is readonly number[] {
  return Array.isArray(value);
}
