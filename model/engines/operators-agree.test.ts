/**
 * Every operator of the tfjs engine against ONNX Runtime, native and WASM, on small inputs.
 * The architecture builders and the fake-quant rewriting rest on these operators.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRandom } from "../../core/random.ts";
import { tensorOf } from "../../core/tensor.ts";
import { GraphBuilder, type AttributeInput } from "../graph/builder.ts";
import type { Engine, HostTensor, Values } from "./engine.ts";
import { createEngine } from "./index.ts";
import { TFJS_OPERATORS } from "./tfjs/operators.ts";

type Attributes = Readonly<Record<string, AttributeInput>>;

/** One node on given inputs; `null` leaves an optional input out. */
interface Case {
  readonly op: string;
  readonly what: string;
  readonly inputs: readonly (HostTensor | null)[];
  readonly attributes?: Attributes;
  readonly outputs?: number;
}

const random = createRandom(7);
const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const floats = (...shape: number[]): HostTensor => ({
  dtype: "F32",
  shape,
  data: Float32Array.from({ length: count(shape) }, () => random.normal()),
});
const f32 = (values: readonly number[], shape: readonly number[] = [values.length]): HostTensor => ({
  dtype: "F32",
  shape,
  data: Float32Array.from(values),
});
const i64 = (values: readonly number[], shape: readonly number[] = [values.length]): HostTensor => ({
  dtype: "I64",
  shape,
  data: BigInt64Array.from(values, BigInt),
});
const bool = (values: readonly number[], shape: readonly number[] = [values.length]): HostTensor => ({
  dtype: "BOOL",
  shape,
  data: Uint8Array.from(values),
});
const positive = (...shape: number[]): HostTensor => {
  const { data } = floats(...shape);
  return { dtype: "F32", shape, data: Float32Array.from(data as Float32Array, (x) => Math.abs(x) + 0.1) };
};
const one = (op: string, what: string, inputs: Case["inputs"], attributes: Attributes = {}, outputs = 1): Case => ({
  op,
  what,
  inputs,
  attributes,
  outputs,
});

const BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min"].flatMap((op) => [
  one(op, "floats, broadcast both ways", [floats(3, 1, 4), positive(2, 1)]),
  one(op, "int64 with signs", [i64([-7, 7, -6, 6, 5]), i64([2, -2, 4, 5, -5])]),
]);
const COMPARE = ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"].flatMap((op) => [
  one(op, "floats", [f32([1, 2, 3, -1]), f32([1, 3, 2, -1])]),
  one(op, "int64, broadcast", [i64([1, 2, 3], [3, 1]), i64([1, 2, 3])]),
]);
const LOGIC = ["And", "Or", "Xor"].map((op) => one(op, "broadcast", [bool([0, 1, 0, 1], [2, 2]), bool([1, 0])]));
const UNARY = [
  "Abs",
  "Neg",
  "Sign",
  "Exp",
  "Sin",
  "Cos",
  "Floor",
  "Ceil",
  "Erf",
  "Tanh",
  "Sigmoid",
  "Relu",
  "Softplus",
  "Elu",
  "LeakyRelu",
].map((op) => one(op, "floats", [f32([-3, -1.5, -0.5, 0, 0.25, 0.5, 1, 2.5, 4])]));
const REDUCE = ["ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2"].flatMap((op) => [
  one(op, "two axes kept", [floats(2, 3, 4), i64([-1, 0])]),
  one(op, "one axis dropped", [floats(2, 3, 4), i64([1])], { keepdims: 0 }),
  one(op, "all axes", [floats(2, 3)], { keepdims: 0 }),
  one(op, "no axes, no-op", [floats(2, 3)], op === "ReduceMax" ? { noop_with_empty_axes: 0 } : {}),
]);
const NORMAL = [
  one("RMSNormalization", "rank 3", [floats(2, 3, 16), floats(16)], { epsilon: { float: 1e-6 } }),
  one("RMSNormalization", "default epsilon, rank 4", [floats(1, 2, 3, 8), floats(8)]),
  one("LayerNormalization", "with bias", [floats(2, 3, 16), floats(16), floats(16)], { axis: -1, epsilon: { float: 1e-5 } }),
  one("LayerNormalization", "two axes, no bias", [floats(2, 3, 4), floats(3, 4)], { axis: 1 }),
];
const PRODUCT = [
  one("MatMul", "matrix × matrix", [floats(5, 7), floats(7, 3)]),
  one("MatMul", "stack × matrix", [floats(2, 3, 5, 7), floats(7, 3)]),
  one("MatMul", "stacks broadcast", [floats(2, 1, 5, 7), floats(3, 7, 4)]),
  one("MatMul", "vector × matrix", [floats(7), floats(7, 3)]),
  one("MatMul", "stack × vector", [floats(2, 5, 7), floats(7)]),
  one("Gemm", "plain", [floats(5, 7), floats(7, 3)]),
  one("Gemm", "transposed, scaled, with C", [floats(7, 5), floats(3, 7), floats(3)], {
    transA: 1,
    transB: 1,
    alpha: { float: 0.5 },
    beta: { float: 2 },
  }),
];
const LAYOUT = [
  one("Reshape", "0 and -1", [floats(2, 3, 4), i64([0, -1])]),
  one("Reshape", "allowzero", [f32([], [0, 3]), i64([3, 0])], { allowzero: 1 }),
  one("Flatten", "axis 2", [floats(2, 3, 4)], { axis: 2 }),
  one("Unsqueeze", "both ends", [floats(2, 3), i64([0, -1])]),
  one("Squeeze", "named axes", [floats(1, 2, 1), i64([-1])]),
  one("Squeeze", "all ones", [floats(1, 2, 1)]),
  one("Transpose", "rank 4", [floats(2, 3, 4, 5)], { perm: [0, 2, 1, 3] }),
  one("Transpose", "default order, bool", [bool([1, 0, 0, 1, 1, 0], [2, 3])]),
  one("Transpose", "rank 5", [floats(2, 1, 3, 2, 2)], { perm: [0, 2, 3, 1, 4] }),
  one("Concat", "last axis", [floats(2, 3), floats(2, 1)], { axis: -1 }),
  one("Concat", "an empty part", [i64([1, 2]), i64([]), i64([3])], { axis: 0 }),
  one("Concat", "bool", [bool([1, 0]), bool([1])], { axis: 0 }),
  one("Split", "sizes", [floats(2, 7), i64([3, 4])], { axis: -1 }, 2),
  one("Split", "uneven count", [floats(7, 2)], { axis: 0, num_outputs: 3 }, 3),
  one("Slice", "to the end, negative start", [
    floats(4, 5),
    i64([1, -3]),
    { dtype: "I64", shape: [2], data: BigInt64Array.of(2n ** 63n - 1n, -1n) },
  ]),
  one("Slice", "backwards by 2", [floats(4, 5), i64([-1]), i64([-100]), i64([1]), i64([-2])]),
  one("Slice", "empty", [floats(4, 5), i64([3]), i64([2]), i64([0])]),
  one("Expand", "two-way", [floats(3, 1), i64([2, 1, 4])]),
  one("Tile", "rank 2", [floats(2, 3), i64([2, 2])]),
  one("Trilu", "upper, k = 1, infinities", [
    f32(
      Array.from({ length: 12 }, () => -Infinity),
      [3, 4],
    ),
    i64([1], []),
  ]),
  one("Trilu", "lower, batch", [floats(2, 3, 3)], { upper: 0 }),
  one("Shape", "part", [floats(2, 3, 4)], { start: -2, end: 3 }),
  one("Size", "rank 3", [floats(2, 3, 4)]),
  one("Identity", "float", [floats(3)]),
];
const INDEX = [
  one("Gather", "rows, negative index", [floats(4, 3), i64([0, -1, 2, 2], [2, 2])], { axis: 0 }),
  one("Gather", "scalar index, axis 1", [floats(4, 3, 2), i64([1], [])], { axis: 1 }),
  one("Gather", "no index", [floats(4, 3), i64([], [0])], { axis: 0 }),
  one("GatherElements", "axis 1", [floats(2, 4), i64([3, 0, -1, 1], [2, 2])], { axis: 1 }),
  one("GatherND", "pairs", [floats(3, 4, 2), i64([0, 1, 2, -1], [2, 2])]),
  one("ScatterElements", "axis 0", [floats(3, 3), i64([1, 0, 2, 0, 2, 1], [2, 3]), floats(2, 3)], { axis: 0 }),
  one("ScatterND", "rows", [floats(4, 3), i64([3, 1], [2, 1]), floats(2, 3)]),
  one("ScatterND", "none", [floats(4, 3), i64([], [0, 1]), f32([], [0, 3])]),
  one("NonZero", "bool", [bool([1, 0, 1, 1], [2, 2])]),
  one("NonZero", "nothing", [bool([0, 0])]),
  one("OneHot", "axis 1, index below 0 and beyond", [i64([0, -1, 5], [3]), i64([3], []), f32([0, 2])], { axis: 0 }),
  one("TopK", "largest, ties", [f32([1, 3, 3, 2, 0, 5, 5, 5], [2, 4]), i64([2])], { axis: -1 }, 2),
  one("TopK", "smallest along axis 0", [floats(5, 2), i64([3])], { axis: 0, largest: 0 }, 2),
  one("CumSum", "exclusive, reverse", [floats(2, 4), i64([1], [])], { exclusive: 1, reverse: 1 }),
  one("CumSum", "plain", [floats(2, 4), i64([-1], [])]),
  one("ArgMax", "axis -1", [f32([1, 3, 3, 2, 0, 5], [2, 3])], { axis: -1, keepdims: 0 }),
  one("ArgMin", "axis 0", [f32([1, 3, 3, 2, 0, 5], [2, 3])], { axis: 0 }),
  one("Range", "int64", [i64([3], []), i64([12], []), i64([4], [])]),
  one("Range", "float down", [f32([3], []), f32([0], []), f32([-0.5], [])]),
  one("ConstantOfShape", "int", [i64([2, 3])], { value: { kind: "tensor", value: tensorOf(BigInt64Array.of(-4n), [1]) } }),
  one("ConstantOfShape", "default", [i64([2, 3])]),
  one("Constant", "floats", [], { value_floats: { kind: "floats", value: [1, 2.5] } }),
];
const mask = bool(
  Array.from({ length: 35 }, (_, n) => Number(n % 7 <= Math.floor(n / 7) + 2 && n % 7 >= Math.floor(n / 7))),
  [5, 7],
);
const additive = f32(
  [...(mask.data as Uint8Array)].map((allowed) => (allowed === 1 ? 0.5 : -Infinity)),
  [5, 7],
);
const ATTENTION = [
  one("Attention", "causal, shared keys", [floats(2, 6, 5, 8), floats(2, 2, 5, 8), floats(2, 2, 5, 8)], { is_causal: 1 }),
  one("Attention", "bool mask", [floats(2, 4, 5, 8), floats(2, 4, 7, 8), floats(2, 4, 7, 8), mask]),
  one("Attention", "additive mask, scale, cap", [floats(2, 4, 5, 8), floats(2, 2, 7, 8), floats(2, 2, 7, 8), additive], {
    scale: { float: 0.7 },
    softcap: { float: 1.5 },
  }),
  one("Attention", "rank 3", [floats(2, 5, 24), floats(2, 5, 12), floats(2, 5, 12)], { is_causal: 1, q_num_heads: 4, kv_num_heads: 2 }),
  one("RotaryEmbedding", "halves", [floats(2, 3, 5, 8), floats(9, 4), floats(9, 4), i64([0, 1, 2, 3, 4, 8, 7, 6, 5, 0], [2, 5])]),
  one("RotaryEmbedding", "part of the head", [floats(2, 3, 2, 8), floats(9, 2), floats(9, 2), i64([0, 1, 5, 8], [2, 2])], {
    rotary_embedding_dim: 4,
  }),
  one("RotaryEmbedding", "rank 3, no positions", [floats(2, 2, 24), floats(2, 2, 4), floats(2, 2, 4)], { num_heads: 3 }),
  one("RotaryEmbedding", "interleaved", [floats(1, 2, 3, 8), floats(1, 3, 4), floats(1, 3, 4)], { interleaved: 1 }),
];
const CASES: readonly Case[] = [
  ...BINARY,
  ...COMPARE,
  ...LOGIC,
  ...UNARY,
  ...REDUCE,
  ...NORMAL,
  ...PRODUCT,
  ...LAYOUT,
  ...INDEX,
  ...ATTENTION,
  one("ReduceSum", "int64", [i64([1, 2, 3, 4], [2, 2]), i64([0])]),
  one("ReduceMax", "int64, all", [i64([1, 9, 3, 4], [2, 2])], { keepdims: 0 }),
  one("Neg", "int64", [i64([1, -2])]),
  one("Abs", "int64", [i64([1, -2])]),
  one("Sqrt", "floats", [positive(5)]),
  one("Reciprocal", "floats", [positive(5)]),
  one("Log", "floats", [positive(5)]),
  one("Pow", "float base, whole exponent, negative base", [f32([-2, 3, 0.5]), f32([2, 3, -1])]),
  one("Pow", "int64 exponent", [f32([-2, 3]), i64([3, 2])]),
  one("Mod", "int64, sign of the divisor", [i64([-7, 7, -6]), i64([3, -3, 4])]),
  one("Mod", "int64, sign of the dividend", [i64([-7, 7, -6]), i64([3, -3, 4])], { fmod: 1 }),
  one("Sum", "three", [floats(2, 2), floats(2, 2), floats(2, 2)]),
  one("Max", "one input", [floats(3)]),
  one("Clip", "both ends", [floats(9), f32([-0.5], []), f32([0.5], [])]),
  one("Clip", "upper end only", [floats(9), null, f32([0.25], [])]),
  one("Round", "halves to even", [f32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 8388609.5])]),
  one("Not", "bool", [bool([0, 1])]),
  one("Equal", "bool", [bool([0, 1, 1]), bool([1, 1, 0])]),
  one("Where", "broadcast", [bool([1, 0], [2, 1]), floats(3), f32([0], [])]),
  one("Where", "int64", [bool([1, 0]), i64([5, 6]), i64([7, 8])]),
  one("Cast", "float to int64 toward zero", [f32([-1.7, 1.7, 0.2])], { to: 7 }),
  one("Cast", "float to bool", [f32([0, 0.5, -2])], { to: 9 }),
  one("Cast", "bool to float", [bool([0, 1])], { to: 1 }),
  one("Cast", "int64 to int32", [i64([3, -4])], { to: 6 }),
  one("Gelu", "erf", [f32([-4, -1, -0.1, 0, 0.3, 2])]),
  one("Gelu", "tanh", [f32([-4, -1, -0.1, 0, 0.3, 2])], { approximate: "tanh" }),
  one("Softmax", "last axis, -Infinity", [f32([1, 2, -Infinity, 0, 500, 501], [2, 3])]),
  one("Softmax", "middle axis", [floats(2, 3, 4)], { axis: 1 }),
  one("LogSoftmax", "last axis", [floats(2, 5)]),
];

