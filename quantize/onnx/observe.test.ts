import { afterAll, beforeAll, expect, test } from "vitest";
import { histogram, HISTOGRAM_BINS } from "../../calibrate/statistics/histogram.ts";
import { createRandom } from "../../core/random.ts";
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import { createEngine } from "../../model/engines/index.ts";
import type { Engine } from "../../model/engines/engine.ts";
import { makeNode } from "./nodes.ts";
import { observeOnnx } from "./observe.ts";
import type { OnnxRun, OnnxSamples } from "./samples.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 2 });
});
afterAll(() => engine.close());

/** y = -x, of any rank. */
function negation(opset: number, rank: number): OnnxModel {
  return {
    irVersion: 4,
    opsets: new Map([["", opset]]),
    graph: {
      name: "negation",
      nodes: [makeNode("Neg", ["x"], ["y"])],
      initializers: new Map(),
      inputs: [{ name: "x", dtype: "F32", shape: Array.from({ length: rank }, (_, axis) => `axis${axis}`) }],
      outputs: [{ name: "y", dtype: "F32", shape: Array.from({ length: rank }, (_, axis) => `axis${axis}`) }],
    },
    functions: [],
  };
}

function runOf(shape: readonly number[], data: Float32Array): OnnxRun {
  return { inputs: { x: { dtype: "F32", shape, data } }, samples: 1 };
}

function samplesOf(runs: readonly OnnxRun[]): OnnxSamples {
  return {
    length: runs.length,
    async *runs() {
      yield* runs;
    },
  };
}

const random = createRandom(5);
const noise = (length: number): Float32Array => Float32Array.from({ length }, () => random.normal());

test.each<readonly [number, readonly number[]]>([
  [8, [3, 5, 6]],
  [11, [3, 5, 6]],
  [13, [6]],
  [17, [7, 6]],
  [18, [1, 5, 6]],
  [23, [2, 3, 4, 6]],
])("in opset %i channels of values of shape %j have the extrema over all other axes", async (opset, shape) => {
  const size = shape.reduce((product, length) => product * length, 1);
  const parts = [noise(size), noise(size)];
  const taps = [
    { value: "y", channels: 6, histogram: false },
    { value: "x", histogram: false },
  ] as const;
  const seen = await observeOnnx(negation(opset, shape.length), samplesOf(parts.map((part) => runOf(shape, part))), taps, { engine });
  const all = parts.flatMap((part) => [...part]);
  const channel = (c: number): number[] => all.filter((_, i) => i % 6 === c).map((value) => -value);
  expect(seen.get("y")).toEqual({
    min: Math.min(...all.map((value) => -value)),
    max: Math.max(...all.map((value) => -value)),
    channels: {
      min: Float32Array.from({ length: 6 }, (_, c) => Math.min(...channel(c))),
      max: Float32Array.from({ length: 6 }, (_, c) => Math.max(...channel(c))),
    },
  });
  expect(seen.get("x")).toEqual({ min: Math.min(...all), max: Math.max(...all) });
});

test("histograms count every value once, with exact extrema, however samples are cut into runs", async () => {
  const data = noise(40_000);
  const taps = [{ value: "y", histogram: true }] as const;
  const whole = await observeOnnx(negation(17, 2), samplesOf([runOf([400, 100], data)]), taps, { engine });
  const pieces = samplesOf([runOf([1, 100], data.subarray(0, 100)), runOf([399, 100], data.subarray(100))]);
  expect(await observeOnnx(negation(17, 2), pieces, taps, { engine })).toEqual(whole);
  const negated = data.map((value) => -value);
  const { min, max, histogram: counts } = whole.get("y")!;
  expect({ min, max }).toEqual({ min: Math.min(...negated), max: Math.max(...negated) });
  expect(counts).toEqual(histogram.update(new Float64Array(HISTOGRAM_BINS), [{ dtype: "F32", shape: [400, 100], data: negated }], 400));
  expect(counts!.reduce((sum, count) => sum + count, 0)).toBe(40_000);
});

test.each([NaN, Infinity, -Infinity])("%f among the values is an error that names the value, whatever is asked of it", async (bad) => {
  const data = noise(24);
  data[17] = bad;
  for (const tap of [{ channels: 6, histogram: false }, { histogram: false }, { histogram: true }] as const) {
    const run = observeOnnx(negation(17, 2), samplesOf([runOf([4, 6], data)]), [{ value: "y", ...tap }], { engine });
    await expect(run).rejects.toMatchObject({ code: "numeric.not-finite", details: { value: "y" } });
  }
});
