import { expect, test } from "vitest";
import { histogram } from "../../calibrate/statistics/histogram.ts";
import type { HostTensor } from "../../model/engines/engine.ts";
import { createRandom } from "../../core/random.ts";
import { roundHalfEven } from "../../core/round.ts";
import { chooseRange, type SeenValue } from "./ranges.ts";
import { activationScale } from "./scales.ts";
import { isTwin, twinScale } from "./twin.ts";

/** 20,000 values near a normal distribution and one outlier. */
function seen(outlier: number): SeenValue & { values: Float32Array } {
  const random = createRandom(3);
  const values = Float32Array.from({ length: 20_000 }, () => random.normal());
  values[7] = outlier;
  const tensor: HostTensor = { dtype: "F32", shape: [values.length], data: values };
  return {
    values,
    min: values.reduce((a, b) => Math.min(a, b)),
    max: values.reduce((a, b) => Math.max(a, b)),
    histogram: histogram.update(histogram.create(1), [tensor], 1),
  };
}

function squaredError(values: Float32Array, range: { min: number; max: number }): number {
  const { scale, zero } = activationScale(range, 8);
  return values.reduce((sum, x) => {
    const code = Math.min(255, Math.max(0, roundHalfEven(x / scale) + zero));
    return sum + (x - (code - zero) * scale) ** 2;
  }, 0);
}

test("minmax keeps an outlier; percentile, mse and entropy cut it", () => {
  const found = seen(400);
  expect(chooseRange(found, "minmax", 8, 99.99)).toEqual({ min: found.min, max: 400 });
  expect(chooseRange(found, "percentile", 8, 99.9).max).toBeLessThan(6);
  expect(chooseRange(found, "entropy", 8, 99.9).max).toBeLessThan(400);
  const small = seen(30);
  expect(squaredError(small.values, chooseRange(small, "mse", 8, 99.9))).toBeLessThanOrEqual(squaredError(small.values, small));
});

test("a calibrated range never leaves what was seen", () => {
  const found = seen(9);
  for (const calibrator of ["minmax", "percentile", "mse", "entropy"] as const) {
    const { min, max } = chooseRange(found, calibrator, 8, 99.9);
    expect(min).toBeGreaterThanOrEqual(found.min);
    expect(max).toBeLessThanOrEqual(found.max);
  }
});

test("scales hold zero exactly, and an empty range has scale 1", () => {
  expect(activationScale({ min: 1, max: 3 }, 8).zero).toBe(0);
  expect(activationScale({ min: -3, max: -1 }, 8).zero).toBe(255);
  expect(activationScale({ min: 0, max: 0 }, 8)).toEqual({ scale: 1, zero: 0, bits: 8 });
});

test("behind a GELU the negative side gets the finer step, a power of two below the positive one", () => {
  const values = Float32Array.from({ length: 4000 }, (_, i) => (i % 2 === 0 ? -0.17 * ((i % 97) / 97) : (i % 101) / 25));
  const tensor: HostTensor = { dtype: "F32", shape: [values.length], data: values };
  const found = { min: -0.17, max: 4, histogram: histogram.update(histogram.create(1), [tensor], 1) };
  expect(isTwin(found)).toBe(true);
  expect(isTwin({ min: -3, max: 4 })).toBe(false);
  const { negative, positive, exponent } = twinScale(found, 8);
  expect(exponent).toBeGreaterThanOrEqual(3);
  expect(positive.scale / negative.scale).toBe(2 ** exponent);
  expect(negative.zero * negative.scale).toBeGreaterThanOrEqual(0.15);
});
