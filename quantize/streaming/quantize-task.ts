/**
 * Round-to-nearest of one tensor, streamed: read rows, find ranges, choose
 * scales, round, pack, write, hash; memory does not grow with the tensor.
 * @module
 */
import { intRule, storageShift, type IntRule, type ParameterPrecision } from "../../core/dialect.ts";
import { FLOAT_FORMATS } from "../../core/float.ts";
import { InputError, NumericError, UnsupportedError } from "../../core/errors.ts";
import { packedLength } from "../../core/pack.ts";
import { schemeName } from "../../core/scheme.ts";
import { absMaxAt } from "../../kernels/abs-max/abs-max.ts";
import { SUMS_BYTES } from "../../kernels/error-sums.ts";
import type { Region, Workspace } from "../../kernels/load-wasm.ts";
import { minMaxAt } from "../../kernels/min-max/min-max.ts";
import { narrowAt } from "../../kernels/narrow/narrow.ts";
import { packRowsAt } from "../../kernels/pack-rows/pack-rows.ts";
import type { JobContext } from "../../kernels/pool.ts";
import { rtnE4m3At } from "../../kernels/rtn-e4m3/rtn-e4m3.ts";
import { rtnIntAt } from "../../kernels/rtn-int/rtn-int.ts";
import { INFINITY_BITS, runCount, type RunShape } from "../../kernels/runs.ts";
import { RULE_BYTES, scalesAt, writeRule, type RuleBlock } from "../../kernels/scales/scales.ts";
import type { TaskWriters } from "./regions.ts";
import { throwNotFinite, type RowSource, type Tile } from "./source.ts";
import type { QuantizeTask } from "./task.ts";
import { encodeZeros } from "./zeros.ts";

/** What reports need of a quantized tensor. */
export interface QuantizeSums {
  readonly sumSquares: number;
  readonly sumSquaredError: number;
  readonly absMax: number;
}

/** The number format of a task as the kernels take it. */
interface Format {
  /** For e4m3 the rule of its scale alone. */
  readonly rule: IntRule;
  readonly bits: number;
  readonly isFloat: boolean;
}

/** @throws {UnsupportedError} `unsupported.scheme` for what streaming RTN does not write. */
function formatOf({ name, scheme, codes }: QuantizeTask): Format {
  const { format, granularity, timing, dialect } = scheme;
  const known = granularity.kind === "tensor" || granularity.kind === "channel" || granularity.kind === "group";
  if (known && timing === "static") {
    if (format.kind === "int" && format.bits <= 8) {
      return { rule: intRule(dialect, format.bits, format.symmetric), bits: format.bits, isFloat: false };
    }
    if (format.kind === "float" && format.format === "e4m3" && codes === "bytes") {
      // Only divisor and ranges of the rule matter: the scale of e4m3 is absmax / 448.
      const rule = { ...intRule("compressed-tensors", 8, true), divisor: FLOAT_FORMATS.e4m3.max };
      return { rule, bits: 8, isFloat: true };
    }
  }
  throw new UnsupportedError(
    "unsupported.scheme",
    `${name}: round to nearest does not write ${schemeName(scheme)} as ${codes}; choose int of 2 to 8 bits or e4m3 (bytes), static, per tensor, channel or group`,
    { tensor: name, scheme: schemeName(scheme), codes },
  );
}

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);
function magnitudeOf(bits: number): number {
  u32[0] = bits;
  return f32[0]!;
}

/** Regions for one tile of results. */
interface TileRegions {
  readonly low: Region;
  readonly high: Region;
  readonly scales: Region;
  readonly zeros: Region;
  readonly codes: Region;
  readonly stored: Region;
  readonly sums: Region;
}

