/**
 * Speed of each kernel on one thread, in GB of input a second, next to a plain copy of the same bytes.
 *
 *   npx tsx bench/kernels.ts [--mib 64]
 *
 * CPU time of this thread's process, so that other work on the machine does not count. Each line is the median of nine runs over Gaussian weights of 4096 columns, a tile at a time as the streaming executor does it.
 */
import { parseArgs } from "node:util";
import { intRule } from "../core/dialect.ts";
import { encodeBf16 } from "../core/float.ts";
import { createRandom } from "../core/random.ts";
import { absMaxAt } from "../kernels/abs-max/abs-max.ts";
import { SUMS_BYTES } from "../kernels/error-sums.ts";
import { expandAt } from "../kernels/expand/expand.ts";
import { hadamardFast } from "../kernels/hadamard/hadamard.ts";
import { histogramFast } from "../kernels/histogram/histogram.ts";
import { createWorkspace } from "../kernels/load-wasm.ts";
import { minMaxAt } from "../kernels/min-max/min-max.ts";
import { narrowAt } from "../kernels/narrow/narrow.ts";
import { packRowsAt } from "../kernels/pack-rows/pack-rows.ts";
import { rtnE4m3At } from "../kernels/rtn-e4m3/rtn-e4m3.ts";
import { rtnIntAt } from "../kernels/rtn-int/rtn-int.ts";
import { scaleMatrixAt } from "../kernels/scale-matrix/scale-matrix.ts";
import { RULE_BYTES, scalesAt, writeRule } from "../kernels/scales/scales.ts";

const { values } = parseArgs({ options: { mib: { type: "string", default: "64" } } });
const COLS = 4096;
const ROWS = (Number(values.mib) * 2 ** 20) / (2 * COLS);
/** 256 KiB of bf16. */
const TILE_ROWS = 32;
const TILE = TILE_ROWS * COLS;

const workspace = createWorkspace();
const random = createRandom(1);
const noise = Float32Array.from({ length: TILE }, () => random.normal() * 0.02);
const weights = workspace.take(ROWS * COLS * 2);
const patterns = new Uint16Array(workspace.memory.buffer, weights.at, ROWS * COLS);
for (let at = 0; at < patterns.length; at += TILE) patterns.set(Uint16Array.from(noise, encodeBf16), at);
const copy = workspace.take(ROWS * COLS * 2);
const floats = workspace.take(TILE * 4);
const codes = workspace.take(TILE);
const packed = workspace.take(TILE);
const runs = (TILE_ROWS * COLS) / 128;
const [low, high, scales, zeros] = [workspace.take(runs * 4), workspace.take(runs * 4), workspace.take(runs * 4), workspace.take(runs * 4)];
const sums = workspace.take(SUMS_BYTES);
const columns = workspace.take(COLS * 4);
workspace.f32(columns).fill(1.25);

const rowShape = { rows: TILE_ROWS, cols: COLS, group: COLS };
const groupShape = { rows: TILE_ROWS, cols: COLS, group: 128 };
const int8 = intRule("compressed-tensors", 8, true);
const int4 = intRule("compressed-tensors", 4, true);
const awq4 = intRule("awq", 4, false);
const int8Block = writeRule(workspace, workspace.take(RULE_BYTES), int8, { storage: "BF16" });
const int4Block = writeRule(workspace, workspace.take(RULE_BYTES), int4, { storage: "BF16" });
const awq4Block = writeRule(workspace, workspace.take(RULE_BYTES), awq4, { storage: "BF16" });
const places = (x: number): { x: number; scales: number; zeros: number; out: number; sums: number } => ({
  x,
  scales: scales.at,
  zeros: 0,
  out: codes.at,
  sums: sums.at,
});

/** Calls `work` with the offset of each tile of bf16 weights. */
const overTiles = (work: (x: number) => void) => (): void => {
  for (let r = 0; r < ROWS; r += TILE_ROWS) work(weights.at + r * COLS * 2);
};

