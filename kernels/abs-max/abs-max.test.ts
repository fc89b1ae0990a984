import { describe, expect, test } from "vitest";
import { awkward, place, placeValues, readVectors, SHAPES, take } from "../../tests/support/kernels.ts";
import { createWorkspace } from "../load-wasm.ts";
import { INFINITY_BITS, runCount, type Stored } from "../runs.ts";
import { absMax, absMaxAt, absMaxColumns, absMaxColumnsAt } from "./abs-max.ts";

const STORED: readonly Stored[] = ["bf16", "f32"];

function fast(stored: Stored, x: Float32Array, [rows, cols, group]: readonly [number, number, number]): Float32Array {
  const workspace = createWorkspace();
  const out = place(workspace, new Float32Array(runCount({ rows, cols, group })).fill(-1));
  absMaxAt(workspace, stored, placeValues(workspace, stored, x), { rows, cols, group }, out);
  return take(workspace, out, runCount({ rows, cols, group }), Float32Array);
}

describe("known answers", () => {
  test.each(readVectors("abs-max") as readonly { name: string; rows: number; cols: number; group: number; x: number[]; out: number[] }[])(
    "$name",
    ({ x, out, ...shape }) => {
      const definition = new Float32Array(out.length);
      absMax(Float32Array.from(x), shape, definition);
      expect(definition).toEqual(Float32Array.from(out));
      for (const stored of STORED) expect(fast(stored, Float32Array.from(x), [shape.rows, shape.cols, shape.group])).toEqual(definition);
    },
  );
});

test.each(SHAPES)("the SIMD twin gives the bits of the definition for %i rows of %i in groups of %i", (rows, cols, group) => {
  for (const stored of STORED) {
    const x = awkward(rows * cols, rows * cols, stored);
    const definition = new Float32Array(runCount({ rows, cols, group }));
    absMax(x, { rows, cols, group }, definition);
    expect(fast(stored, x, [rows, cols, group])).toEqual(definition);
  }
});

test.each(SHAPES)("column maxima of %i rows of %i fold over blocks of rows", (rows, cols) => {
  const x = awkward(cols, rows * cols, "f32");
  const definition = new Float32Array(cols);
  absMaxColumns(x, rows, cols, definition);
  const workspace = createWorkspace();
  const out = place(workspace, new Float32Array(cols));
  const at = place(workspace, x);
  for (let r = 0; r < rows; r++) absMaxColumnsAt(workspace, at + r * cols * 4, 1, cols, out);
  expect(take(workspace, out, cols, Float32Array)).toEqual(definition);
});

test.each([NaN, -NaN, Infinity, -Infinity])("%f is refused by the definition and reported by the twin, wherever it stands", (bad) => {
  for (const index of [0, 5, 12]) {
    const x = new Float32Array(13);
    x[index] = bad;
    const shape = { rows: 1, cols: 13, group: 13 };
    expect(() => absMax(x, shape, new Float32Array(1))).toThrow(`value ${index} is`);
    const workspace = createWorkspace();
    const out = place(workspace, new Float32Array(13));
    for (const stored of STORED) {
      expect(absMaxAt(workspace, stored, placeValues(workspace, stored, x), shape, out)).toBeGreaterThanOrEqual(INFINITY_BITS);
    }
    expect(absMaxColumnsAt(workspace, placeValues(workspace, "f32", x), 1, 13, out)).toBeGreaterThanOrEqual(INFINITY_BITS);
  }
});

test("lengths that do not fit are refused", () => {
  expect(() => absMax(new Float32Array(5), { rows: 2, cols: 3, group: 3 }, new Float32Array(2))).toThrow("5 values");
});
