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
  fillColumns(
    columns: number,
    cols: number,
    stride: number,
    zeros: number,
    tableBits: number,
    slotOffsets: number,
    packs: number,
    unpacks: number,
    counts: number,
  ): void;
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
  cheapestRows(
    symbols: number,
    rows: number,
    cols: number,
    rowClasses: number,
    packs: number,
    counts: number,
    queues: number,
    steps: number,
  ): void;
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
  encodeQueues(queues: number, lengths: number, pairs: number, singles: number, scratch: number, out: number, ends: number): void;
  encodeStream(symbols: number, count: number, table: number, out: number): number;
  decodeStream(stream: number, at: number, count: number, triples: number, singles: number, to: number): number;
  decodeQueues(streams: number, lengths: number, queues: number, triples: number, singles: number, tables: number): void;
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
