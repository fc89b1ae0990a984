import { describe, expect, test } from "vitest";
import { tensorOf } from "../../core/tensor.ts";
import type { OnnxGraph, OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { openOnnx } from "../../formats/containers/onnx/read.ts";
import { makeOnnxTensor, onnxTensorOf, readFloat32, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { constantNode, mapBodies } from "./bodies.ts";
import { inlineFunctions } from "./inline.ts";
import { findOnnxSites, findQuantizedSites } from "./sites.ts";

const ZOO = "fixtures/onnx/zoo";

async function open(name: string): Promise<OnnxModel> {
  const model = await openOnnx(`${ZOO}/${name}.onnx`);
  await model.close();
  return model;
}

const node = (op: string, inputs: string[], output: string, attributes: OnnxNode["attributes"] = new Map()): OnnxNode => ({
  name: "",
  op,
  domain: "",
  inputs,
  outputs: [output],
  attributes,
});

function modelOf(nodes: OnnxNode[], initializers: Record<string, OnnxTensor>, outputs = ["y"]): OnnxModel {
  const graph: OnnxGraph = {
    name: "g",
    nodes,
    initializers: new Map(Object.entries(initializers)),
    inputs: [{ name: "x", dtype: "F32", shape: ["n", 2] }],
    outputs: outputs.map((name) => ({ name })),
  };
  return { irVersion: 10, opsets: new Map([["", 21]]), graph, functions: [] };
}

const matrix = (values: number[], shape: number[]): OnnxTensor => onnxTensorOf(tensorOf(Float32Array.from(values), shape));

describe("sites", () => {
  test("codes that a Cast and a Mul by one scale a channel make a weight of are quantized; other products are no constants", () => {
    const codes = makeOnnxTensor("I8", [2, 3], Uint8Array.of(1, 2, 3, 4, 5, 6));
    const through = (scale: OnnxTensor, stored: OnnxTensor): OnnxModel =>
      modelOf(
        [
          node("Cast", ["codes"], "floats", new Map([["to", { kind: "int", value: 1 }]])),
          node("Mul", ["floats", "scale"], "w"),
          node("MatMul", ["x", "w"], "y"),
        ],
        { codes: stored, scale },
      );
    const byChannel = through(matrix([1, 2, 3], [1, 3]), codes);
    expect(findOnnxSites(byChannel)).toEqual([]);
    expect(findQuantizedSites(byChannel)).toHaveLength(1);
    expect(findQuantizedSites(through(matrix([1, 2, 3, 4, 5, 6], [2, 3]), codes))).toEqual([]);
    expect(findQuantizedSites(through(matrix([1, 2, 3], [1, 3]), matrix([1, 2, 3, 4, 5, 6], [2, 3])))).toEqual([]);
  });

  test("weights are found through Cast, Transpose, Reshape and Constant, with the values their reader sees", async () => {
    const shape = onnxTensorOf(tensorOf(BigInt64Array.of(3n, -1n), [2]));
    const half = makeOnnxTensor("F16", [6], new Uint8Array(Uint16Array.of(0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600).buffer));
    const nodes = [
      constantNode("stored", half),
      node("Cast", ["stored"], "cast", new Map([["to", { kind: "int", value: 1 }]])),
      node("Reshape", ["cast", "shape"], "reshaped"),
      node("Transpose", ["reshaped"], "w"),
      node("MatMul", ["x", "w"], "y"),
    ];
    const [site] = findOnnxSites(modelOf(nodes, { shape }));
    expect(site).toMatchObject({ name: "y", op: "MatMul", kind: "linear", path: "", input: "x", observable: true, groups: 1 });
    expect(site!.weight).toMatchObject({ value: "w", channelAxis: 1, inputAxis: 0, slot: 1, isDequantized: false });
    expect(site!.weight.source).toEqual({ kind: "constant", name: "stored", path: "" });
    expect(site!.weight.chain.map(({ op }) => op)).toEqual(["Cast", "Reshape", "Transpose"]);
    expect(site!.weight.tensor.shape).toEqual([2, 3]);
    // 1 to 6 in three rows of two, seen transposed.
    expect([...(await readFloat32(site!.weight.tensor))]).toEqual([1, 3, 5, 2, 4, 6]);
  });

  test("a weight that is computed from the input, or meets a constant, is no site", () => {
    const w = matrix([1, 2, 3, 4], [2, 2]);
    const nodes = [node("MatMul", ["w", "v"], "folded"), node("Mul", ["w", "x"], "moving"), node("MatMul", ["x", "moving"], "y")];
    expect(findOnnxSites(modelOf(nodes, { w, v: w }))).toEqual([]);
  });

  test("an initializer names its only reader; shared ones are named by their nodes", () => {
    const w = matrix([1, 2, 3, 4], [2, 2]);
    const alone = modelOf([node("MatMul", ["x", "w"], "y")], { w });
    const shared = modelOf([node("MatMul", ["x", "w"], "h"), node("MatMul", ["h", "w"], "y")], { w });
    expect(findOnnxSites(alone).map(({ name }) => name)).toEqual(["w"]);
    expect(findOnnxSites(shared).map(({ name }) => name)).toEqual(["h", "y"]);
  });

  test("dequantized weights are known as quantized, with (code - zero) · scale as their value", async () => {
    const codes = makeOnnxTensor("I4", [2, 2], Uint8Array.of(0x21, 0x8f));
    const scales = matrix([0.5, 2], [1, 2]);
    const attributes: OnnxNode["attributes"] = new Map([
      ["axis", { kind: "int", value: 0 }],
      ["block_size", { kind: "int", value: 2 }],
    ]);
    const model = modelOf([node("DequantizeLinear", ["q", "s"], "w", attributes), node("MatMul", ["x", "w"], "y")], {
      q: codes,
      s: scales,
    });
    expect(findOnnxSites(model)).toEqual([]);
    expect(findQuantizedSites(model)).toMatchObject([{ name: "y", op: "MatMul", path: "" }]);
  });

  test("axes of every operator: Conv and Gemm by rows, ConvTranspose by its second axis, recurrent W and R by gates", async () => {
    const rows = async (name: string) =>
      findOnnxSites(await open(name)).map(({ op, groups, bias, weight }) => [op, weight.channelAxis, weight.inputAxis, groups, bias?.slot]);
    expect(await rows("cnn-17")).toEqual([
      ["Conv", 0, 1, 1, 2],
      ["Conv", 0, 1, 8, undefined],
      ["Conv", 0, 1, 1, 2],
      ["Conv", 0, 1, 1, undefined],
      ["ConvTranspose", 1, 0, 2, 2],
      ["Gemm", 0, 1, 1, 2],
    ]);
    expect(await rows("rnn-14")).toEqual(["LSTM", "LSTM", "GRU", "GRU", "RNN", "RNN"].map((op) => [op, 1, 2, 1, undefined]));
  });

  test("branches and loop bodies have sites; a function that is given its weight has them once it is written out", async () => {
    const model = await open("flow-17");
    const places = (found: OnnxModel) => findOnnxSites(found).map(({ path, observable }) => [path, observable]);
    expect(places(model)).toEqual([
      ["1.then_branch", false],
      ["2.body", false],
    ]);
    expect(places(inlineFunctions(model)).filter(([, observable]) => observable)).toHaveLength(2);
  });

  test("quantized operators are recognised", async () => {
    const ops = async (name: string) => findQuantizedSites(await open(name)).map(({ op }) => op);
    expect(await ops("nbits4-17")).toEqual(["MatMulNBits"]);
    expect(new Set(await ops("encoder-torchscript-17-dynamic"))).toEqual(new Set(["MatMulInteger"]));
    expect(new Set(await ops("cnn-17-qoperator"))).toEqual(new Set(["QLinearConv", "QGemm"]));
  });
});

describe("rewrites", () => {
  test("a rewrite that changes nothing gives the same graph; one inside a branch changes only the way to it", async () => {
    const model = await open("flow-17");
    expect(mapBodies(model, () => ({})).graph).toBe(model.graph);
    const renamed = mapBodies(model, ({ nodes }, path) =>
      path === "1.then_branch" ? { nodes: nodes.map((inner) => ({ ...inner, name: "seen" })) } : {},
    );
    const changed = renamed.graph.nodes.map((inner, i) => inner !== model.graph.nodes[i]);
    expect(changed).toEqual(model.graph.nodes.map((_, i) => i === 1));
  });

  test("calls that would outgrow the bound stay calls", () => {
    const w = matrix([1, 2, 3, 4], [2, 2]);
    const call = (name: string, input: string, output: string): OnnxNode => ({ ...node(name, [input], output), domain: "local" });
    const functions = Array.from({ length: 12 }, (_, i) => ({
      name: `F${i}`,
      domain: "local",
      inputs: ["a"],
      outputs: ["c"],
      attributes: [],
      attributeDefaults: new Map(),
      nodes: i === 0 ? [node("Relu", ["a"], "c")] : [call(`F${i - 1}`, "a", "b"), call(`F${i - 1}`, "b", "c")],
      opsets: new Map([
        ["", 21],
        ["local", 1],
      ]),
    }));
    const model: OnnxModel = {
      ...modelOf([call("F11", "x", "h"), call("F2", "h", "y")], { w }),
      functions,
      opsets: new Map([
        ["", 21],
        ["local", 1],
      ]),
    };
    const bounded = inlineFunctions(model, 100);
    expect(bounded.graph.nodes.map(({ op }) => op)).toEqual(["F11", "Relu", "Relu", "Relu", "Relu"]);
    expect(inlineFunctions(model).graph.nodes).toHaveLength(2 ** 11 + 4);
  });
});
