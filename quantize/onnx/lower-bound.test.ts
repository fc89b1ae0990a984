import { expect, test } from "vitest";
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { openOnnx } from "../../formats/containers/onnx/read.ts";
import { LowerBounds } from "./lower-bound.ts";
import { floats, makeNode } from "./nodes.ts";

/** A model of the zoo with other nodes and constants in its graph. */
async function modelOf(nodes: readonly OnnxNode[], constants: Readonly<Record<string, number>>): Promise<OnnxModel> {
  const model = await openOnnx("fixtures/onnx/zoo/encoder-torchscript-17.onnx");
  await model.close();
  const initializers = new Map(Object.entries(constants).map(([name, value]) => [name, floats([value])]));
  return { ...model, graph: { ...model.graph, nodes, initializers } };
}

const GELU = [
  makeNode("Div", ["x", "root"], ["scaled"]),
  makeNode("Erf", ["scaled"], ["erf"]),
  makeNode("Add", ["erf", "one"], ["gate"]),
  makeNode("Mul", ["x", "gate"], ["product"]),
  makeNode("Mul", ["product", "half"], ["y"]),
];

test("x·(1 + erf(x/√2))/2 stays above -0.17; with another slope or half missing nothing is promised", async () => {
  const constants = { root: Math.SQRT2, one: 1, half: 0.5 };
  expect(await new LowerBounds(await modelOf(GELU, constants)).of("y")).toBeCloseTo(-0.17, 2);
  expect(await new LowerBounds(await modelOf(GELU, { ...constants, root: 1 })).of("y")).toBeUndefined();
  expect(await new LowerBounds(await modelOf(GELU, { ...constants, half: 1 })).of("y")).toBeUndefined();
});

test("a gate of another value promises nothing; moves pass a bound on", async () => {
  const other = [makeNode("Sigmoid", ["z"], ["gate"]), makeNode("Mul", ["x", "gate"], ["y"])];
  expect(await new LowerBounds(await modelOf(other, {})).of("y")).toBeUndefined();
  const own = [makeNode("Sigmoid", ["x"], ["gate"]), makeNode("Mul", ["gate", "x"], ["y"]), makeNode("Flatten", ["y"], ["flat"])];
  expect(await new LowerBounds(await modelOf(own, {})).of("flat")).toBeCloseTo(-0.2785, 3);
  expect(await new LowerBounds(await modelOf([makeNode("Relu", ["x"], ["y"])], {})).of("y")).toBe(0);
});
