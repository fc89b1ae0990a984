import { describe, expect, test } from "vitest";
import { awkward, place, readVectors, SHAPES, take } from "../../tests/support/kernels.ts";
import { createWorkspace } from "../load-wasm.ts";
import { scaleMatrix, scaleMatrixAt, type MatrixFactors } from "./scale-matrix.ts";

function slow(x: Float32Array, rows: number, cols: number, factors: MatrixFactors): Float32Array {
  const result = x.slice();
  scaleMatrix(result, rows, cols, factors);
  return result;
}

function fast(x: Float32Array, rows: number, cols: number, factors: MatrixFactors): Float32Array {
  const workspace = createWorkspace();
  const at = place(workspace, x);
  const columns = factors.columns === undefined ? 0 : place(workspace, factors.columns.values);
  const rowFactors = factors.rows === undefined ? 0 : place(workspace, factors.rows.values);
  scaleMatrixAt(workspace, at, rows, cols, { columns, rowFactors }, factors);
  return take(workspace, at, x.length, Float32Array);
}

describe("known answers", () => {
  type Case = {
    name: string;
    rows: number;
    cols: number;
    x: number[];
    columns?: number[];
    divideColumns?: boolean;
    rowFactors?: number[];
    divideRows?: boolean;
    offset?: 0 | 1;
    out: number[];
  };
  test.each(readVectors("scale-matrix") as readonly Case[])(
    "$name",
    ({ rows, cols, x, columns, divideColumns, rowFactors, divideRows, offset, out }) => {
      const factors: MatrixFactors = {
        ...(columns && { columns: { values: Float32Array.from(columns), divide: divideColumns ?? false } }),
        ...(rowFactors && { rows: { values: Float32Array.from(rowFactors), divide: divideRows ?? false } }),
        offset: offset ?? 0,
      };
      expect(slow(Float32Array.from(x), rows, cols, factors)).toEqual(Float32Array.from(out));
      expect(fast(Float32Array.from(x), rows, cols, factors)).toEqual(Float32Array.from(out));
    },
  );
});

test.each(SHAPES)("the SIMD twin gives the bits of the definition for %i rows of %i", (rows, cols) => {
  const x = awkward(rows + cols, rows * cols, "f32");
  const positive = (seed: number, length: number): Float32Array => awkward(seed, length, "f32").map((v) => Math.abs(v) + 0.1);
  for (const divide of [false, true]) {
    for (const offset of [0, 1] as const) {
      const columns = { values: positive(1, cols), divide };
      const byRow = { values: positive(2, rows), divide: !divide };
      expect(fast(x, rows, cols, { columns, offset })).toEqual(slow(x, rows, cols, { columns, offset }));
      expect(fast(x, rows, cols, { columns, rows: byRow, offset })).toEqual(slow(x, rows, cols, { columns, rows: byRow, offset }));
    }
  }
});

test("factors that are not one per column are refused", () => {
  const columns = { values: new Float32Array(2), divide: false };
  expect(() => scaleMatrix(new Float32Array(6), 2, 3, { columns })).toThrow("takes 3 column and 2 row factors, got 2");
});
