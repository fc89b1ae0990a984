import { expect, test } from "vitest";
import type { OnnxGraph, OnnxModel } from "../../formats/containers/onnx/model.ts";
import { mergeConstants } from "./merge-constants.ts";
import { floats, int64s, makeNode } from "./nodes.ts";

function modelOf(graph: Partial<OnnxGraph>): OnnxModel {
  const whole: OnnxGraph = {
    name: "g",
    nodes: [],
    initializers: new Map(),
    inputs: [{ name: "x", dtype: "F32", shape: [2] }],
    outputs: [{ name: "y", dtype: "F32" }],
    ...graph,
  };
  return { irVersion: 8, opsets: new Map([["", 13]]), graph: whole, functions: [] };
}

const three = { kind: "tensor", value: floats([3]) } as const;

test("equal scalars are stored once, for readers in inner graphs as well", () => {
  const inner: OnnxGraph = {
    name: "branch",
    nodes: [
      makeNode("Constant", [], ["mine"], { value: three }),
      makeNode("Add", ["b", "mine"], ["s"]),
      makeNode("Mul", ["s", "c"], ["r"]),
    ],
    initializers: new Map(),
    inputs: [],
    outputs: [{ name: "r", dtype: "F32" }],
  };
  const merged = mergeConstants(
    modelOf({
      nodes: [
        makeNode("Constant", [], ["a"], { value: three }),
        makeNode("Add", ["x", "a"], ["b"]),
        makeNode("Constant", [], ["c"], { value: three }),
        makeNode("If", ["which"], ["y"], { then_branch: { kind: "graph", value: inner }, else_branch: { kind: "graph", value: inner } }),
      ],
      initializers: new Map([["other", floats([3], [1])]]),
    }),
  );
  expect(merged.graph.nodes.map(({ op, inputs }) => [op, ...inputs])).toEqual([["Constant"], ["Add", "x", "a"], ["If", "which"]]);
  const branch = merged.graph.nodes[2]!.attributes.get("then_branch");
  expect(branch?.kind === "graph" && branch.value.nodes.map(({ inputs }) => inputs)).toEqual([[], ["b", "mine"], ["s", "a"]]);
  expect([...merged.graph.initializers.keys()]).toEqual(["other"]);
});

test("a constant of another type, shape or size, or that the graph gives, is left", () => {
  const model = modelOf({
    nodes: [makeNode("Identity", ["a"], ["z"])],
    initializers: new Map([
      ["a", floats([3])],
      ["b", floats([3], [1])],
      ["c", int64s([3])],
      ["y", floats([3])],
      ["x", floats([3])],
      ["large", floats(new Float32Array(17), [17])],
      ["same", floats(new Float32Array(17), [17])],
    ]),
  });
  expect(mergeConstants(model)).toBe(model);
});
