/**
 * A tensor as a stream of row pieces in a workspace, each piece as bf16
 * patterns or f32 for the kernels.
 * @module
 */
import type { Arithmetic } from "../../core/dialect.ts";
import { DTYPES, elementCount, type DType } from "../../core/dtype.ts";
import { BudgetError, NumericError, UnsupportedError } from "../../core/errors.ts";
import { canExpand, expandAt } from "../../kernels/expand/expand.ts";
import type { Region, Workspace } from "../../kernels/load-wasm.ts";
import { narrowAt } from "../../kernels/narrow/narrow.ts";
import { firstNotFinite, type Stored } from "../../kernels/runs.ts";
import { checkFactors, scaleMatrixAt, type MatrixFactors } from "../../kernels/scale-matrix/scale-matrix.ts";
import type { TensorReader } from "./regions.ts";

/** Bytes read at once: large enough for the disk, small enough for the second-level cache, from which the kernels then read. */
export const PIECE_BYTES: number = 2 ** 20;
/** Source bytes per kernel call, so that what one kernel leaves the next one finds in cache. */
const TILE_BYTES = 256 * 1024;
/** A single row may take this much memory. */
const ROW_LIMIT = 256 * 2 ** 20;

export interface MatrixShape {
  readonly rows: number;
  readonly cols: number;
}

/** Output channels × everything else; a tensor of one axis is one row. */
export function matrixShape(shape: readonly number[]): MatrixShape {
  if (shape.length < 2) return { rows: 1, cols: elementCount(shape) };
  return { rows: shape[0]!, cols: elementCount(shape.slice(1)) };
}

/** Rows that lie in the workspace, ready for a kernel. */
export interface Tile {
  readonly firstRow: number;
  readonly rows: number;
  readonly stored: Stored;
  /** Byte offset in the workspace. */
  readonly at: number;
}

export interface RowSource extends MatrixShape {
  /** Bytes of a stored row. */
  readonly rowBytes: number;
  /** Rows of a piece, and of a tile, at most. */
  readonly pieceRows: number;
  readonly tileRows: number;
  /** Reads rows [first, first + rows) and yields them tile by tile. */
  tiles(first: number, rows: number): Generator<Tile, void, void>;
}

export interface RowSourceOptions {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: MatrixShape;
  readonly factors?: MatrixFactors | undefined;
  readonly arithmetic: Arithmetic;
}

/**
 * @throws {UnsupportedError} `unsupported.dtype` for a dtype that is no float of at most 32 bits.
 * @throws {BudgetError} `budget.memory` when one row alone takes more than 256 MiB.
 */
export function openRows(workspace: Workspace, reader: TensorReader, options: RowSourceOptions): RowSource {
  const { name, dtype, factors, arithmetic } = options;
  const { rows, cols } = options.shape;
  if (dtype !== "F32" && !canExpand(dtype)) {
    throw new UnsupportedError("unsupported.dtype", `${name} is ${dtype}; weights must be F32, BF16, F16, F8_E4M3 or F8_E5M2`, {
      tensor: name,
      dtype,
    });
  }
  const width = DTYPES[dtype].bits / 8;
  const rowBytes = Math.max(cols * width, 1);
  if (cols * 4 > ROW_LIMIT) {
    throw new BudgetError("budget.memory", `${name} has rows of ${cols} values; a row may take ${ROW_LIMIT} bytes as f32`, {
      tensor: name,
      cols,
    });
  }
  if (factors !== undefined) checkFactors(rows, cols, factors);
  const pieceRows = Math.min(rows, Math.max(1, Math.floor(PIECE_BYTES / rowBytes)));
  const tileRows = Math.min(pieceRows, Math.max(1, Math.floor(TILE_BYTES / rowBytes)));
  const piece = workspace.take(pieceRows * rowBytes);
  // bf16 without factors is what kernels read as it is; everything else goes through f32.
  const direct = dtype === "BF16" && factors === undefined;
  const values = direct ? undefined : workspace.take(tileRows * cols * 4);
  const columns = put(workspace, factors?.columns?.values);
  const rowFactors = factors?.rows === undefined ? undefined : workspace.take(tileRows * 4);

  function prepare(firstRow: number, count: number, source: number): Tile {
    if (values === undefined) return { firstRow, rows: count, stored: "bf16", at: source };
    const size = count * cols;
    if (dtype === "F32") copyInside(workspace, source, values.at, size * 4);
    else expandAt(workspace, dtype, source, values.at, size);
    if (factors !== undefined) {
      if (rowFactors !== undefined) workspace.f32(rowFactors).set(factors.rows!.values.subarray(firstRow, firstRow + count));
      scaleMatrixAt(workspace, values.at, count, cols, { columns: columns?.at ?? 0, rowFactors: rowFactors?.at ?? 0 }, factors);
    }
    if (arithmetic === "f32") return { firstRow, rows: count, stored: "f32", at: values.at };
    narrowAt(workspace, "BF16", values.at, values.at, size);
    return { firstRow, rows: count, stored: "bf16", at: values.at };
  }

  return {
    rows,
    cols,
    rowBytes,
    pieceRows,
    tileRows,
    *tiles(first, count) {
      reader.read(first * rowBytes, workspace.bytes({ at: piece.at, byteLength: count * cols * width }));
      for (let done = 0; done < count; done += tileRows) {
        yield prepare(first + done, Math.min(tileRows, count - done), piece.at + done * rowBytes);
      }
    },
  };
}

function put(workspace: Workspace, values: Float32Array | undefined): Region | undefined {
  if (values === undefined) return undefined;
  const region = workspace.take(values.byteLength);
  workspace.f32(region).set(values);
  return region;
}

/** Copies inside the memory; kernels want the values where they may write. */
function copyInside(workspace: Workspace, from: number, to: number, byteLength: number): void {
  new Uint8Array(workspace.memory.buffer).copyWithin(to, from, from + byteLength);
}

/** @throws {NumericError} `numeric.not-finite` naming the tensor and the first such element of the tile. */
export function throwNotFinite(workspace: Workspace, name: string, { cols }: MatrixShape, tile: Tile): never {
  const count = tile.rows * cols;
  const x = new Float32Array(count);
  if (tile.stored === "f32") x.set(workspace.f32({ at: tile.at, byteLength: count * 4 }));
  else {
    const patterns = new Uint16Array(workspace.memory.buffer, tile.at, count);
    const bits = new Uint32Array(x.buffer);
    for (let i = 0; i < count; i++) bits[i] = patterns[i]! << 16;
  }
  const inTile = firstNotFinite(x);
  const index = tile.firstRow * cols + inTile;
  throw new NumericError("numeric.not-finite", `${name}: element ${index} is ${x[inTile]}; weights must be finite`, {
    tensor: name,
    index,
  });
}
