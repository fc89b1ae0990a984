/**
 * Row and column classes through the kernels.
 * @module
 */
import type { CompactLevel } from "../../formats/encodings/compact/block.ts";
import { columnClasses, columnFactor, MAX_COLUMN_CLASS, rowClass } from "../../formats/encodings/compact/classes.ts";
import type { BlockCoder } from "../../formats/encodings/compact/coder.ts";
import { COST_COLUMNS, STEP_COSTS } from "../../formats/encodings/compact/row-costs.ts";
import type { MatrixView } from "../../formats/encodings/compact/view.ts";
import type { Workspace } from "../load-wasm.ts";
import { KINDS, type CompactKernel } from "./kernel.ts";
import { takeColumns } from "./tables.ts";

/** Bytes of a tensor in the kernels' memory at a time. */
const PIECE = 2 ** 19;

/** By column class. */
const COLUMN_FACTORS = Float32Array.from({ length: 2 * MAX_COLUMN_CLASS + 1 }, (_, i) => columnFactor(i - MAX_COLUMN_CLASS));
/** By table, step (down, up) and symbol: how many bits more a symbol takes than with the class there is. */
const STEP_BYTES = Uint8Array.from({ length: 512 }, (_, i) => {
  const [table, step, symbol] = [i >> 7, 1 + ((i >> 6) & 1), i & 63];
  return STEP_COSTS[step]![64 * table + symbol]! - STEP_COSTS[0]![64 * table + symbol]!;
});

/** @param scratch - 32 bytes. Regions that are taken are the caller's to release. */
export function createClassFitter(
  workspace: Workspace,
  kernel: CompactKernel,
  scratch: number,
): Pick<BlockCoder, "fitColumns" | "fitRows"> {
  /** Pieces of whole rows, one after the other in the same region. */
  function* pieces(
    { rows, cols }: Pick<MatrixView, "rows" | "cols">,
    bytes: Uint8Array,
  ): Generator<readonly [at: number, first: number, count: number]> {
    const rowBytes = 2 * cols;
    const batch = Math.min(rows, Math.max(1, Math.floor(PIECE / rowBytes)));
    // As they lie, when that is in the workspace already.
    if (bytes.buffer === workspace.memory.buffer && bytes.byteOffset + bytes.length + 64 <= workspace.memory.buffer.byteLength) {
      for (let first = 0; first < rows; first += batch) yield [bytes.byteOffset + first * rowBytes, first, Math.min(batch, rows - first)];
      return;
    }
    const input = workspace.take(batch * rowBytes + 8);
    for (let first = 0; first < rows; first += batch) {
      const count = Math.min(batch, rows - first);
      const piece = bytes.subarray(first * rowBytes, (first + count) * rowBytes);
      const at = input.at + (piece.byteOffset % 8);
      workspace.bytes({ at, byteLength: piece.length }).set(piece);
      yield [at, first, count];
    }
  }

  function fitColumns({ kind, cols }: MatrixView, sample: Uint8Array): Int16Array {
    const sums = workspace.take(4 * cols);
    workspace.bytes(sums).fill(0);
    const rows = sample.length / (2 * cols);
    for (const [at, , count] of pieces({ rows, cols }, sample)) kernel.addColumns(at, count, cols, KINDS.indexOf(kind), sums.at, scratch);
    return columnClasses(workspace.f32(sums), rows);
  }

  function fitRows(view: MatrixView, columns: Int16Array, level: CompactLevel, bytes: Uint8Array): Int16Array {
    const { kind, rows, cols } = view;
    const code = KINDS.indexOf(kind);
    const factors = workspace.take(4 * cols);
    const factorWords = workspace.f32(factors);
    for (let c = 0; c < cols; c++) factorWords[c] = COLUMN_FACTORS[columns[c]! + MAX_COLUMN_CLASS]!;
    const sums = workspace.take(4 * rows);
    const found = workspace.take(2 * rows);
    const tables = level === "fast" ? takeColumns(workspace, kernel, cols, columns, "fast") : undefined;
    const queues = workspace.take(2048);
    const steps = workspace.take(512);
    if (tables !== undefined) workspace.bytes(steps).set(STEP_BYTES);
    let spaces: { readonly symbols: number; readonly escapes: number } | undefined;
    const measured = Math.min(cols, COST_COLUMNS);
    for (const [at, first, count] of pieces(view, bytes)) {
      kernel.sumRows(at, count, cols, code, factors.at, sums.at, scratch);
      const classes = new Int16Array(workspace.memory.buffer, found.at + 2 * first, count);
      const magnitudes = workspace.f32(sums);
      for (let i = 0; i < count; i++) classes[i] = rowClass(magnitudes[i]!, cols);
      if (tables === undefined) continue;
      // The first piece is the largest.
      spaces ??= { symbols: workspace.take(count * measured).at, escapes: workspace.take(4 * count * measured).at };
      const { symbols, escapes } = spaces;
      const own = found.at + 2 * first;
      kernel.toSymbols(at, count, measured, code, own, tables.zeros, tables.tableBits, tables.stride, cols, symbols, escapes);
      kernel.cheapestRows(symbols, count, measured, own, tables.packs, tables.counts, queues.at, steps.at);
    }
    return new Int16Array(workspace.memory.buffer, found.at, rows).slice();
  }

  return { fitColumns, fitRows };
}
