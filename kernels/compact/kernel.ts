/**
 * Exports of compact.as.ts; pointers are byte offsets in the workspace's memory.
 * @module
 */
export interface CompactKernel {
  sumRows(x: number, rows: number, cols: number, kind: number, factors: number, out: number, rest: number): void;
  addColumns(x: number, rows: number, cols: number, kind: number, sums: number, rest: number): void;
  countBytes(x: number, count: number, tables: number): void;
  checksumLanes(x: number, bytes: number, lanes: number): void;
  toSymbols(
    x: number,
    rows: number,
    cols: number,
    kind: number,
    rowClasses: number,
    zeros: number,
    tableBits: number,
    stride: number,
    symbols: number,
    escapes: number,
  ): number;
  packRawBits(x: number, count: number, kind: number, out: number): void;
  unpackRawBits(bits: number, count: number, out: number): void;
  encodeRans(symbols: number, rows: number, cols: number, table: number, words: number, states: number): number;
  encodeStream(symbols: number, first: number, rows: number, cols: number, table: number, out: number): number;
  decodeRans(
    words: number,
    states: number,
    rows: number,
    cols: number,
    kind: number,
    rowClasses: number,
    zeros: number,
    offsets: number,
    stride: number,
    tables: number,
    shuffles: number,
    raw: number,
    signs: number,
    escapes: number,
    escapeBytes: number,
    scratch: number,
    out: number,
  ): number;
  decodeHuffman(
    streams: number,
    rows: number,
    cols: number,
    kind: number,
    rowClasses: number,
    zeros: number,
    offsets: number,
    stride: number,
    tables: number,
    raw: number,
    signs: number,
    escapes: number,
    escapeBytes: number,
    scratch: number,
    entries: number,
    out: number,
  ): number;
}

/** Element kinds by the number kernels know them by. */
export const KINDS = ["bf16", "f16", "bytes"] as const;
