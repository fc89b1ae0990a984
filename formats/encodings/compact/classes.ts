/**
 * Row and column classes: the expected magnitude of each weight, in quarter octaves, as the sum of a number for its row
 * and a number for its column. The encoder's choice; a decoder only reads them.
 *
 * Arithmetic: magnitudes are f32 (of f16, the pattern shifted to an f32 of exponent 2^-112 too small; Inf and NaN count as 0).
 * Every product and sum is rounded to f32. A row's sum has eight accumulators, column c in c mod 8, folded as
 * (l0+l4)+(l1+l5) + ((l2+l6)+(l3+l7)); a column's sum takes its rows in order.
 * @module
 */
import type { MatrixView } from "./view.ts";

/** Rows that columns are measured on at most, and their elements; they lie evenly spread. */
const SAMPLE_ROWS = 1024;
const SAMPLE_ELEMENTS = 4 * 2 ** 20;
/** Rows that lie together. */
const SAMPLE_RUN = 16;
/** With fewer rows, columns have no classes: they would cost more than they save. */
export const MIN_ROWS_FOR_COLUMNS = 32;
/** Column classes lie in ±this. */
export const MAX_COLUMN_CLASS = 127;
/** Row classes lie in 0..1023. */
export const MAX_ROW_CLASS = 1023;

/** Sums below this count as no magnitude (smallest normal f32). */
const TINY = 2 ** -126;
/** Mantissa bits of 2^(1/8), 2^(3/8), 2^(5/8), 2^(7/8), rounded down: where the nearest quarter octave changes. */
const STEPS = [759233, 2490070, 4548394, 6996166];

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** Quarter octaves of a non-negative f32: four times (log2 x + 127), to the nearest; 0..1023. */
export function quarterOctave(x: number): number {
  float[0] = x;
  const bits = word[0]!;
  const mantissa = bits & 0x7fffff;
  let quarter = 4 * (bits >>> 23);
  // Asked for every row and column of a model.
  for (let i = 0; i < 4 && mantissa > STEPS[i]!; i++) quarter++;
  return Math.min(quarter, MAX_ROW_CLASS);
}

/** 2^(-q/4) as f32, q a column class. */
export function columnFactor(q: number): number {
  const whole = Math.ceil(q / 4);
  return Math.fround(QUARTERS[4 * whole - q]! * 2 ** -whole);
}
/** 2^(k/4) for k = 0..3. */
const QUARTERS = [1, 1.189207115002721, 1.4142135623730951, 1.681792830507429];

/** The rows that columns are measured on, as runs: some at a time, so that they are read in few pieces. All rows when they are few. */
export function sampleRuns({ rows, cols }: MatrixView): readonly { readonly from: number; readonly count: number }[] {
  const most = Math.max(MIN_ROWS_FOR_COLUMNS, Math.min(SAMPLE_ROWS, Math.floor(SAMPLE_ELEMENTS / cols)));
  if (rows <= most) return [{ from: 0, count: rows }];
  const step = SAMPLE_RUN * Math.ceil(rows / (most - SAMPLE_RUN));
  return Array.from({ length: Math.ceil(rows / step) }, (_, i) => ({ from: i * step, count: Math.min(SAMPLE_RUN, rows - i * step) }));
}

/** Bytes of the sampled rows, in order. @param bytes - all elements. */
export function sampleRows(view: MatrixView, bytes: Uint8Array): Uint8Array {
  const runs = sampleRuns(view);
  if (runs.length === 1) return bytes;
  const rowBytes = view.cols * view.elementBytes;
  const out = new Uint8Array(runs.reduce((sum, { count }) => sum + count, 0) * rowBytes);
  let at = 0;
  for (const { from, count } of runs) {
    out.set(bytes.subarray(from * rowBytes, (from + count) * rowBytes), at);
    at += count * rowBytes;
  }
  return out;
}

/** Column classes from the columns' sums of `magnitude / row sum` over `sampled` rows. */
export function columnClasses(sums: Float32Array, sampled: number): Int16Array {
  const cols = sums.length;
  const classes = new Int16Array(cols);
  for (let c = 0; c < cols; c++) {
    const q = quarterOctave(Math.fround(Math.fround(sums[c]! * cols) / sampled)) - 4 * 127;
    classes[c] = Math.max(-MAX_COLUMN_CLASS, Math.min(MAX_COLUMN_CLASS, q));
  }
  return classes;
}

/** Row class from the row's sum of `magnitude / column factor`. */
export function rowClass(sum: number, cols: number): number {
  return quarterOctave(Math.fround(sum / cols));
}

/** What a row's magnitudes are multiplied by before they are added to the columns. */
export function rowFactor(sum: number): number {
  return sum >= TINY && sum < Infinity ? Math.fround(1 / sum) : 0;
}

export interface Classes {
  /** By row, 0..1023. */
  readonly rows: Int16Array;
  /** By column, ±127. */
  readonly columns: Int16Array;
}

/** The magnitude of a 16-bit pattern, see the module. */
export function magnitude(kind: MatrixView["kind"], pattern: number): number {
  const bits = pattern & 0x7fff;
  word[0] = kind === "bf16" ? (bits < 0x7f80 ? bits << 16 : 0) : bits < 0x7c00 ? bits << 13 : 0;
  return float[0]!;
}

function sumRow(kind: MatrixView["kind"], row: Uint16Array, factors?: Float32Array): number {
  const { fround } = Math;
  const lanes = new Float32Array(8);
  for (let c = 0; c < row.length; c++) {
    const m = magnitude(kind, row[c]!);
    lanes[c % 8] = lanes[c % 8]! + (factors === undefined ? m : fround(m * factors[c]!));
  }
  const pair = (i: number): number => fround(lanes[i]! + lanes[i + 4]!);
  return fround(fround(pair(0) + pair(1)) + fround(pair(2) + pair(3)));
}

/** Column classes from the sampled rows. */
export function fitColumns({ kind, cols }: MatrixView, sample: Uint16Array): Int16Array {
  const sums = new Float32Array(cols);
  for (let at = 0; at < sample.length; at += cols) {
    const row = sample.subarray(at, at + cols);
    const factor = rowFactor(sumRow(kind, row));
    for (let c = 0; c < cols; c++) sums[c] = sums[c]! + Math.fround(magnitude(kind, row[c]!) * factor);
  }
  return columnClasses(sums, sample.length / cols);
}

/** Row classes by magnitude alone. @param columns - all 0 when columns have no classes. */
export function fitRows({ kind, rows, cols }: MatrixView, columns: Int16Array, patterns: Uint16Array): Int16Array {
  const factors = Float32Array.from(columns, columnFactor);
  return Int16Array.from({ length: rows }, (_, r) => rowClass(sumRow(kind, patterns.subarray(r * cols, (r + 1) * cols), factors), cols));
}
