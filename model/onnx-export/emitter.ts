/**
 * Emitter: writes the one graph of an exported model. Equal constants are one, values that
 * every layer needs are written once, and the names of helper values say which block they are in.
 * @module
 */
import { tensorOf, type Tensor } from "../../core/tensor.ts";
import { GraphBuilder, type AttributeInput } from "../graph/builder.ts";

/** Constants up to this size are compared by content, larger ones by identity. */
const COMPARED_BYTES = 4096;

export class Emitter {
  readonly graph: GraphBuilder;
  /** Put before the names of helper values, e.g. "model.layers.0/". */
  scope = "";
  readonly #constants = new Map<string | Tensor, string>();
  readonly #written = new Map<string, string>();

  constructor(name: string, opset: number) {
    this.graph = new GraphBuilder(name, opset);
  }

  /** A value of one constant tensor. */
  constant(tensor: Tensor): string {
    const { dtype, shape, bytes } = tensor;
    const key = bytes.byteLength > COMPARED_BYTES ? tensor : `${dtype} ${shape.join()} ${Buffer.from(bytes).toString("latin1")}`;
    const known = this.#constants.get(key);
    if (known !== undefined) return known;
    const name = this.graph.constant(tensor, this.graph.fresh("constants/constant", 1)[0]);
    this.#constants.set(key, name);
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

  /** What `write` gave when `key` was first asked for. It is written outside of any block. */
  once(key: string, write: () => string): string {
    const known = this.#written.get(key);
    if (known !== undefined) return known;
    const { scope } = this;
    this.scope = "";
    const name = write();
    this.scope = scope;
    this.#written.set(key, name);
    return name;
  }

  /** Append a node with one output, numbered in the current scope unless named. @returns the output's name. */
  op(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeInput>> = {},
    output?: string,
    domain = "",
  ): string {
    return this.multi(op, inputs, attributes, [output ?? this.fresh(op.toLowerCase(), 1)[0]!], domain)[0]!;
  }

  /** Append a node with the outputs named. @returns their names. */
  multi(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeInput>>,
    outputs: readonly string[],
    domain = "",
  ): readonly string[] {
    return this.graph.multi(op, inputs, attributes, outputs, domain);
  }

  /** Names for values, in the current scope; no value of a block begins with an underscore. */
  fresh(stem: string, count: number): string[] {
    return this.graph.fresh(`${this.scope}_${stem}`, count);
  }
}
