/**
 * The last step of choosing a row's class at level `fast`: whole bits of Huffman codes differ by table, so a class beside the one that fits the row's
 * magnitude can be shorter. What the first weights of the row would take with each is counted, escapes at a fixed cost.
 * @module
 */
import { MAX_ROW_CLASS, type Classes } from "./classes.ts";
import { ESCAPE } from "./frequencies.ts";
import { FLOAT_TABLES, toSymbols } from "./symbols.ts";
import type { MatrixView } from "./view.ts";

/** Classes tried, as differences, the first that takes the fewest bits wins. */
export const ROW_STEPS = [0, -1, 1] as const;
/** Columns whose weights are counted: enough to choose by. */
export const COST_COLUMNS = 384;
/** Bits of an escape: a long code, and a nibble or more. */
const ESCAPE_COST = 18;

/** Bits of a symbol at each step, by table * 64 + symbol as they are at step 0. */
export const STEP_COSTS: readonly Int32Array[] = ROW_STEPS.map((step) =>
  Int32Array.from({ length: 256 }, (_, i) => {
    const [table, symbol] = [i >> 6, i & 63];
    if (symbol >= ESCAPE) return ESCAPE_COST;
    const moved = symbol - 4 * ((table + step) >> 2);
    return moved < 0 || moved >= ESCAPE ? ESCAPE_COST : FLOAT_TABLES[(table + step) & 3]!.lengths[moved]!;
  }),
);

/** The class for a row, given how often each table * 64 + symbol occurs in it with class `q`. */
export function cheapestClass(q: number, counts: Uint32Array): number {
  let best = q;
  let least = Infinity;
  for (const [i, step] of ROW_STEPS.entries()) {
    if (q + step < 0 || q + step > MAX_ROW_CLASS) continue;
    const bits = counts.reduce((sum, count, s) => sum + count * STEP_COSTS[i]![s]!, 0);
    if (bits >= least) continue;
    least = bits;
    best = q + step;
  }
  return best;
}

/** Row classes that take the fewest bits, from those that fit the magnitudes. */
export function cheapestRows({ kind, cols }: MatrixView, classes: Classes, patterns: Uint16Array): Int16Array {
  if (kind === "bytes") return classes.rows;
  return classes.rows.map((q, r) => {
    const counts = new Uint32Array(256);
    const measured = Math.min(cols, COST_COLUMNS);
    const symbols = toSymbols(kind, patterns.subarray(r * cols, r * cols + measured), classes, r);
    for (let c = 0; c < measured; c++) counts[(((q + classes.columns[c]!) & 3) << 6) | symbols[c]!]!++;
    return cheapestClass(q, counts);
  });
}
