/**
 * scale-matrix: multiply or divide the columns and the rows of a matrix by factors.
 *
 *   v      = f32(x[r, c] + offset)
 *   v      = f32(v · columns[c])  or  f32(v / columns[c])
 *   v      = f32(v · rows[r])     or  f32(v / rows[r])
 *   x[r,c] = f32(v − offset)
 *
 * The offset is 1 for norms that store their weight less one (Gemma), else 0.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { wasm } from "../generated/scale-matrix.wasm.ts";
import type { Workspace } from "../load-wasm.ts";

/** Factors of one axis. */
export interface Factors {
  /** One per column (or row), finite; divisors are not 0. */
  readonly values: Float32Array;
  readonly divide: boolean;
}

/** What happens to each value. */
export interface MatrixFactors {
  readonly columns?: Factors;
  readonly rows?: Factors;
  readonly offset?: 0 | 1;
}

/**
 * @param x - shape [rows, cols]; receives the result.
 * @throws {InputError} `input.shape` when factors are not one per column or row.
 */
export function scaleMatrix(x: Float32Array, rows: number, cols: number, factors: MatrixFactors): void {
  checkFactors(rows, cols, factors);
  const offset = factors.offset ?? 0;
  const apply = (v: number, axis: Factors | undefined, i: number): number =>
    axis === undefined ? v : Math.fround(axis.divide ? v / axis.values[i]! : v * axis.values[i]!);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const v = apply(apply(Math.fround(x[r * cols + c]! + offset), factors.columns, c), factors.rows, r);
      x[r * cols + c] = Math.fround(v - offset);
    }
  }
}

/** @throws {InputError} `input.shape` when factors are not one per column or row. */
export function checkFactors(rows: number, cols: number, { columns, rows: byRow }: MatrixFactors): void {
  if ((columns !== undefined && columns.values.length !== cols) || (byRow !== undefined && byRow.values.length !== rows)) {
    throw new InputError(
      "input.shape",
      `a ${rows} × ${cols} matrix takes ${cols} column and ${rows} row factors, got ${columns?.values.length} and ${byRow?.values.length}`,
      { rows, cols },
    );
  }
}

interface ScaleMatrixKernel {
  readonly scaleMatrix: (x: number, rows: number, cols: number, columns: number, rowFactors: number, flags: number, offset: number) => void;
}

/** SIMD twin over byte offsets; factors lie at `columns` and `rowFactors`, 0 when absent. */
export function scaleMatrixAt(
  workspace: Workspace,
  x: number,
  rows: number,
  cols: number,
  places: { readonly columns: number; readonly rowFactors: number },
  factors: MatrixFactors,
): void {
  const flags = Number(factors.columns?.divide ?? false) + 2 * Number(factors.rows?.divide ?? false);
  workspace.kernel<ScaleMatrixKernel>(wasm).scaleMatrix(x, rows, cols, places.columns, places.rowFactors, flags, factors.offset ?? 0);
}
