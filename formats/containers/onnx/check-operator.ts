/**
 * What can be said of one node of the standard domain without running shape inference.
 *
 * Not the operator schemas: only what a malformed file would make a rewrite stumble over. Operators that are not
 * listed pass.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import type { OnnxDType } from "./dtypes.ts";
import type { OnnxAttribute, OnnxNode } from "./model.ts";
import { describeNode } from "./order.ts";

/** Type of a value that is sure: a graph input, an initializer or a Constant. */
export interface KnownType {
  readonly dtype: OnnxDType;
  readonly shape?: readonly (number | string)[];
}

/** Fewest and most inputs, over all operator sets. */
const INPUTS: ReadonlyMap<string, readonly [least: number, most: number]> = new Map(
  Object.entries({
    "Abs Acos Asin Atan Ceil Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log LogSoftmax Neg Not Reciprocal Relu Round Selu Shape Sigmoid Sign Sin Size Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Transpose Flatten Cast GlobalAveragePool GlobalMaxPool AveragePool MaxPool DepthToSpace SpaceToDepth LRN":
      [1, 1],
    "Add Sub Mul Div Pow MatMul And Or Xor Equal Less LessOrEqual Greater GreaterOrEqual Mod PRelu Gather GatherElements GatherND": [2, 2],
    Gemm: [2, 3],
    Conv: [2, 3],
    ConvTranspose: [2, 3],
    Reshape: [1, 2],
    Where: [3, 3],
    BatchNormalization: [5, 5],
    LayerNormalization: [2, 3],
    InstanceNormalization: [3, 3],
    LSTM: [3, 8],
    GRU: [3, 6],
    RNN: [3, 6],
    QuantizeLinear: [2, 3],
    DequantizeLinear: [2, 3],
    DynamicQuantizeLinear: [1, 1],
    MatMulInteger: [2, 4],
    ConvInteger: [2, 4],
    If: [1, 1],
    Constant: [0, 0],
  } satisfies Record<string, readonly [number, number]>).flatMap(([ops, range]) => ops.split(" ").map((op) => [op, range] as const)),
);

/** Attributes that have one type in every standard operator that has them. */
const ATTRIBUTES: ReadonlyMap<string, OnnxAttribute["kind"]> = new Map(
  Object.entries({
    int: "axis keepdims transA transB group to hidden_size block_size blocksize ceil_mode count_include_pad num_heads",
    ints: "perm kernel_shape strides pads dilations output_padding",
    float: "alpha beta epsilon gamma",
    string: "auto_pad direction equation",
    strings: "activations",
    graph: "then_branch else_branch body",
  } satisfies Partial<Record<OnnxAttribute["kind"], string>>).flatMap(([kind, names]) =>
    names.split(" ").map((name) => [name, kind as OnnxAttribute["kind"]] as const),
  ),
);

/** Operators whose first two inputs are multiplied: of one type. */
const PRODUCTS: ReadonlySet<string> = new Set(["MatMul", "Gemm", "Conv", "ConvTranspose"]);

/**
 * @param typeOf - the type of a value where it is sure.
 * @throws {FormatError} `format.field` for too few or too many inputs, an attribute of the wrong type, and a weight that
 *   does not fit its input.
 */
export function checkOperator(node: OnnxNode, typeOf: (value: string) => KnownType | undefined, where: string): void {
  if (node.domain !== "") return;
  const refuse = (problem: string): never => {
    throw new FormatError("format.field", `${where}: ${describeNode(node)} ${problem}`, { node: node.name, op: node.op });
  };
  const range = INPUTS.get(node.op);
  if (range !== undefined && (node.inputs.length < range[0] || node.inputs.length > range[1])) {
    refuse(`has ${node.inputs.length} inputs; it takes ${range[0] === range[1] ? range[0] : `${range[0]} to ${range[1]}`}`);
  }
  for (const [name, { kind }] of node.attributes) {
    const expected = ATTRIBUTES.get(name);
    if (expected !== undefined && kind !== expected && kind !== "reference") refuse(`has a ${name} of type ${kind}; it takes ${expected}`);
  }
  if (!PRODUCTS.has(node.op)) return;
  const [a, b] = [typeOf(node.inputs[0]!), typeOf(node.inputs[1]!)];
  if (a === undefined || b === undefined) return;
  if (a.dtype !== b.dtype) refuse(`multiplies ${a.dtype} by ${b.dtype}`);
  if (a.shape === undefined || b.shape === undefined) return;
  const [left, right] = channels(node, a.shape, b.shape);
  if (typeof left === "number" && typeof right === "number" && left !== right) {
    refuse(`multiplies [${a.shape.join(", ")}] by [${b.shape.join(", ")}]: ${left} channels by ${right}`);
  }
}

type Size = number | string | undefined;

/** The two sizes that are summed over together. */
function channels(node: OnnxNode, a: readonly (number | string)[], b: readonly (number | string)[]): readonly [Size, Size] {
  const int = (name: string, otherwise: number): number => {
    const attribute = node.attributes.get(name);
    return attribute?.kind === "int" ? Number(attribute.value) : attribute === undefined ? otherwise : Number.NaN;
  };
  switch (node.op) {
    case "MatMul":
      return [a.at(-1), b.length === 1 ? b[0] : b.at(-2)];
    case "Gemm":
      return [a[int("transA", 0) === 0 ? 1 : 0], b[int("transB", 0) === 0 ? 0 : 1]];
    case "Conv": {
      const perGroup = b[1];
      const groups = int("group", 1);
      return Number.isNaN(groups) ? [undefined, undefined] : [a[1], typeof perGroup === "number" ? perGroup * groups : undefined];
    }
    default:
      return [a[1], b[0]];
  }
}
