/**
 * What is known of the values of one graph while it is converted to float16, and the nodes written so far.
 * @module
 */
import type { OnnxNode } from "../../../formats/containers/onnx/model.ts";
import { makeNode } from "../nodes.ts";

/** TensorProto.DataType. */
export const FLOAT = 1;
export const FLOAT16 = 10;

/** `half`: a float that has become float16; `single`: one that stays float32; `other`: no float32 in the source either. */
export type ValueKind = "half" | "single" | "other";

/** A name nothing else has. */
export type FreshName = (base: string) => string;

/** Values of a graph, those around it seen through. */
export class Float16Scope {
  readonly nodes: OnnxNode[] = [];
  readonly #kinds = new Map<string, ValueKind>();
  /** The same value in the other precision. */
  readonly #twins = new Map<string, string>();
  readonly #twinNames = new Set<string>();
  readonly #outer: Float16Scope | undefined;
  readonly #fresh: FreshName;

  constructor(fresh: FreshName, outer?: Float16Scope) {
    this.#fresh = fresh;
    this.#outer = outer;
  }

  set(name: string, kind: ValueKind): void {
    if (name !== "") this.#kinds.set(name, kind);
  }

  /** `other` for names that nothing has defined. */
  kind(name: string): ValueKind {
    return this.#kinds.get(name) ?? this.#outer?.kind(name) ?? "other";
  }

  isFloat(name: string): boolean {
    return name !== "" && this.kind(name) !== "other";
  }

  /** Whether this graph's own Cast gives the value. */
  isTwin(name: string): boolean {
    return this.#twinNames.has(name);
  }

  /** Name of the value as float16; a Cast is written where the value is defined. */
  half(name: string): string {
    return this.kind(name) === "single" ? this.#twin(name, FLOAT16) : name;
  }

  /** Name of the value as float32. */
  single(name: string): string {
    return this.kind(name) === "half" ? this.#twin(name, FLOAT) : name;
  }

  #twin(name: string, type: number): string {
    // In the graph that defines the value, so that no loop casts it anew; its nodes so far stand in front of the reader.
    if (!this.#kinds.has(name) && this.#outer !== undefined) return this.#outer.#twin(name, type);
    const known = this.#twins.get(name);
    if (known !== undefined) return known;
    const twin = this.#fresh(`${name}_${type === FLOAT ? "float32" : "float16"}`);
    this.#twins.set(name, twin);
    this.#twinNames.add(twin);
    this.nodes.push(castNode(name, twin, type, this.#fresh));
    return twin;
  }
}

/** A Cast to FLOAT or FLOAT16. */
export function castNode(from: string, to: string, type: number, fresh: FreshName): OnnxNode {
  return { ...makeNode("Cast", [from], [to], { to: type }), name: fresh(`${to}_Cast`) };
}
