/**
 * Values that cannot go below a number, by the operator that gives them: what stands behind an activation function needs few codes below zero.
 * @module
 */
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { readFloat32 } from "../../formats/containers/onnx/tensor.ts";
import { bodiesOf } from "../../model/onnx/bodies.ts";
import { ConstantResolver } from "../../model/onnx/resolve.ts";
import { MICROSOFT } from "./edits.ts";

/** Minima, rounded down, of x·Φ(x) (and of its tanh form), of x·σ(x), of x·relu6(x + 3)/6 and of x·tanh(softplus(x)). */
const GELU_MIN = -0.1705;
const SILU_MIN = -0.2785;
const HARD_SWISH_MIN = -0.375;
const MISH_MIN = -0.3089;

const FLOORS: ReadonlyMap<string, number> = new Map([
  ["Relu", 0],
  ["Sigmoid", 0],
  ["HardSigmoid", 0],
  ["Softmax", 0],
  ["Softplus", 0],
  ["Abs", 0],
  ["Gelu", GELU_MIN],
  ["FastGelu", GELU_MIN],
  ["BiasGelu", GELU_MIN],
  ["Swish", SILU_MIN],
  ["HardSwish", HARD_SWISH_MIN],
  ["Mish", MISH_MIN],
]);
/** Operators that pass values on as they are. */
const MOVES: ReadonlySet<string> = new Set(["Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"]);
const MAX_MOVES = 8;

/** Finds lower bounds of values in a model's main graph. */
export class LowerBounds {
  readonly #producers: ReadonlyMap<string, OnnxNode>;
  readonly #resolver: ConstantResolver;

  constructor(model: OnnxModel) {
    const body = bodiesOf(model)[0]!;
    this.#producers = new Map(body.nodes.flatMap((node) => node.outputs.map((name) => [name, node] as const)));
    this.#resolver = new ConstantResolver(body, undefined);
  }

  /** The bound; undefined where the operators in front promise none. */
  async of(value: string): Promise<number | undefined> {
    let node = this.#producers.get(value);
    for (let i = 0; i < MAX_MOVES && node !== undefined && MOVES.has(node.op); i++) node = this.#producers.get(node.inputs[0]!);
    if (node === undefined || (node.domain !== "" && node.domain !== MICROSOFT)) return undefined;
    const known = FLOORS.get(node.op);
    if (known !== undefined) return node.op === "Swish" && node.attributes.has("alpha") ? undefined : known;
    return node.op === "Mul" ? this.#gated(node) : undefined;
  }

  /** x·(1 + erf(x/√2))/2, x·(1 + tanh(…))/2 and x·σ(x), the factors in any order. */
  async #gated(product: OnnxNode): Promise<number | undefined> {
    const { factors, constant } = await this.#factors(product);
    if (factors.length !== 2) return undefined;
    for (const [gate, x] of [factors, factors.toReversed()] as [string, string][]) {
      const node = this.#producers.get(gate);
      if (node?.op === "Sigmoid" && node.inputs[0] === x && near(constant, 1)) return SILU_MIN;
      if (node?.op !== "Add" || !near(constant, 0.5)) continue;
      for (const [a, b] of [node.inputs, node.inputs.toReversed()] as [string, string][]) {
        const curve = this.#producers.get(a);
        if (curve === undefined || !near(await this.#scalar(b), 1)) continue;
        if (curve.op === "Erf" && (await this.#isScaled(curve.inputs[0]!, x))) return GELU_MIN;
        if (curve.op === "Tanh" && this.#reads(curve.inputs[0]!, x)) return GELU_MIN;
      }
    }
    return undefined;
  }

  /** What a tree of products multiplies: computed values, and the product of its constants. */
  async #factors(product: OnnxNode): Promise<{ readonly factors: readonly string[]; readonly constant: number }> {
    const factors: string[] = [];
    let constant = 1;
    const open = [...product.inputs];
    for (let i = 0; i < MAX_MOVES && open.length > 0; i++) {
      const name = open.shift()!;
      const scalar = await this.#scalar(name);
      const node = this.#producers.get(name);
      if (scalar !== undefined) constant *= scalar;
      else if (node?.op === "Mul") open.push(...node.inputs);
      else factors.push(name);
    }
    return { factors: [...factors, ...open], constant };
  }

  /** Whether `value` is x/√2. */
  async #isScaled(value: string, x: string): Promise<boolean> {
    const node = this.#producers.get(value);
    if (node?.op === "Div") return node.inputs[0] === x && near(await this.#scalar(node.inputs[1]!), Math.SQRT2);
    if (node?.op !== "Mul" || !node.inputs.includes(x)) return false;
    return near(await this.#scalar(node.inputs[node.inputs[0] === x ? 1 : 0]!), Math.SQRT1_2);
  }

  /** Whether a short tree of sums, products and powers below `value` reads x and nothing else that is computed. */
  #reads(value: string, x: string): boolean {
    const open = [value];
    let found = false;
    for (let i = 0; i < 4 * MAX_MOVES && open.length > 0; i++) {
      const name = open.pop()!;
      if (name === x) {
        found = true;
        continue;
      }
      if (this.#resolver.resolve(name) !== undefined) continue;
      const node = this.#producers.get(name);
      if (node === undefined || !["Add", "Mul", "Pow"].includes(node.op)) return false;
      open.push(...node.inputs);
    }
    return found && open.length === 0;
  }

  async #scalar(name: string): Promise<number | undefined> {
    const constant = this.#resolver.resolve(name);
    if (constant?.tensor.dtype !== "F32" || constant.tensor.byteLength !== 4) return undefined;
    return (await readFloat32(constant.tensor))[0];
  }
}

function near(value: number | undefined, expected: number): boolean {
  return value !== undefined && Math.abs(value - expected) < 1e-3 * expected;
}
