import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tensorOf, toFloat32 } from "../../core/tensor.ts";
import { createEngine } from "../../model/engines/index.ts";
import type { Engine, Values } from "../../model/engines/engine.ts";
import type { OnnxModel, OnnxNode, OnnxValueInfo } from "../../formats/containers/onnx/model.ts";
import { makeOnnxTensor, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { runOnnx } from "../../model/onnx/run.ts";
import { onnxToModel, openOnnxModel } from "../../model/sources/onnx.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { rewriteToFloat16 } from "./half.ts";
import { floats, int64s, makeNode } from "./nodes.ts";
import { NO_SAMPLES, type OnnxSamples } from "./samples.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(() => engine.close());

const X: OnnxValueInfo = { name: "x", dtype: "F32", shape: ["n", 4] };
const VALUES = Float32Array.of(1, -2, 0.5, 3, -0.25, 2, 1.5, -3);

function modelOf(nodes: readonly OnnxNode[], constants: Readonly<Record<string, OnnxTensor>>, input: OnnxValueInfo = X): OnnxModel {
  const graph = {
    name: "g",
    nodes,
    initializers: new Map(Object.entries(constants)),
    inputs: [input],
    outputs: [{ name: "y", dtype: "F32" as const }],
  };
  return { irVersion: 8, opsets: new Map([["", 17]]), graph, functions: [] };
}

function samplesOf(values: Float32Array, shape: readonly number[]): OnnxSamples {
  const inputs: Values = { x: { dtype: "F32", shape, data: values } };
  return {
    length: 1,
    async *runs() {
      yield { inputs, samples: 1 };
    },
  };
}

async function outputOf(model: OnnxModel, values: Float32Array | BigInt64Array, shape: readonly number[]): Promise<Float32Array> {
  const x =
    values instanceof Float32Array ? tensorOf(values, shape) : { dtype: "I64" as const, shape, bytes: new Uint8Array(values.buffer) };
  return toFloat32((await runOnnx(onnxToModel(model), new Map([["x", x]]), engine)).get("y")!);
}

function worst(a: Float32Array, b: Float32Array): number {
  const largest = b.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return a.reduce((most, value, i) => (Number.isFinite(value) ? Math.max(most, Math.abs(value - b[i]!) / largest) : Infinity), 0);
}

const opsInFloat16 = (model: OnnxModel): readonly string[] => model.graph.nodes.map(({ op }) => op);

describe("weights", () => {
  test("a variance beyond 65504 keeps its BatchNormalization in float32, and the outputs stay", async () => {
    const model = modelOf([makeNode("BatchNormalization", ["x", "scale", "shift", "mean", "variance"], ["y"])], {
      scale: floats([1, 2, 3, 4], [4]),
      shift: floats([0, 0, 1, 1], [4]),
      mean: floats([0, 1, 0, 0], [4]),
      variance: floats([1, 1e6, 4, 1], [4]),
    });
    const { model: half, notes } = await rewriteToFloat16(model, NO_SAMPLES, { engine });
    expect(half.graph.initializers.get("variance")!.dtype).toBe("F32");
    expect(notes[0]).toMatch(/1 operators stay in float32.*1 values of variance reach 1e\+6/);
    expect(worst(await outputOf(half, VALUES, [2, 4]), await outputOf(model, VALUES, [2, 4]))).toBeLessThan(1e-3);
  });

  test("statistics that allow for more than float16 holds keep the value in front in float32", async () => {
    const ones = floats([1, 1, 1, 1], [4]);
    const model = modelOf(
      [makeNode("Mul", ["x", "big"], ["large"]), makeNode("BatchNormalization", ["large", "one", "zero", "zero", "variance"], ["y"])],
      { big: floats([60000]), one: ones, zero: floats([0, 0, 0, 0], [4]), variance: floats([6e4 ** 2, 6e4 ** 2, 6e4 ** 2, 6e4 ** 2], [4]) },
    );
    const { model: half } = await rewriteToFloat16(model, NO_SAMPLES, { engine });
    expect(worst(await outputOf(half, VALUES, [2, 4]), await outputOf(model, VALUES, [2, 4]))).toBeLessThan(1e-3);
  });

  test("minus a lot in front of a Softmax is cut, and nothing stays in float32 for it", async () => {
    const nodes = [makeNode("Where", ["mask", "x", "least"], ["masked"]), makeNode("Softmax", ["masked"], ["y"])];
    const mask = makeOnnxTensor("BOOL", [4], Uint8Array.of(1, 0, 1, 1));
    const model = modelOf(nodes, { mask, least: floats([-3.4028234663852886e38]) });
    const { model: half, notes } = await rewriteToFloat16(model, samplesOf(VALUES, [2, 4]), { engine });
    expect(notes).toEqual([]);
    expect(half.graph.initializers.get("least")!.dtype).toBe("F16");
    expect(worst(await outputOf(half, VALUES, [2, 4]), await outputOf(model, VALUES, [2, 4]))).toBeLessThan(1e-3);
  });
});

describe("values", () => {
  const large = modelOf(
    [
      makeNode("Mul", ["x", "up"], ["a"]),
      makeNode("Mul", ["a", "up"], ["b"]),
      makeNode("Relu", ["b"], ["c"]),
      makeNode("Mul", ["c", "down"], ["y"]),
    ],
    { up: floats([1000]), down: floats([1e-4]) },
  );

  test("measured beyond 65504 they stay in float32, and the outputs stay", async () => {
    const { model: half, notes } = await rewriteToFloat16(large, samplesOf(VALUES, [2, 4]), { engine });
    expect(notes[0]).toMatch(/3 operators stay in float32.*Mul b_Mul \(b was measured up to 3e\+6\)/);
    expect(worst(await outputOf(half, VALUES, [2, 4]), await outputOf(large, VALUES, [2, 4]))).toBeLessThan(2e-3);
  });

  test("unmeasured, the note says what measures them", async () => {
    const { notes } = await rewriteToFloat16(large, NO_SAMPLES, { engine });
    expect(notes).toHaveLength(1);
    expect(notes[0]).toContain("--data <inputs.npz>");
  });

  test("a mean over a sum beyond 65504 is taken in float32", async () => {
    const count = 40_000;
    const model = modelOf(
      [makeNode("ReduceMean", ["x"], ["m"], { axes: [1] }), makeNode("Neg", ["m"], ["y"])],
      {},
      { ...X, shape: ["n", count] },
    );
    const values = new Float32Array(count).fill(3);
    const { model: half, notes } = await rewriteToFloat16(model, samplesOf(values, [1, count]), { engine });
    expect(notes[0]).toContain("its sum was measured up to 1.2e+5");
    const mean = half.graph.nodes.find(({ op }) => op === "ReduceMean")!;
    expect(mean.inputs).toEqual(["x"]);
    expect(await outputOf(half, values, [1, count])).toEqual(Float32Array.of(-3));
  });
});

test("squares that are summed up stay in float32 unless they were measured: a norm of values past 255 stays finite", async () => {
  const model = modelOf(
    [
      makeNode("Mul", ["x", "up"], ["h"]),
      makeNode("Pow", ["h", "two"], ["squares"]),
      makeNode("ReduceMean", ["squares"], ["mean"], { axes: [1] }),
      makeNode("Add", ["mean", "epsilon"], ["variance"]),
      makeNode("Sqrt", ["variance"], ["deviation"]),
      makeNode("Div", ["h", "deviation"], ["y"]),
    ],
    { up: floats([1000]), two: floats([2]), epsilon: floats([1e-6]) },
  );
  const { model: half, notes } = await rewriteToFloat16(model, NO_SAMPLES, { engine });
  expect(notes[0]).toMatch(/4 operators stay in float32.*Pow squares_Pow \(squares that are summed up\)/);
  expect(worst(await outputOf(half, VALUES, [2, 4]), await outputOf(model, VALUES, [2, 4]))).toBeLessThan(1e-3);
  const { notes: measured } = await rewriteToFloat16(
    { ...model, graph: { ...model.graph, initializers: new Map(model.graph.initializers).set("up", floats([1])) } },
    samplesOf(VALUES, [2, 4]),
    { engine },
  );
  expect(measured).toEqual([]);
});

test.each(["cnn-17-qoperator", "encoder-torchscript-17-dynamic"])(
  "%s, quantized already: codes stay codes and sums of their products float32",
  async (name) => {
    const opened = await openOnnxModel(`fixtures/onnx/zoo/${name}.onnx`);
    const source = opened.blocks[0]!.graph.whole!.model;
    const file = await openSafetensors(await openFileSource(`fixtures/onnx/zoo/${name}.golden.safetensors`));
    const golden = new Map(await Promise.all([...file.tensors].map(async ([key, tensor]) => [key, await tensor.read()] as const)));
    await file.close();
    const inputs = new Map([...golden].flatMap(([key, tensor]) => (key.startsWith("in.") ? [[key.slice(3), tensor] as const] : [])));
    const { model: half } = await rewriteToFloat16(source, NO_SAMPLES, { engine });
    const expected = await runOnnx(opened, inputs, engine);
    for (const [output, found] of await runOnnx(onnxToModel(half), inputs, engine))
      expect(worst(toFloat32(found), toFloat32(expected.get(output)!))).toBeLessThan(0.03);
  },
);

test("angles of positions stay in float32; sines of hidden values do not", async () => {
  const positions: OnnxValueInfo = { name: "x", dtype: "I64", shape: ["n"] };
  const model = modelOf(
    [
      makeNode("Cast", ["x"], ["p"], { to: 1 }),
      makeNode("Unsqueeze", ["p", "last"], ["column"]),
      makeNode("Mul", ["column", "frequencies"], ["angles"]),
      makeNode("Cos", ["angles"], ["cosines"]),
      makeNode("MatMul", ["cosines", "w"], ["hidden"]),
      makeNode("Sin", ["hidden"], ["y"]),
    ],
    { last: int64s([1]), frequencies: floats([1, 0.3], [2]), w: floats([0.5, 0.25, -0.5, 0.125], [2, 2]) },
    positions,
  );
  const { model: half } = await rewriteToFloat16(model, NO_SAMPLES, { engine });
  const places = BigInt64Array.of(4097n, 60001n, 100003n);
  expect(worst(await outputOf(half, places, [3]), await outputOf(model, places, [3]))).toBeLessThan(2e-3);
  expect(half.graph.initializers.get("frequencies")!.dtype).toBe("F32");
  expect(half.graph.initializers.get("w")!.dtype).toBe("F16");
  expect(opsInFloat16(half)).toEqual(["Cast", "Unsqueeze", "Mul", "Cos", "Cast", "MatMul", "Sin", "Cast"]);
});
