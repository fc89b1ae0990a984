import { expect, test } from "vitest";
import { foldColumnMaxima, foldBias, foldProducer, smoothedMaximum, smoothingScales } from "./scales.ts";

test("scales follow s = a^alpha / w^(1-alpha), worked by hand", () => {
  // a = [16, 4], w = [4, 1]: sqrt(16) / sqrt(4) = 2, sqrt(4) / sqrt(1) = 2.
  expect([...smoothingScales(Float32Array.of(16, 4), Float32Array.of(4, 1), 0.5)]).toEqual([2, 2]);
  expect([...smoothingScales(Float32Array.of(16), Float32Array.of(4), 1)]).toEqual([16]);
  expect([...smoothingScales(Float32Array.of(16), Float32Array.of(4), 0)]).toEqual([0.25]);
});

test("a channel that never fires and an all-zero column get finite positive scales", () => {
  const scales = smoothingScales(Float32Array.of(0, 3), Float32Array.of(1, 0), 0.5);
  expect(scales[0]).toBeCloseTo(1e-5, 10);
  expect(scales[1]).toBeCloseTo(Math.sqrt(3) / Math.sqrt(1e-5), 1);
});

test("lengths that disagree are refused with both numbers", () => {
  expect(() => smoothingScales(new Float32Array(2), new Float32Array(3), 0.5)).toThrow(/2 activation channels, 3 weight columns/);
});

test("column maxima are joint over matrices, and Conv1D counts its rows", () => {
  const maxima = new Float32Array(2);
  foldColumnMaxima(Float32Array.of(1, -5, 2, 3), 2, 0, maxima);
  expect([...maxima]).toEqual([2, 5]);
  foldColumnMaxima(Float32Array.of(-9, 1, 0, 4), 2, 1, maxima);
  expect([...maxima]).toEqual([9, 5]);
});

test("a bf16 norm times its effective scale is the source norm, whatever rounding did", () => {
  const values = Float32Array.of(1, 0.3330078125, -2.5, 0);
  const { values: folded, scales } = foldProducer({ values, dtype: "BF16", offset: 0 }, Float32Array.of(3, 0.7, 1.1, 5));
  for (let j = 0; j < 3; j++) expect(folded[j]! * scales[j]!).toBeCloseTo(values[j]!, 6);
  expect([folded[3], scales[3]]).toEqual([0, 5]);
});

test("a norm stored minus one is divided as weight + 1", () => {
  const { values, scales } = foldProducer({ values: Float32Array.of(1), dtype: "F32", offset: 1 }, Float32Array.of(4));
  expect([values[0], scales[0]]).toEqual([-0.5, 4]);
});

test("a quotient that f16 cannot hold leaves the channel alone", () => {
  const { values, scales } = foldProducer({ values: Float32Array.of(1), dtype: "F16", offset: 0 }, Float32Array.of(1e-6));
  expect([values[0], scales[0]]).toEqual([1, 1]);
});

test("biases are divided by the effective scale", () => {
  expect([...foldBias(Float32Array.of(6), "F32", Float32Array.of(4))]).toEqual([1.5]);
});

test("the largest smoothed input is the largest quotient", () => {
  expect(smoothedMaximum(Float32Array.of(10, 3), Float32Array.of(5, 1))).toBe(3);
});
