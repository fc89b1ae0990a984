import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toFloat32, type Tensor } from "../../core/tensor.ts";
import type { HostTensor } from "../../model/engines/engine.ts";
import type { Statistic } from "../statistic.ts";
import { histogram, HISTOGRAM_BINS, histogramQuantile, magnitudeQuantile, ZERO_BIN } from "./histogram.ts";
import { findStatistic, STATISTICS } from "./index.ts";

const CHANNELS = 3;
const host = (data: Float32Array, shape: readonly number[]): HostTensor => ({ dtype: "F32", shape, data });

/** What the engine would hand to `update`, computed plainly in f64 and rounded to f32. */
const PARTS: Readonly<Record<string, (rows: number[][]) => HostTensor[]>> = {
  absmax: (rows) => [perChannel(rows, (column) => Math.max(...column.map(Math.abs)))],
  minmax: (rows) => [perChannel(rows, (column) => Math.min(...column)), perChannel(rows, (column) => Math.max(...column))],
  meanabs: (rows) => [perChannel(rows, (column) => column.reduce((sum, x) => sum + Math.abs(x), 0))],
  histogram: (rows) => [host(Float32Array.from(rows.flat()), [rows.length, CHANNELS])],
  hessian: (rows) => [
    host(
      Float32Array.from({ length: CHANNELS ** 2 }, (_, k) =>
        rows.reduce((sum, row) => sum + row[Math.floor(k / CHANNELS)]! * row[k % CHANNELS]!, 0),
      ),
      [CHANNELS, CHANNELS],
    ),
  ],
};

function perChannel(rows: number[][], reduce: (column: number[]) => number): HostTensor {
  return host(
    Float32Array.from({ length: CHANNELS }, (_, c) => reduce(rows.map((row) => row[c]!))),
    [CHANNELS],
  );
}

function fold(statistic: Statistic, batches: number[][][]): unknown {
  return batches.reduce<unknown>(
    (state, rows) => statistic.update(state, PARTS[statistic.name]!(rows), rows.length),
    statistic.create(CHANNELS),
  );
}

function values(finished: Readonly<Record<string, Tensor>>): number[] {
  return Object.values(finished).flatMap((tensor) => [...toFloat32(tensor)]);
}

/** Multiples of 2^-6 below 2^6: sums of a few products are exact in f32, so order cannot matter. */
const exact = fc.integer({ min: -4096, max: 4096 }).map((n) => n / 64);
const batch = fc.array(fc.array(exact, { minLength: CHANNELS, maxLength: CHANNELS }), { minLength: 1, maxLength: 4 });
const shard = fc.array(batch, { minLength: 0, maxLength: 3 });

describe.each(Object.values(STATISTICS).map((statistic) => [statistic.name, statistic] as const))("%s", (_name, statistic) => {
  test("merges associatively and commutatively, to what one fold over everything gives", () => {
    fc.assert(
      fc.property(shard, shard, shard, (a, b, c) => {
        const state = (batches: number[][][]): unknown => fold(statistic, batches);
        const finish = (merged: unknown): number[] => values(statistic.finish(merged));
        const whole = finish(state([...a, ...b, ...c]));
        expect(finish(statistic.merge(statistic.merge(state(a), state(b)), state(c)))).toEqual(whole);
        expect(finish(statistic.merge(state(a), statistic.merge(state(b), state(c))))).toEqual(whole);
        expect(finish(statistic.merge(state(c), statistic.merge(state(a), state(b))))).toEqual(whole);
      }),
      { seed: 5, numRuns: 100 },
    );
  });

  test("is finite before anything was seen", () => {
    expect(values(statistic.finish(statistic.create(CHANNELS))).every(Number.isFinite)).toBe(true);
  });
});

test("means are over all tokens, not over batches", () => {
  const rows = [
    [[1, 0, 2]],
    [
      [3, 0, -2],
      [5, 6, 2],
    ],
  ];
  const finished = (name: string): number[] => values(findStatistic(name).finish(fold(findStatistic(name), rows)));
  expect(finished("meanabs")).toEqual([3, 2, 2]);
  expect(finished("hessian").map((x) => Math.fround(x * 3))).toEqual([35, 30, 6, 30, 36, 12, 6, 12, 12]);
});

describe("histogram", () => {
  const countsOf = (data: number[]): Float64Array =>
    histogram.update(histogram.create(1), [host(Float32Array.from(data), [data.length])], data.length);

  test("puts values into the bins its table names", () => {
    const bins = (x: number): number[] =>
      Array.from(countsOf([x]).entries()).flatMap(([bin, count]) => (count === 0 ? [] : [bin - ZERO_BIN]));
    expect([0, -0, 2 ** -25, -(2 ** -25)].flatMap(bins)).toEqual([0, 0, 0, 0]);
    expect([2 ** -24, -(2 ** -24)].flatMap(bins)).toEqual([1, -1]);
    expect([1, 1 + 1 / 32, 2, -2].flatMap(bins)).toEqual([24 * 32 + 1, 24 * 32 + 2, 25 * 32 + 1, -25 * 32 - 1]);
    expect([2 ** 60, -Infinity].flatMap(bins)).toEqual([ZERO_BIN, -ZERO_BIN]);
    expect(countsOf([]).length).toBe(HISTOGRAM_BINS);
  });

  test("gives quantiles within a bin's width of the exact ones", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -1000, max: 1000, noNaN: true }), { minLength: 1, maxLength: 200 }),
        fc.double({ min: 0.001, max: 1, noNaN: true }),
        (data, fraction) => {
          const exactQuantile = (sorted: Float32Array): number => sorted[Math.max(0, Math.ceil(fraction * sorted.length) - 1)]!;
          const near = (actual: number, expected: number): void => {
            expect(Math.abs(actual - expected)).toBeLessThanOrEqual(Math.abs(expected) / 32 + 2 ** -24);
          };
          const floats = Float32Array.from(data);
          near(histogramQuantile(countsOf(data), fraction), exactQuantile(floats.toSorted()));
          near(magnitudeQuantile(countsOf(data), fraction), exactQuantile(floats.map(Math.abs).toSorted()));
        },
      ),
      { seed: 6, numRuns: 300 },
    );
  });

  test("has no quantiles when it is empty", () => {
    expect(() => histogramQuantile(histogram.create(1), 0.5)).toThrow("empty");
  });
});

test("an unknown statistic is refused with the known names", () => {
  expect(() => findStatistic("__proto__")).toThrow(/"__proto__".*absmax, minmax, meanabs, histogram, hessian/);
});
