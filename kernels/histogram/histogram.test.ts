import { describe, expect, test } from "vitest";
import { awkward, readVectors } from "../../tests/support/kernels.ts";
import { histogram, histogramFast } from "./histogram.ts";

describe("known answers", () => {
  type Case = { name: string; low: number; inverseWidth: number; bins: number; x: number[]; counts: number[] };
  test.each(readVectors("histogram") as readonly Case[])("$name", ({ low, inverseWidth, bins, x, counts }) => {
    for (const count of [histogram, histogramFast]) {
      const found = new Uint32Array(bins);
      count(Float32Array.from(x), { low, inverseWidth }, found);
      expect(found).toEqual(Uint32Array.from(counts));
    }
  });
});

test.each([1, 3, 4, 1000, 70_001])("the SIMD twin counts %i values as the definition, and adds to what is there", (length) => {
  const x = awkward(length, length, "f32");
  const [slow, fast] = [new Uint32Array(64).fill(3), new Uint32Array(64).fill(3)];
  histogram(x, { low: -3, inverseWidth: 64 / 6 }, slow);
  histogramFast(x, { low: -3, inverseWidth: 64 / 6 }, fast);
  expect(fast).toEqual(slow);
  expect(slow.reduce((sum, count) => sum + count, 0)).toBe(length + 3 * 64);
});

test("NaN is refused", () => {
  expect(() => histogramFast(Float32Array.of(1, NaN), { low: 0, inverseWidth: 1 }, new Uint32Array(1))).toThrow("value 1 is NaN");
});
