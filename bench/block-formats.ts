/**
 * Speed of the block formats on one thread, in GB of input a second, next to a plain copy of the same bytes in the same run.
 *
 *   npx tsx bench/block-formats.ts [--mib 64]
 *
 * CPU time of this process, so that other work on the machine does not count. Each line is the median of nine runs over
 * Gaussian weights of 4096 columns; the copy is measured again before each line, and ratios are to that.
 */
import { parseArgs } from "node:util";
import { parseBlockFormat } from "../core/blocks/format.ts";
import { encodeBf16 } from "../core/float.ts";
import { createRandom } from "../core/random.ts";
import type { ScaleRule } from "../core/scheme.ts";
import {
  codeWidth,
  decodeBlocksAt,
  encodeBlocksAt,
  fakeQuantizeBlocksAt,
  packedRowBytes,
  TABLE_BYTES,
  writeTable,
  type BlockCoding,
} from "../kernels/blocks/blocks.ts";
import { gemmAt, packRowsFor, sumBytes } from "../kernels/gemm-int8/gemm-int8.ts";
import { createWorkspace } from "../kernels/load-wasm.ts";

const { values } = parseArgs({ options: { mib: { type: "string", default: "64" } } });
const COLS = 4096;
const ROWS = (Number(values.mib) * 2 ** 20) / (2 * COLS);
const WARM_SECONDS = 0.6;
/** 256 KiB of bf16, as the streaming executor takes it. */
const TILE_ROWS = 32;
const TILE = TILE_ROWS * COLS;

const workspace = createWorkspace();
const random = createRandom(1);
const noise = Float32Array.from({ length: TILE }, () => random.normal() * 0.02);
const weights = workspace.take(ROWS * COLS * 2);
const patterns = new Uint16Array(workspace.memory.buffer, weights.at, ROWS * COLS);
for (let at = 0; at < patterns.length; at += TILE) patterns.set(Uint16Array.from(noise, encodeBf16), at);
const copied = workspace.take(ROWS * COLS * 2);
const codes = workspace.take(TILE * 2);
const scales = workspace.take(TILE);
const scratch = workspace.take(COLS * 2);
const floats = workspace.take(TILE * 4);
const table = workspace.take(TABLE_BYTES);
const shape = { rows: TILE_ROWS, cols: COLS };

function seconds(work: () => void): number {
  const started = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(started);
  return (user + system) / 1e6;
}
const median = (samples: readonly number[]): number => samples.toSorted((a, b) => a - b)[samples.length >> 1]!;
const copy = (): void => workspace.bytes(copied).set(workspace.bytes(weights));

/** Copy and work in turns, so that both see the same machine. */
function measure(name: string, bytes: number, work: () => void): void {
  copy();
  // Until the engine has its best code, which it compiles in the background.
  for (let spent = 0; spent < WARM_SECONDS;) spent += seconds(work);
  const [base, own]: [number[], number[]] = [[], []];
  for (let i = 0; i < 9; i++) {
    base.push(seconds(copy));
    own.push(seconds(work));
  }
  const [copyRate, rate] = [(ROWS * COLS * 2) / 1e9 / median(base), bytes / 1e9 / median(own)];
  console.log(
    `${name.padEnd(34)} ${rate.toFixed(2).padStart(6)} GB/s  copy ${copyRate.toFixed(2).padStart(6)}  ratio ${(rate / copyRate).toFixed(2)}`,
  );
}

const overTiles = (work: (x: number) => void) => (): void => {
  for (let r = 0; r < ROWS; r += TILE_ROWS) work(weights.at + r * COLS * 2);
};

for (const [name, block, rule] of [
  ["bfp16", 32],
  ["bfp16", 128],
  ["bfp12", 32],
  ["bfp12", 128],
  ["bfp24", 32],
  ["mxint8", 32],
  ["mxfp8-e4m3", 32],
  ["mxfp8-e5m2", 32],
  ["mxfp6-e2m3", 32],
  ["mxfp6-e3m2", 32],
  ["mxfp4", 32],
  ["mxfp4", 32, "mse"],
  ["nvfp4", 16],
  ["nvfp4", 16, "mse"],
] as readonly (readonly [string, number, ScaleRule?])[]) {
  const format = parseBlockFormat(name, block)!;
  const coding: BlockCoding = { format, rule, globalScale: format.family === "nvfp4" ? 20_000 : undefined };
  const label = `${name} ${block}${rule === undefined ? "" : ` ${rule}`}`;
  const width = codeWidth(format);
  const [stride, packed] = [COLS * width, packedRowBytes(format, COLS)];
  const bytes = ROWS * COLS * 2;
  const isPlain = packed === stride;
  const places = isPlain ? { stride } : { stride: packed, scratch: scratch.at };
  measure(
    `encode ${label}`,
    bytes,
    overTiles((x) => void encodeBlocksAt(workspace, "bf16", shape, coding, { x, codes: codes.at, scales: scales.at, ...places })),
  );
  if (rule !== undefined) continue;
  encodeBlocksAt(workspace, "bf16", shape, coding, { x: weights.at, codes: codes.at, stride, scales: scales.at });
  writeTable(workspace, table, format);
  measure(
    `decode ${label} (f32 written)`,
    ROWS * COLS * 4,
    overTiles(() => decodeBlocksAt(workspace, shape, coding, { codes: codes.at, scales: scales.at, table: table.at, out: floats.at })),
  );
  workspace.f32(floats).set(noise);
  measure(
    `fake-quantize ${label} (f32)`,
    ROWS * COLS * 4,
    overTiles(() => fakeQuantizeBlocksAt(workspace, shape, coding, floats.at)),
  );
}

// Products: the plain int8 one, and with a scale a block, packing of A inside the timed call.
const SIZE = 768;
const gemmCodes = (): number => {
  const region = workspace.take(SIZE * SIZE);
  const bytes = workspace.bytes(region);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.below(255) - 127;
  return region.at;
};
const [left, right] = [gemmCodes(), gemmCodes()];
const sums = workspace.take(sumBytes(SIZE, SIZE));
const product = workspace.take(SIZE * SIZE * 4);
const sides = (block?: number): (() => void) => {
  const units = workspace.take(SIZE * SIZE * 4);
  workspace.f32(units).fill(2 ** -6);
  const scaled = block === undefined ? undefined : { units: units.at, block };
  const square = { rows: SIZE, cols: SIZE };
  const b = packRowsFor(workspace, "b", right, square, scaled);
  const inner = workspace.mark();
  return () => {
    const a = packRowsFor(workspace, "a", left, square, scaled);
    gemmAt(workspace, a, b, sums, product.at);
    workspace.release(inner);
  };
};
const plain = sides();
for (const block of [16, 32, 64, 128]) {
  const work = sides(block);
  plain();
  work();
  const [base, own]: [number[], number[]] = [[], []];
  for (let i = 0; i < 15; i++) {
    base.push(seconds(plain));
    own.push(seconds(work));
  }
  const [plainRate, rate] = [base, own].map((samples) => (2 * SIZE ** 3) / 1e9 / median(samples));
  console.log(
    `product of mantissas, blocks of ${String(block).padEnd(4)} ${rate!.toFixed(1).padStart(6)} GOPS  int8 ${plainRate!.toFixed(1).padStart(6)}  ratio ${(rate! / plainRate!).toFixed(2)}`,
  );
}