function graphOf({ op, inputs, attributes, outputs = 1 }: Case) {
  const builder = new GraphBuilder(op);
  const names = inputs.map((value, i) => (value === null ? "" : builder.input(`x${i}`, value.dtype, value.shape)));
  const results = builder.multi(op, names, attributes ?? {}, builder.fresh("y", outputs));
  const feeds: Values = Object.fromEntries(inputs.flatMap((value, i) => (value === null ? [] : [[`x${i}`, value]])));
  return { graph: builder.build(results), feeds, results };
}

/** Room for another order of a few dozen f32 additions, and for tf's erf (1.5e-7); relative above 1. */
const TOLERANCE = 4e-6;

/** Largest difference, relative above 1; infinite where one is not finite and the other is not the same. */
function farthest(actual: HostTensor, expected: HostTensor): number {
  const [got, wanted] = [[...actual.data].map(Number), [...expected.data].map(Number)];
  const differences = wanted.map((value, i) => {
    if (Object.is(got[i], value) || got[i] === value) return 0;
    const difference = Math.abs(got[i]! - value) / Math.max(1, Math.abs(value));
    return Number.isFinite(difference) ? difference : Infinity;
  });
  return Math.max(0, ...differences);
}

async function runOn(engine: Engine, given: Case): Promise<HostTensor[]> {
  const { graph, feeds, results } = graphOf(given);
  const compiled = await engine.compile(graph);
  try {
    const values = await compiled.run(feeds);
    return results.map((name) => values[name]!);
  } finally {
    await compiled.release();
  }
}

const engines = new Map<string, Engine>();
beforeAll(async () => {
  for (const name of ["onnxruntime", "onnxruntime-web", "tfjs"] as const) engines.set(name, await createEngine(name, { threads: 1 }));
});
afterAll(async () => {
  for (const engine of engines.values()) await engine.close();
});

describe.each(["tfjs", "onnxruntime-web"])("%s gives what onnxruntime gives", (name) => {
  test.each(CASES.map((given) => [`${given.op}: ${given.what}`, given] as const))("%s", async (_, given) => {
    const expected = await runOn(engines.get("onnxruntime")!, given);
    const actual = await runOn(engines.get(name)!, given);
    for (const [i, { dtype, shape, data }] of expected.entries()) {
      expect(actual[i]!.dtype).toBe(dtype);
      expect(actual[i]!.shape).toEqual(shape);
      expect(farthest(actual[i]!, { dtype, shape, data })).toBeLessThanOrEqual(TOLERANCE);
    }
  });
});

test("every operator in the tfjs table has a case", () => {
  const tried = new Set(CASES.map(({ op }) => op));
  expect([...TFJS_OPERATORS.keys()].filter((op) => !tried.has(op))).toEqual([]);
});
