/**
 * Exports of df11.as.ts; pointers are byte offsets in the workspace's memory.
 * @module
 */
export interface Df11Kernel {
  countExponents(x: number, count: number, single: number): void;
  clearQuads(quads: number): void;
  countQuads(x: number, count: number, base: number, quads: number, single: number): void;
  foldQuads(base: number, quads: number, single: number): void;
  buildQuads(codes: number, base: number, quads: number, scratch: number): void;
  encodeStrip(
    x: number,
    count: number,
    codes: number,
    base: number,
    quads: number,
    scratch: number,
    stream: number,
    rest: number,
    gaps: number,
    positions: number,
    state: number,
    limit: number,
  ): number;
  packGaps(gaps: number, windows: number, out: number): void;
  mergePatterns(exponents: number, signMantissa: number, count: number, out: number): void;
  buildTable(luts: number, rows: number, table: number): void;
  turnStream(stream: number, count: number): void;
  decodeBlocks(stream: number, luts: number, rows: number, table: number, scratch: number, jobs: number, count: number): void;
}
