/**
 * How the codec looks at a tensor: elements of 1 or 2 bytes in rows, and rows in blocks.
 * @module
 */
import { DTYPES, elementCount, type DType } from "../../../core/dtype.ts";

/** Elements in a block at most, except that a block has at least one row. */
export const BLOCK_ELEMENTS = 262144;
/** Columns of a row at most; longer rows are cut. */
export const MAX_COLS = 131072;
/** Rows shorter than this are joined to one. */
const MIN_COLS = 16;

/** `bf16`, `f16`: 16-bit floats with classes; `bytes`: symbols are bytes, one table a tensor. */
export type ElementKind = "bf16" | "f16" | "bytes";

/** A tensor as rows of elements. */
export interface MatrixView {
  readonly kind: ElementKind;
  /** Bytes of an element: 2 for floats, 1 for bytes. */
  readonly elementBytes: 1 | 2;
  readonly rows: number;
  readonly cols: number;
  /** Rows of this view in one row of the tensor's first dimension; 0 when several of those share a row here. */
  readonly rowsPerRow: number;
  readonly rowsPerBlock: number;
  readonly blocks: number;
}

/**
 * The view of a tensor, a function of dtype and shape alone: the first dimension is rows and the others columns;
 * vectors and rows under 16 elements become one row; rows over 131,072 elements are cut into equal parts.
 *
 * @returns undefined when the tensor is empty or its rows do not divide: it is stored raw.
 */
export function viewMatrix(dtype: DType, shape: readonly number[]): MatrixView | undefined {
  const kind: ElementKind = dtype === "BF16" ? "bf16" : dtype === "F16" ? "f16" : "bytes";
  const elements = kind === "bytes" ? (elementCount(shape) * DTYPES[dtype].bits) / 8 : elementCount(shape);
  if (elements === 0 || !Number.isSafeInteger(elements)) return undefined;
  const first = shape[0] ?? 1;
  let cols = shape.length > 1 && Number.isInteger(elements / first) ? elements / first : elements;
  let rowsPerRow = shape.length > 1 ? 1 : 0;
  if (cols < MIN_COLS) {
    cols = elements;
    rowsPerRow = 0;
  }
  if (cols > MAX_COLS) {
    const parts = smallestDivisor(cols);
    if (parts === undefined) return undefined;
    cols /= parts;
    rowsPerRow *= parts;
  }
  const rows = elements / cols;
  const rowsPerBlock = Math.max(1, Math.floor(BLOCK_ELEMENTS / cols));
  return {
    kind,
    elementBytes: kind === "bytes" ? 1 : 2,
    rows,
    cols,
    rowsPerRow,
    rowsPerBlock,
    blocks: Math.ceil(rows / rowsPerBlock),
  };
}

/** The fewest equal parts of at most MAX_COLS; parts of under 1,024 would cost more than they save. */
function smallestDivisor(cols: number): number | undefined {
  const most = Math.floor(cols / 1024);
  for (let parts = Math.ceil(cols / MAX_COLS); parts <= most; parts++) if (cols % parts === 0) return parts;
  return undefined;
}

/** Rows of block `b`. */
export function rowsOfBlock({ rows, rowsPerBlock }: MatrixView, b: number): number {
  return Math.min(rowsPerBlock, rows - b * rowsPerBlock);
}

/** Elements of blocks that are worked on together, at most. */
export const RANGE_ELEMENTS = 4 * 2 ** 20;

/** Blocks that are read, encoded and written together: what a worker does at a time. */
export function blocksPerRange({ cols, rowsPerBlock }: MatrixView): number {
  return Math.max(1, Math.floor(RANGE_ELEMENTS / (cols * rowsPerBlock)));
}

/** Blocks `from` to `to` as a view of their own. */
export function rangeOf(view: MatrixView, from: number, to: number): MatrixView {
  const rows = Math.min(to * view.rowsPerBlock, view.rows) - from * view.rowsPerBlock;
  return { ...view, rows, blocks: to - from };
}