/** Name, bytes read per bf16 weight, work over all weights. */
const KERNELS: readonly (readonly [string, number, () => void])[] = [
  ["copy (memcpy)", 2, () => workspace.bytes(copy).set(workspace.bytes(weights))],
  ["expand bf16 to f32", 2, overTiles((x) => expandAt(workspace, "BF16", x, floats.at, TILE))],
  ["expand f16 to f32", 2, overTiles((x) => expandAt(workspace, "F16", x, floats.at, TILE))],
  ["expand e4m3 to f32", 1, overTiles((x) => expandAt(workspace, "F8_E4M3", x, floats.at, TILE))],
  ["narrow f32 to bf16", 4, overTiles(() => narrowAt(workspace, "BF16", floats.at, codes.at, TILE / 2))],
  ["abs-max rows", 2, overTiles((x) => void absMaxAt(workspace, "bf16", x, rowShape, high.at))],
  ["abs-max groups of 128", 2, overTiles((x) => void absMaxAt(workspace, "bf16", x, groupShape, high.at))],
  ["min-max groups of 128", 2, overTiles((x) => void minMaxAt(workspace, "bf16", x, groupShape, low.at, high.at))],
  [
    "rtn-int 8 bits rows, sums",
    2,
    overTiles((x) => rtnIntAt(workspace, "bf16", rowShape, { rule: int8, bits: 8, arithmetic: "f32" }, places(x))),
  ],
  [
    "rtn-int 8 bits rows, bf16 arithmetic",
    2,
    overTiles((x) => rtnIntAt(workspace, "bf16", rowShape, { rule: int8, bits: 8, arithmetic: "bf16" }, places(x))),
  ],
  ["rtn-e4m3 rows, sums", 2, overTiles((x) => rtnE4m3At(workspace, "bf16", rowShape, "f32", places(x)))],
  ["pack-rows 4 bits", 1, overTiles(() => packRowsAt(workspace, codes.at, TILE_ROWS, COLS, 4, packed.at, COLS / 2))],
  ["pack-rows 3 bits", 1, overTiles(() => packRowsAt(workspace, codes.at, TILE_ROWS, COLS, 3, packed.at, (COLS * 3) / 8))],
  [
    "scale-matrix columns (f32)",
    4,
    overTiles(() =>
      scaleMatrixAt(
        workspace,
        floats.at,
        TILE_ROWS,
        COLS,
        { columns: columns.at, rowFactors: 0 },
        { columns: { values: noise.subarray(0, COLS), divide: false } },
      ),
    ),
  ],
  [
    "int8 rows: range, scales, codes",
    2,
    overTiles((x) => {
      absMaxAt(workspace, "bf16", x, rowShape, high.at);
      scalesAt(workspace, int8Block, high.at, high.at, TILE_ROWS, scales.at, zeros.at);
      rtnIntAt(workspace, "bf16", rowShape, { rule: int8, bits: 8, arithmetic: "f32" }, places(x));
    }),
  ],
  [
    "int4 groups: range, scales, codes, pack",
    2,
    overTiles((x) => {
      absMaxAt(workspace, "bf16", x, groupShape, high.at);
      scalesAt(workspace, int4Block, high.at, high.at, runs, scales.at, zeros.at);
      rtnIntAt(workspace, "bf16", groupShape, { rule: int4, bits: 4, arithmetic: "f32" }, places(x));
      packRowsAt(workspace, codes.at, TILE_ROWS, COLS, 4, packed.at, COLS / 2);
    }),
  ],
  [
    "int4 groups asymmetric (awq), the same",
    2,
    overTiles((x) => {
      minMaxAt(workspace, "bf16", x, groupShape, low.at, high.at);
      scalesAt(workspace, awq4Block, low.at, high.at, runs, scales.at, zeros.at);
      rtnIntAt(workspace, "bf16", groupShape, { rule: awq4, bits: 4, arithmetic: "f32" }, { ...places(x), zeros: zeros.at });
      packRowsAt(workspace, codes.at, TILE_ROWS, COLS, 4, packed.at, COLS / 2);
    }),
  ],
  ["histogram (f32, copies in)", 4, overTiles(() => histogramFast(noise, { low: -0.1, inverseWidth: 10_240 }, new Uint32Array(2048)))],
  ["hadamard 4096 (f32, copies in and out)", 4, overTiles(() => hadamardFast(noise, COLS))],
];

function median(samples: readonly number[]): number {
  return samples.toSorted((a, b) => a - b)[samples.length >> 1]!;
}

let baseline = 0;
for (const [name, bytesPerWeight, work] of KERNELS) {
  work();
  const elapsed = median(
    Array.from({ length: 9 }, () => {
      const started = process.cpuUsage();
      work();
      const { user, system } = process.cpuUsage(started);
      return (user + system) / 1e6;
    }),
  );
  const rate = (ROWS * COLS * bytesPerWeight) / 1e9 / elapsed;
  baseline ||= rate;
  console.log(`${name.padEnd(42)} ${rate.toFixed(2).padStart(6)} GB/s  ${(rate / baseline).toFixed(2)} of copy`);
}
