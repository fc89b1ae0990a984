/**
 * What an operator of the tfjs engine sees of the node it computes.
 *
 * Values are tf tensors with their ONNX dtype: floats are float32, integers int32 (checked on the way in), booleans bool.
 * @module
 */
import type * as tfjs from "@tensorflow/tfjs-core";
import type { DType } from "../../../core/dtype.ts";
import { InputError, UnsupportedError } from "../../../core/errors.ts";
import type { Attribute, GraphNode } from "../../graph/graph.ts";

/** The namespace of TensorFlow.js, whichever package it comes from. */
export type Tf = typeof tfjs;
export type TfTensor = tfjs.Tensor;

export interface Value {
  readonly dtype: DType;
  readonly tensor: TfTensor;
}

/** Computes a node's outputs, in order. Returns new tensors or its inputs; runs inside `tf.tidy`. */
export type Operator = (call: Call) => Value | readonly Value[];

/** What an engine knows of the backend under it. */
export interface Backend {
  readonly tf: Tf;
  /** Multiply batches as one 2-D product each: the WASM backend's batched product is ten times slower. */
  readonly splitBatches: boolean;
}

/** One node with its inputs; every error names it. */
export class Call {
  readonly tf: Tf;
  readonly backend: Backend;
  readonly node: GraphNode;
  readonly #graph: string;
  readonly #inputs: readonly (Value | undefined)[];

  constructor(backend: Backend, graph: string, node: GraphNode, inputs: readonly (Value | undefined)[]) {
    this.tf = backend.tf;
    this.backend = backend;
    this.node = node;
    this.#graph = graph;
    this.#inputs = inputs;
  }

  /** The same node on other inputs. */
  with(inputs: readonly (Value | undefined)[]): Call {
    return new Call(this.backend, this.#graph, this.node, inputs);
  }

  /** Inputs given, the ones left out at the end not counted. */
  get count(): number {
    return this.#inputs.length;
  }

  input(index: number): Value {
    return this.optional(index) ?? this.fail(`input ${index} is missing`);
  }

  optional(index: number): Value | undefined {
    return this.#inputs[index];
  }

  /** A float input's tensor. */
  float(index: number): TfTensor {
    const { dtype, tensor } = this.input(index);
    return dtype === "F32" ? tensor : this.fail(`input ${index} is ${dtype}, not F32`);
  }

  /** The elements of an integer input, or `fallback` when it is left out. */
  integers(index: number, fallback?: readonly number[]): readonly number[] {
    const value = this.optional(index);
    if (value === undefined) return fallback ?? this.fail(`input ${index} is missing`);
    if (value.dtype === "F32" || value.dtype === "BOOL") return this.fail(`input ${index} is ${value.dtype}, not an integer`);
    return [...value.tensor.dataSync<"int32">()];
  }

  intAttribute(name: string, fallback: number): number {
    return this.attribute(name, "int")?.value ?? fallback;
  }

  floatAttribute(name: string, fallback: number): number {
    return this.attribute(name, "float")?.value ?? fallback;
  }

  stringAttribute(name: string, fallback: string): string {
    return this.attribute(name, "string")?.value ?? fallback;
  }

  intsAttribute(name: string): readonly number[] | undefined {
    return this.attribute(name, "ints")?.value;
  }

  attribute<K extends Attribute["kind"]>(name: string, kind: K): Extract<Attribute, { kind: K }> | undefined {
    const attribute = Object.hasOwn(this.node.attributes, name) ? this.node.attributes[name] : undefined;
    if (attribute === undefined) return undefined;
    const isKind = (candidate: Attribute): candidate is Extract<Attribute, { kind: K }> => candidate.kind === kind;
    return isKind(attribute) ? attribute : this.fail(`attribute ${name} is ${attribute.kind}, not ${kind}`);
  }

  /** An axis counted from the front. */
  axis(axis: number, rank: number): number {
    if (Number.isInteger(axis) && axis >= -rank && axis < rank) return axis < 0 ? axis + rank : axis;
    return this.fail(`axis ${axis} is outside the ${rank} dimensions`, "input.shape");
  }

  /** Whether the caller wants this output. */
  wants(index: number): boolean {
    const name = this.node.outputs[index];
    return name !== undefined && name !== "";
  }

  fail(why: string, code: "input.value" | "input.shape" = "input.value"): never {
    throw new InputError(code, `engine tfjs, graph ${this.#graph}, node ${this.node.name}: ${why}`, {
      graph: this.#graph,
      node: this.node.name,
    });
  }

  /** A form of the operator that this engine does not compute. */
  unsupported(what: string): never {
    throw new UnsupportedError(
      "unsupported.operator",
      `engine tfjs does not compute ${this.node.op} with ${what} (graph ${this.#graph}, node ${this.node.name}); use the onnxruntime engine`,
      { graph: this.#graph, node: this.node.name, operators: [this.node.op] },
    );
  }
}
