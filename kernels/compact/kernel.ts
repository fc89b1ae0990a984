/**
 * Exports of compact.as.ts; pointers are byte offsets in the workspace's memory.
 * @module
 */
export interface CompactKernel {
  sumRows(x: number, rows: number, cols: number, kind: number, factors: number, out: number, rest: number): void;
  addColumns(x: number, rows: number, cols: number, kind: number, sums: number, rest: number): void;
  countBytes(x: number, count: number, tables: number): void;
  copyBytes(to: number, from: number, bytes: number): void;
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
    pitch: number,
    symbols: number,
    escapes: number,
  ): number;
  packRawBits(x: number, count: number, kind: number, out: number): void;
  unpackRawBits(bits: number, count: number, out: number): void;
  cheapestRows(symbols: number, rows: number, cols: number, rowClasses: number, tables: number, costs: number): void;
  encodeRans(symbols: number, rows: number, cols: number, table: number, packs: number, words: number, states: number): number;
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
  toQueues(symbols: number, rows: number, cols: number, rowClasses: number, packs: number, counts: number, queues: number): void;
  encodePairs(symbols: number, count: number, pairs: number, singles: number, out: number): number;
  encodeStream(symbols: number, count: number, table: number, out: number): number;
  decodeStream(stream: number, at: number, count: number, triples: number, singles: number, to: number): number;
  decodeQueue(streams: number, count: number, part: number, triples: number, singles: number, to: number): void;
  fromQueues(
    queues: number,
    rows: number,
    cols: number,
    kind: number,
    rowClasses: number,
    zeros: number,
    stride: number,
    unpacks: number,
    counts: number,
    raw: number,
    signs: number,
    escapes: number,
    escapeBytes: number,
    scratch: number,
    out: number,
  ): number;
}

/** Element kinds by the number kernels know them by. */
export const KINDS = ["bf16", "f16", "bytes"] as const;
