/**
 * Constants behind several nodes that only move values: gates reordered by Slice and Concat, halves of a fused matrix. What
 * such a net of nodes makes of stored tensors is one tensor.
 * @module
 */
import type { OnnxNode } from "../../formats/containers/onnx/model.ts";
import type { OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import type { BodyPath } from "./bodies.ts";
import { integersOf, moveTensor } from "./movement.ts";
import type { ConstantResolver } from "./resolve.ts";
import type { OnnxConstant } from "./site.ts";

/** A value that is moved constants and nothing else. */
export interface FoldedConstant {
  /** Computed from the stored tensors at every read. */
  readonly tensor: OnnxTensor;
  /** Equal for values that are made of the same stored tensors in the same way, wherever their nodes stand. */
  readonly id: number;
  /** The innermost body that holds one of the stored tensors: all of them can be seen there. */
  readonly place: BodyPath;
  /** Stored tensors, each once. */
  readonly leaves: ReadonlyMap<number, OnnxConstant>;
  /** Names of all values on the way, settings such as axes among them. */
  readonly names: ReadonlySet<string>;
  /** Stored tensors and nodes on the way, those met twice counted twice. */
  readonly steps: number;
}

/** Nodes in a row and in all; converters need some twenty, more is a trap. */
const MAX_DEPTH = 32;
const MAX_STEPS = 256;

/** Longest setting that is compared value by value; longer ones are equal where they are the same constant. */
const MAX_COMPARED = 64;

/** Places along axes that are held for one model, so that many nodes with long index lists cannot fill the memory. */
const MAX_PLACES = 2 ** 22;

/** Folds values of a model's bodies. */
export class ConstantFolder {
  readonly #known = new Map<ConstantResolver, Map<string, FoldedConstant | undefined>>();
  readonly #ids = new Map<string, number>();
  #places = 0;

  /**
   * The constant that `value` is as the body of `resolver` sees it.
   *
   * @returns nothing when it is computed, takes more nodes than converters write, or is larger than what it is made of.
   */
  fold(resolver: ConstantResolver, value: string, depth = 0): FoldedConstant | undefined {
    if (value === "" || depth > MAX_DEPTH) return undefined;
    const known = this.#known.get(resolver) ?? new Map<string, FoldedConstant | undefined>();
    this.#known.set(resolver, known);
    if (!known.has(value)) known.set(value, this.#find(resolver, value, depth));
    return known.get(value);
  }

  #find(resolver: ConstantResolver, value: string, depth: number): FoldedConstant | undefined {
    const stored = resolver.resolve(value);
    if (stored?.chain.length === 0) return this.#leaf(stored);
    const made = resolver.producer(value);
    if (made === undefined || made.node.domain !== "") return undefined;
    if (made.resolver !== resolver) return this.fold(made.resolver, value, depth);
    const { node } = made;
    const sources = node.op === "Concat" ? node.inputs : node.inputs.slice(0, 1);
    if (sources.length === 0 || sources.length > MAX_STEPS) return undefined;
    const parts: FoldedConstant[] = [];
    let steps = 1;
    for (const source of sources) {
      const part = this.fold(resolver, source, depth + 1);
      if (part === undefined || (steps += part.steps) > MAX_STEPS) return undefined;
      parts.push(part);
    }
    return this.#move(resolver, node, value, parts, steps);
  }

  #leaf(constant: OnnxConstant): FoldedConstant {
    const { source, stored } = constant;
    const id = this.#idOf(["", source.path, source.name]);
    return { tensor: stored, id, place: source.path, leaves: new Map([[id, constant]]), names: new Set([source.name]), steps: 1 };
  }

  #move(
    resolver: ConstantResolver,
    node: OnnxNode,
    value: string,
    parts: readonly FoldedConstant[],
    steps: number,
  ): FoldedConstant | undefined {
    const settings: unknown[] = [];
    const constantAt = (slot: number): OnnxConstant | undefined => {
      const constant = resolver.resolve(node.inputs[slot] ?? "");
      return constant?.chain.length === 0 ? constant : undefined;
    };
    const integers = (slot: number): readonly number[] | undefined => {
      const constant = constantAt(slot);
      const list = constant && integersOf(constant.tensor);
      this.#places += list?.length ?? 0;
      settings.push(slot, list === undefined || list.length <= MAX_COMPARED ? list : this.#leaf(constant!).id);
      return list;
    };
    const output = node.outputs.indexOf(value);
    const rankOfIndices = node.op === "Gather" ? constantAt(1)?.tensor.shape.length : undefined;
    this.#places += Math.max(...parts[0]!.tensor.shape, 0);
    if (this.#places > MAX_PLACES) return undefined;
    const tensor = moveTensor(
      node,
      parts.map((part) => part.tensor),
      integers,
      output,
      rankOfIndices,
    );
    if (tensor === undefined) return undefined;
    const leaves = new Map(parts.flatMap((part) => [...part.leaves]));
    let stored = 0;
    for (const { stored: leaf } of leaves.values()) stored += leaf.byteLength;
    if (tensor.byteLength > stored) return undefined;
    // What moves values takes whole numbers only.
    const attributes = [...node.attributes].flatMap(([name, given]) =>
      given.kind === "int" || given.kind === "ints" ? [[name, String(given.value)]] : [],
    );
    const key = [node.op, output, node.outputs.length, rankOfIndices, attributes, settings, parts.map(({ id }) => id)];
    return {
      tensor,
      id: this.#idOf(key),
      place: parts.map(({ place }) => place).reduce((inner, place) => (place.length > inner.length ? place : inner)),
      leaves,
      names: new Set([...parts.flatMap(({ names }) => [...names]), ...node.inputs, ...node.outputs].filter((name) => name !== "")),
      steps,
    };
  }

  #idOf(key: readonly unknown[]): number {
    const text = JSON.stringify(key);
    const id = this.#ids.get(text) ?? this.#ids.size;
    this.#ids.set(text, id);
    return id;
  }
}
