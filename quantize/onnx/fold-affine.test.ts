import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tensorOf, toFloat32 } from "../../core/tensor.ts";
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import type { OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { createEngine } from "../../model/engines/index.ts";
import type { Engine } from "../../model/engines/engine.ts";
import { runOnnx } from "../../model/onnx/run.ts";
import { findOnnxSites } from "../../model/onnx/sites.ts";
import { onnxToModel } from "../../model/sources/onnx.ts";
import { foldAffine } from "./fold-affine.ts";
import { floats, int64s, makeNode } from "./nodes.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(() => engine.close());

/** Values between -1 and 1 that no two seeds share. */
const some = (shape: readonly number[], seed: number): OnnxTensor =>
  floats(
    Float32Array.from({ length: shape.reduce((product, size) => product * size, 1) }, (_, i) => Math.sin(seed + 1.7 * i)),
    shape,
  );

/** Of BatchNormalization, on `channels`: variances from 1e-6 to 9. */
function statistics(channels: number): Record<string, OnnxTensor> {
  return {
    gamma: some([channels], 3),
    beta: some([channels], 4),
    mean: some([channels], 5),
    variance: floats(
      Float32Array.from({ length: channels }, (_, i) => 1e-6 + (9 * i) / channels),
      [channels],
    ),
  };
}

function modelOf(nodes: readonly OnnxNode[], constants: Record<string, OnnxTensor>, shape: readonly number[], outputs = ["y"]): OnnxModel {
  const graph = {
    name: "g",
    nodes,
    initializers: new Map(Object.entries(constants)),
    inputs: [{ name: "x", dtype: "F32" as const, shape }],
    outputs: outputs.map((name) => ({ name, dtype: "F32" as const })),
  };
  return { irVersion: 8, opsets: new Map([["", 13]]), graph, functions: [] };
}

async function outputsOf(model: OnnxModel): Promise<Float32Array> {
  const { shape } = model.graph.inputs[0]!;
  const input = await some(shape as number[], 9).read();
  const x = tensorOf(new Float32Array(input.buffer), shape as number[]);
  return toFloat32((await runOnnx(onnxToModel(model), new Map([["x", x]]), engine)).get("y")!);
}

async function expectEqual(folded: OnnxModel, model: OnnxModel): Promise<void> {
  const [found, expected] = [await outputsOf(folded), await outputsOf(model)];
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  expect(found.length).toBe(expected.length);
  expect(found.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0) / largest).toBeLessThan(2e-6);
}

const normalize = (from: string, to: string): OnnxNode =>
  makeNode("BatchNormalization", [from, "gamma", "beta", "mean", "variance"], [to], { epsilon: 0.001 });
const opsOf = (model: OnnxModel): readonly string[] => model.graph.nodes.map(({ op }) => op);

describe("folded into the weights in front", () => {
  test("a grouped Conv with a normalization, a product, a sum by a reshaped constant and a difference", async () => {
    const model = modelOf(
      [
        makeNode("Conv", ["x", "w", "b"], ["c"], { group: 2, pads: [1, 1, 1, 1] }),
        normalize("c", "n"),
        makeNode("Mul", ["n", "factor"], ["m"]),
        makeNode("Reshape", ["list", "shape"], ["column"]),
        makeNode("Add", ["column", "m"], ["a"]),
        makeNode("Identity", ["a"], ["i"]),
        makeNode("Sub", ["column", "i"], ["s"]),
        makeNode("Div", ["s", "factor"], ["d"]),
        makeNode("Relu", ["d"], ["y"]),
      ],
      {
        ...statistics(4),
        w: some([4, 3, 3, 3], 1),
        b: some([4], 2),
        factor: floats([2.5]),
        list: some([4], 6),
        shape: int64s([1, -1, 1, 1]),
      },
      [2, 6, 5, 5],
    );
    const { model: folded, folded: counts } = foldAffine(model);
    expect(opsOf(folded)).toEqual(["Conv", "Relu"]);
    expect(Object.fromEntries(counts)).toEqual({ BatchNormalization: 1, Mul: 1, Add: 1, Identity: 1, Sub: 1, Div: 1 });
    expect([...folded.graph.initializers.keys()].toSorted()).toEqual(["b", "w"]);
    expect(findOnnxSites(folded).map(({ name }) => name)).toEqual(findOnnxSites(model).map(({ name }) => name));
    await expectEqual(folded, model);
  });

  test("a grouped ConvTranspose, whose channels lie in groups", async () => {
    const model = modelOf(
      [
        makeNode("ConvTranspose", ["x", "w"], ["c"], { group: 2, strides: [2, 2] }),
        makeNode("Add", ["c", "row"], ["a"]),
        normalize("a", "y"),
      ],
      { ...statistics(6), w: some([4, 3, 2, 2], 1), row: some([6, 1, 1], 2) },
      [1, 4, 3, 3],
    );
    const { model: folded } = foldAffine(model);
    expect(opsOf(folded)).toEqual(["ConvTranspose"]);
    await expectEqual(folded, model);
  });

  test.each([0, 1])("a Gemm with transB = %i", async (transB) => {
    const model = modelOf(
      [makeNode("Gemm", ["x", "w"], ["c"], { transB }), normalize("c", "n"), makeNode("Add", ["n", "row"], ["y"])],
      { ...statistics(5), w: some(transB === 1 ? [5, 3] : [3, 5], 1), row: some([1, 5], 2) },
      [4, 3],
    );
    const { model: folded } = foldAffine(model);
    expect(opsOf(folded)).toEqual(["Gemm"]);
    await expectEqual(folded, model);
  });

  test("sums alone make a bias and leave the weight as it is", async () => {
    const model = modelOf(
      [makeNode("Conv", ["x", "w"], ["c"]), makeNode("Add", ["c", "row"], ["y"])],
      { w: some([2, 2, 1, 1], 1), row: some([1, 2, 1, 1], 2) },
      [1, 2, 3, 3],
    );
    const { model: folded } = foldAffine(model);
    expect(folded.graph.initializers.get("w")).toBe(model.graph.initializers.get("w"));
    await expectEqual(folded, model);
  });
});

describe("left alone", () => {
  const constants = { ...statistics(2), w: some([2, 2, 1, 1], 1) };
  const conv = makeNode("Conv", ["x", "w"], ["c"]);

  test("a value that others read, or that the model gives", () => {
    const twice = modelOf([conv, normalize("c", "n"), makeNode("Add", ["c", "n"], ["y"])], constants, [1, 2, 3, 3]);
    expect(foldAffine(twice).model).toBe(twice);
    const given = modelOf([conv, normalize("c", "y")], constants, [1, 2, 3, 3], ["y", "c"]);
    expect(foldAffine(given).model).toBe(given);
  });

  test("a weight that two layers share is not stored twice", () => {
    const shared = modelOf([conv, normalize("c", "n"), makeNode("Conv", ["n", "w"], ["y"])], constants, [1, 2, 3, 3]);
    expect(foldAffine(shared).model).toBe(shared);
  });

  test("constants along other axes than the channels", () => {
    const along = modelOf([conv, makeNode("Mul", ["c", "row"], ["y"])], { w: constants.w, row: some([3], 2) }, [1, 2, 3, 3]);
    expect(foldAffine(along).model).toBe(along);
    const wide = modelOf([conv, makeNode("Add", ["c", "block"], ["y"])], { w: constants.w, block: some([4, 2, 1, 1], 2) }, [1, 2, 3, 3]);
    expect(foldAffine(wide).model).toBe(wide);
  });
});