/** Quantizes a tensor whose rows are output channels. */
export async function quantizeRows(
  task: QuantizeTask,
  rows: RowSource,
  writers: TaskWriters,
  { workspace, breathe, progress }: JobContext,
): Promise<QuantizeSums> {
  const { name, scheme, arithmetic, scaleDType } = task;
  const format = formatOf(task);
  const { rule, bits, isFloat } = format;
  const precision: ParameterPrecision = { arithmetic, storage: scaleDType };
  const perTensor = scheme.granularity.kind === "tensor";
  const group = Math.max(1, scheme.granularity.kind === "group" ? Math.min(scheme.granularity.size, rows.cols) : rows.cols);
  const codesOut = writers.get("codes");
  const scalesOut = writers.get("scales");
  const stride = strideOf(task, rows, bits, codesOut.byteLength);
  const ruleBlock = writeRule(workspace, workspace.take(RULE_BYTES), rule, precision);
  const tileRuns = runCount({ rows: rows.tileRows, cols: rows.cols, group });
  const regions: TileRegions = {
    low: workspace.take(tileRuns * 4),
    high: workspace.take(tileRuns * 4),
    scales: workspace.take(tileRuns * 4),
    zeros: workspace.take(tileRuns * 4),
    codes: workspace.take(rows.tileRows * rows.cols),
    stored: workspace.take(tileRuns * 4),
    sums: workspace.take(SUMS_BYTES),
  };
  workspace.f64(regions.sums).fill(0);
  const packed = workspace.take(rows.pieceRows * stride);
  const zeros = rule.symmetric ? undefined : new Float32Array(perTensor ? 1 : runCount({ ...rows, group }));
  const shift = storageShift(rule, bits);
  let top = 0;

  /** Ranges of a tile's runs; the largest magnitude joins `top`. */
  const rangesOf = (tile: Tile, shape: RunShape): { readonly low: Region; readonly high: Region } => {
    // Only GPTQ's symmetric rule asks on which side of zero the values lie.
    const magnitudes = rule.symmetric && !rule.oneSided;
    const most = magnitudes
      ? absMaxAt(workspace, tile.stored, tile.at, shape, regions.high.at)
      : minMaxAt(workspace, tile.stored, tile.at, shape, regions.low.at, regions.high.at);
    if (most >= INFINITY_BITS) throwNotFinite(workspace, name, rows, tile);
    top = Math.max(top, most);
    return magnitudes ? { low: regions.high, high: regions.high } : regions;
  };

  const wholeTensor = perTensor ? await tensorRange() : undefined;
  if (wholeTensor !== undefined) {
    workspace.f32(regions.low)[0] = wholeTensor.low;
    workspace.f32(regions.high)[0] = wholeTensor.high;
    chooseScales(workspace, task, ruleBlock, regions.low, regions.high, 1, regions);
    scalesOut.write(storeScales(workspace, task, regions, 1));
    if (zeros !== undefined) zeros[0] = workspace.f32(regions.zeros)[0]! - shift;
    // Every row is one run with the same numbers.
    workspace.f32(regions.scales).fill(workspace.f32(regions.scales)[0]!);
    workspace.f32(regions.zeros).fill(workspace.f32(regions.zeros)[0]!);
  }

  async function tensorRange(): Promise<{ readonly low: number; readonly high: number }> {
    let [low, high] = [Infinity, -Infinity];
    for (let first = 0; first < rows.rows; first += rows.pieceRows) {
      await breathe();
      for (const tile of rows.tiles(first, Math.min(rows.pieceRows, rows.rows - first))) {
        const shape = { rows: tile.rows, cols: rows.cols, group };
        const ranges = rangesOf(tile, shape);
        for (let run = 0; run < runCount(shape); run++) {
          low = Math.min(low, workspace.f32(ranges.low)[run]!);
          high = Math.max(high, workspace.f32(ranges.high)[run]!);
        }
      }
    }
    return rows.rows * rows.cols === 0 ? { low: 0, high: 0 } : { low, high };
  }

  for (let first = 0; first < rows.rows; first += rows.pieceRows) {
    await breathe();
    const count = Math.min(rows.pieceRows, rows.rows - first);
    for (const tile of rows.tiles(first, count)) {
      const shape = { rows: tile.rows, cols: rows.cols, group };
      const runs = runCount(shape);
      if (!perTensor) {
        const { low, high } = rangesOf(tile, shape);
        chooseScales(workspace, task, ruleBlock, low, high, runs, regions);
        scalesOut.write(storeScales(workspace, task, regions, runs));
        if (zeros !== undefined) {
          const start = tile.firstRow * Math.ceil(rows.cols / group);
          const found = workspace.f32(regions.zeros);
          for (let run = 0; run < runs; run++) zeros[start + run] = found[run]! - shift;
        }
      }
      const out = packed.at + (tile.firstRow - first) * stride;
      const direct = task.codes === "bytes" && stride === rows.cols;
      const places = {
        x: tile.at,
        scales: regions.scales.at,
        zeros: rule.symmetric ? 0 : regions.zeros.at,
        out: direct ? out : regions.codes.at,
        sums: regions.sums.at,
      };
      if (isFloat) rtnE4m3At(workspace, tile.stored, shape, arithmetic, places);
      else rtnIntAt(workspace, tile.stored, shape, { rule, bits, arithmetic }, places);
      if (!direct) packRowsAt(workspace, regions.codes.at, tile.rows, rows.cols, bits, out, stride);
    }
    codesOut.write(workspace.bytes({ at: packed.at, byteLength: count * stride }));
    progress(count * rows.rowBytes);
  }
  if (zeros !== undefined) {
    const groups = perTensor ? 1 : Math.ceil(rows.cols / group);
    writers.get("zeros").write(encodeZeros(name, zeros, zeros.length / groups, groups, bits, task.zeros));
  }
  writers.find("shape")?.write(new Uint8Array(BigInt64Array.of(BigInt(rows.rows), BigInt(rows.cols)).buffer));
  const [sumSquares, sumSquaredError] = workspace.f64(regions.sums);
  return { sumSquares: sumSquares!, sumSquaredError: sumSquaredError!, absMax: magnitudeOf(top) };
}

