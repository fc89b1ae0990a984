import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { tensorOf } from "../../core/tensor.ts";
import type { OnnxAttribute, OnnxGraph, OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { onnxTensorOf, readFloat32, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { readOnnxBytes } from "../../formats/containers/onnx/write.ts";
import { findOnnxSites } from "../../model/onnx/sites.ts";
import { foldWeights } from "./fold-weights.ts";
import { int64s, makeNode } from "./nodes.ts";
import { tensorBytes } from "./tensor-bytes.ts";
import { dropTraces } from "./traces.ts";

const HIDDEN = 3;
const INPUTS = 2;

const floats = (shape: number[], seed: number): OnnxTensor => {
  const count = shape.reduce((product, size) => product * size, 1);
  return onnxTensorOf(
    tensorOf(
      Float32Array.from({ length: count }, (_, i) => Math.sin(seed + 1.7 * i)),
      shape,
    ),
  );
};

/** Gates as PyTorch has them (i f g o) put in the order of ONNX (i o f c), as its exporter writes it; names end in `tag`. */
function lstmNodes(tag: string): readonly OnnxNode[] {
  const gates = (stored: string, out: string): readonly OnnxNode[] => [
    makeNode("Slice", [stored, "at0", "at3", "axis0"], [`${out}_i${tag}`]),
    makeNode("Slice", [stored, "at9", "at12", "axis0"], [`${out}_o${tag}`]),
    makeNode("Slice", [stored, "at3", "at9", "axis0"], [`${out}_fc${tag}`]),
    makeNode("Concat", [`${out}_i${tag}`, `${out}_o${tag}`, `${out}_fc${tag}`], [`${out}_c${tag}`], { axis: 0 }),
  ];
  return [
    ...gates("w_ih", "w"),
    ...gates("w_hh", "r"),
    ...gates("b_ih", "b"),
    makeNode("Concat", [`b_c${tag}`, "zeros"], [`b_all${tag}`], { axis: 0 }),
    makeNode("Unsqueeze", [`w_c${tag}`, "axis0"], [`W${tag}`]),
    makeNode("Unsqueeze", [`r_c${tag}`, "axis0"], [`R${tag}`]),
    makeNode("Unsqueeze", [`b_all${tag}`, "axis0"], [`B${tag}`]),
    makeNode("LSTM", ["x", `W${tag}`, `R${tag}`, `B${tag}`], ["", `y${tag}`], { hidden_size: HIDDEN }),
  ];
}

function branch(tag: string): OnnxAttribute {
  const value: OnnxGraph = {
    name: `branch${tag}`,
    nodes: lstmNodes(tag),
    initializers: new Map(),
    inputs: [],
    outputs: [{ name: `y${tag}`, dtype: "F32", shape: [1, "batch", HIDDEN] }],
  };
  return { kind: "graph", value };
}

/** The same layer in both branches of an If, its weights outside. */
function branchedLstm(): OnnxModel {
  const initializers = new Map<string, OnnxTensor>([
    ["w_ih", floats([4 * HIDDEN, INPUTS], 1)],
    ["w_hh", floats([4 * HIDDEN, HIDDEN], 2)],
    ["b_ih", floats([4 * HIDDEN], 3)],
    ["zeros", onnxTensorOf(tensorOf(new Float32Array(4 * HIDDEN), [4 * HIDDEN]))],
    ...[0, 3, 9, 12].map((at): [string, OnnxTensor] => [`at${at}`, int64s([at])]),
    ["axis0", int64s([0])],
  ]);
  const graph: OnnxGraph = {
    name: "g",
    nodes: [makeNode("If", ["which"], ["y"], { then_branch: branch("_a"), else_branch: branch("_b") })],
    initializers,
    inputs: [
      { name: "x", dtype: "F32", shape: ["length", "batch", INPUTS] },
      { name: "which", dtype: "BOOL", shape: [] },
    ],
    outputs: [{ name: "y", dtype: "F32", shape: [1, "batch", HIDDEN] }],
  };
  return { irVersion: 8, opsets: new Map([["", 13]]), graph, functions: [] };
}

async function outputsOf(model: OnnxModel): Promise<readonly number[]> {
  const session = await InferenceSession.create(await readOnnxBytes(model), { logSeverityLevel: 3, intraOpNumThreads: 1 });
  const x = new OrtTensor(
    "float32",
    Float32Array.from({ length: 5 * INPUTS }, (_, i) => Math.cos(i)),
    [5, 1, INPUTS],
  );
  const all: number[] = [];
  for (const which of [1, 0]) {
    const result = await session.run({ x, which: new OrtTensor("bool", Uint8Array.of(which), []) });
    all.push(...(result["y"]!.data as Float32Array));
  }
  await session.release();
  return all;
}

/** MatMuls with the halves of one matrix; `extra` reads the matrix whole. */
function halves(extra: readonly OnnxNode[], outputs: readonly string[]): OnnxModel {
  const graph: OnnxGraph = {
    name: "g",
    nodes: [
      makeNode("Split", ["w"], ["first", "second"], { axis: 1 }),
      makeNode("MatMul", ["x", "first"], ["a"]),
      makeNode("MatMul", ["x", "second"], ["b"]),
      ...extra,
    ],
    initializers: new Map([["w", floats([2, 4], 5)]]),
    inputs: [{ name: "x", dtype: "F32", shape: ["n", 2] }],
    outputs: outputs.map((name) => ({ name, dtype: "F32" })),
  };
  return { irVersion: 8, opsets: new Map([["", 13]]), graph, functions: [] };
}

describe("weights behind nodes that move constants", () => {
  test("gates reordered in two branches become one set of stored weights, and the outputs stay the same bits", async () => {
    const model = branchedLstm();
    expect(findOnnxSites(model)).toEqual([]);
    const folded = foldWeights(model);
    expect(findOnnxSites(folded).map(({ op, weight }) => [op, weight.tensor.shape, weight.source.path])).toEqual([
      ["LSTM", [1, 12, 2], ""],
      ["LSTM", [1, 12, 3], ""],
      ["LSTM", [1, 12, 2], ""],
      ["LSTM", [1, 12, 3], ""],
    ]);
    // W, R and B once; everything that made them is gone.
    expect(folded.graph.initializers.size).toBe(3);
    for (const attribute of folded.graph.nodes[0]!.attributes.values())
      expect(attribute.kind === "graph" && attribute.value.nodes.map(({ op }) => op)).toEqual(["LSTM"]);
    expect(tensorBytes(folded)).toBeLessThan(tensorBytes(model));
    expect(await outputsOf(folded)).toEqual(await outputsOf(model));
  });

  test("halves of a matrix are stored as halves", async () => {
    const folded = foldWeights(halves([], ["a", "b"]));
    const sites = findOnnxSites(folded);
    expect(folded.graph.nodes.map(({ op }) => op)).toEqual(["MatMul", "MatMul"]);
    const whole = await readFloat32(floats([2, 4], 5));
    const values = await Promise.all(sites.map(async ({ weight }) => [...(await readFloat32(weight.tensor))]));
    expect(values).toEqual([[0, 1, 4, 5].map((i) => whole[i]), [2, 3, 6, 7].map((i) => whole[i])]);
  });

  test("a matrix with other readers is not stored twice", () => {
    const model = halves([makeNode("Mul", ["w", "w"], ["c"])], ["a", "b", "c"]);
    expect(foldWeights(model)).toBe(model);
  });

  test("constants that double at every node are left alone at once", () => {
    const chain = Array.from({ length: 40 }, (_, i) => makeNode("Concat", [`v${i}`, `v${i}`], [`v${i + 1}`], { axis: 1 }));
    const cycle = [makeNode("Concat", ["q", "p"], ["p"], { axis: 1 }), makeNode("Concat", ["p", "p"], ["q"], { axis: 1 })];
    const graph: OnnxGraph = {
      ...halves([], []).graph,
      nodes: [...chain, ...cycle, makeNode("MatMul", ["x", "v40"], ["a"]), makeNode("MatMul", ["x", "q"], ["b"])],
      initializers: new Map([["v0", floats([2, 4], 5)]]),
    };
    const model: OnnxModel = { ...halves([], []), graph };
    expect(foldWeights(model)).toBe(model);
  });
});

test("stack traces of the exporter go, other metadata stays", () => {
  const model = halves([], ["a"]);
  const nodes = model.graph.nodes.map((node, i) => ({
    ...node,
    metadata: new Map(i === 0 ? [["pkg.torch.onnx.stack_trace", "File x"]] : [["namespace", "a/b"]]),
  }));
  const kept = dropTraces({ ...model, graph: { ...model.graph, nodes } }).graph.nodes.map(({ metadata }) => metadata?.size ?? 0);
  expect(kept).toEqual([0, 1, 1]);
});
