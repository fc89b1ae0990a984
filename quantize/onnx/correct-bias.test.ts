import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRandom } from "../../core/random.ts";
import { tensorOf, toFloat32 } from "../../core/tensor.ts";
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import { createEngine } from "../../model/engines/index.ts";
import type { Engine } from "../../model/engines/engine.ts";
import { runOnnx } from "../../model/onnx/run.ts";
import { findOnnxSites } from "../../model/onnx/sites.ts";
import { onnxToModel } from "../../model/sources/onnx.ts";
import type { SiteAction } from "./actions.ts";
import { applyActions } from "./apply.ts";
import { measureMoments, type Moments } from "./conv-moments.ts";
import { floats, makeNode } from "./nodes.ts";
import type { OnnxSamples } from "./samples.ts";
import { activationScale } from "./scales.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(() => engine.close());

const random = createRandom(7);
const normals = (count: number, at = 0): Float32Array => Float32Array.from({ length: count }, () => at + random.normal());
const CHANNELS = 8;
const SIZE = 12;

/** x, far from zero, through a Conv; without padding, so that every weight meets the mean of its channel. */
function convolution(groups: number, hasBias: boolean): OnnxModel {
  const width = CHANNELS / groups;
  const graph = {
    name: "g",
    nodes: [makeNode("Conv", ["x", "w", ...(hasBias ? ["b"] : [])], ["y"], { group: groups })],
    initializers: new Map([
      ["w", floats(normals(4 * width * 9), [4, width, 3, 3])],
      ...(hasBias ? [["b", floats(normals(4), [4])] as const] : []),
    ]),
    inputs: [{ name: "x", dtype: "F32" as const, shape: ["n", CHANNELS, SIZE, SIZE] }],
    outputs: [{ name: "y", dtype: "F32" as const }],
  };
  return { irVersion: 8, opsets: new Map([["", 13]]), graph, functions: [] };
}

const shape = [4, CHANNELS, SIZE, SIZE];
const data = normals(4 * CHANNELS * SIZE * SIZE, 6);
const samples: OnnxSamples = {
  length: 4,
  async *runs() {
    yield { inputs: { x: { dtype: "F32", shape, data } }, samples: 4 };
  },
};

/** Largest mean error of an output channel. */
async function meanError(found: OnnxModel, expected: OnnxModel): Promise<number> {
  const run = async (model: OnnxModel): Promise<Float32Array> =>
    toFloat32((await runOnnx(onnxToModel(model), new Map([["x", tensorOf(data, shape)]]), engine)).get("y")!);
  const [a, b] = [await run(found), await run(expected)];
  const sums = new Float64Array(4);
  const plane = (SIZE - 2) ** 2;
  for (const [i, value] of a.entries()) sums[Math.floor(i / plane) % 4]! += value - b[i]!;
  return sums.reduce((most, sum) => Math.max(most, Math.abs(sum / (4 * plane))), 0);
}

const DEQUANTIZE: SiteAction = {
  kind: "dequantize",
  scheme: { bits: 8, unsigned: false, symmetric: true, perChannel: true, search: true },
};
const STATIC: SiteAction = {
  kind: "static",
  scheme: {
    activationBits: 8,
    weight: { kind: "axis", scheme: { bits: 8, unsigned: false, symmetric: true, perChannel: true, search: false } },
  },
};

describe("biases make up for rounded weights", () => {
  test.each([
    ["weights only", DEQUANTIZE, 1, true],
    ["weights only, grouped, without a bias", DEQUANTIZE, 4, false],
    ["static", STATIC, 2, true],
  ] as const)("%s: means of the outputs are those of the source", async (_, action, groups, hasBias) => {
    const model = convolution(groups, hasBias);
    const choices = findOnnxSites(model).map((site) => ({ site, action }));
    // Wide enough to hold all, so that rounding is all there is.
    const scales = new Map([["x", activationScale({ min: 0, max: 12 }, 16)]]);
    const rewrite = (moments: ReadonlyMap<string, Moments>): OnnxModel =>
      applyActions({ model, choices, scales, twins: new Map(), outputs: new Map(), moments }).model;
    const moments = await measureMoments(model, choices, samples, { engine });
    expect([...moments.get("w")!.mean].every((mean) => Math.abs(mean - 6) < 0.3)).toBe(true);
    const [plain, corrected] = [await meanError(rewrite(new Map()), model), await meanError(rewrite(moments), model)];
    expect(plain).toBeGreaterThan(0.01);
    expect(corrected).toBeLessThan(plain / 10);
  });

  test("a weight that two layers share keeps its biases", async () => {
    const model = convolution(1, true);
    const { nodes } = model.graph;
    const twice = { ...model, graph: { ...model.graph, nodes: [...nodes, makeNode("Conv", ["x", "w"], ["z"])] } };
    const choices = findOnnxSites(twice).map((site) => ({ site, action: DEQUANTIZE }));
    expect(await measureMoments(twice, choices, samples, { engine })).toEqual(new Map());
  });
});
