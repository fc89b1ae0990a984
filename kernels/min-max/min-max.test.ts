import { describe, expect, test } from "vitest";
import { awkward, place, placeValues, readVectors, SHAPES, take } from "../../tests/support/kernels.ts";
import { createWorkspace } from "../load-wasm.ts";
import { INFINITY_BITS, runCount, type RunShape, type Stored } from "../runs.ts";
import { minMax, minMaxAt } from "./min-max.ts";

const STORED: readonly Stored[] = ["bf16", "f32"];

function fast(stored: Stored, x: Float32Array, shape: RunShape): { low: Float32Array; high: Float32Array; top: number } {
  const workspace = createWorkspace();
  const [low, high] = [place(workspace, new Float32Array(runCount(shape))), place(workspace, new Float32Array(runCount(shape)))];
  const top = minMaxAt(workspace, stored, placeValues(workspace, stored, x), shape, low, high);
  return { low: take(workspace, low, runCount(shape), Float32Array), high: take(workspace, high, runCount(shape), Float32Array), top };
}

function slow(x: Float32Array, shape: RunShape): { low: Float32Array; high: Float32Array } {
  const [low, high] = [new Float32Array(runCount(shape)), new Float32Array(runCount(shape))];
  minMax(x, shape, low, high);
  return { low, high };
}

describe("known answers", () => {
  type Case = RunShape & { name: string; x: number[]; low: number[]; high: number[] };
  test.each(readVectors("min-max") as readonly Case[])("$name", ({ rows, cols, group, x, low, high }) => {
    const shape = { rows, cols, group };
    const expected = { low: Float32Array.from(low), high: Float32Array.from(high) };
    expect(slow(Float32Array.from(x), shape)).toEqual(expected);
    for (const stored of STORED) expect(fast(stored, Float32Array.from(x), shape)).toMatchObject(expected);
  });
});

test.each(SHAPES)("the SIMD twin gives the bits of the definition for %i rows of %i in groups of %i", (rows, cols, group) => {
  for (const stored of STORED) {
    const x = awkward(rows + cols, rows * cols, stored);
    const { top, ...found } = fast(stored, x, { rows, cols, group });
    expect(found).toEqual(slow(x, { rows, cols, group }));
    expect(new Float32Array(Uint32Array.of(top).buffer)[0]).toBe(x.reduce((most, v) => Math.max(most, Math.abs(v)), 0));
  }
});

test.each([NaN, Infinity, -Infinity])("%f is refused by the definition and reported by the twin, wherever it stands", (bad) => {
  for (const index of [0, 5, 12]) {
    const x = new Float32Array(13).fill(-1);
    x[index] = bad;
    const shape = { rows: 1, cols: 13, group: 13 };
    expect(() => slow(x, shape)).toThrow(`value ${index} is`);
    for (const stored of STORED) expect(fast(stored, x, shape).top).toBeGreaterThanOrEqual(INFINITY_BITS);
  }
});