/** Bytes of codes per row. @throws {InputError} `input.shape` when the region is not whole rows of at least the codes' length. */
function strideOf({ name, codes }: QuantizeTask, { rows, cols }: RowSource, bits: number, byteLength: number): number {
  const stride = rows === 0 ? 0 : byteLength / rows;
  const least = codes === "bytes" ? cols : packedLength(cols, bits);
  if (!Number.isInteger(stride) || (codes === "bytes" ? stride !== least : stride < least)) {
    throw new InputError("input.shape", `${name}: codes take ${rows} rows of ${least} bytes, their region has ${byteLength}`, {
      tensor: name,
      rows,
      rowBytes: least,
      region: byteLength,
    });
  }
  return stride;
}

function chooseScales(
  workspace: Workspace,
  { name, scaleDType }: QuantizeTask,
  rule: RuleBlock,
  low: Region,
  high: Region,
  runs: number,
  regions: TileRegions,
): void {
  if (scalesAt(workspace, rule, low.at, high.at, runs, regions.scales.at, regions.zeros.at) > 0) {
    throw new NumericError("numeric.not-finite", `${name}: a scale does not fit ${scaleDType}; store scales in F32 or BF16`, {
      tensor: name,
      scaleDType,
    });
  }
}

/** The bytes of `runs` scales as they are stored: exact, since they are rounded already. */
function storeScales(workspace: Workspace, { scaleDType }: QuantizeTask, regions: TileRegions, runs: number): Uint8Array {
  if (scaleDType === "F32") return workspace.bytes({ at: regions.scales.at, byteLength: runs * 4 });
  narrowAt(workspace, scaleDType, regions.scales.at, regions.stored.at, runs);
  return workspace.bytes({ at: regions.stored.at, byteLength: runs * 2 });
}
