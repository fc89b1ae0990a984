/**
 * One tensor in a block format (BFP, MX, NVFP4), streamed: read rows, choose scales and codes, pack, write, hash.
 * @module
 */
import { requireBlockFormat } from "../../core/blocks/format.ts";
import { nvfp4GlobalScale } from "../../core/blocks/quantize.ts";
import { InputError } from "../../core/errors.ts";
import {
  codeWidth,
  decodeBlocksAt,
  encodeBlocksAt,
  maxMagnitudeAt,
  packBlocksAt,
  packedRowBytes,
  scaleBytes,
  sumErrorsAt,
  TABLE_BYTES,
  writeTable,
  type BlockCoding,
} from "../../kernels/blocks/blocks.ts";
import type { JobContext } from "../../kernels/pool.ts";
import { INFINITY_BITS } from "../../kernels/runs.ts";
import type { QuantizeSums } from "./quantize-task.ts";
import type { TaskWriters } from "./regions.ts";
import { throwNotFinite, type RowSource } from "./source.ts";
import type { QuantizeTask, RangeTask } from "./task.ts";

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);
function magnitudeOf(bits: number): number {
  u32[0] = bits;
  return f32[0]!;
}

/** The largest magnitude of a tensor. */
export async function measureRange(
  { name }: Pick<RangeTask, "name">,
  rows: RowSource,
  { workspace, breathe, progress }: JobContext,
): Promise<QuantizeSums> {
  let top = 0;
  for (let first = 0; first < rows.rows; first += rows.pieceRows) {
    await breathe();
    const count = Math.min(rows.pieceRows, rows.rows - first);
    for (const tile of rows.tiles(first, count)) {
      const most = maxMagnitudeAt(workspace, tile.stored, tile.at, tile.rows * rows.cols);
      if (most >= INFINITY_BITS) throwNotFinite(workspace, name, rows, tile);
      top = Math.max(top, most);
    }
    progress(count * rows.rowBytes);
  }
  return { sumSquares: 0, sumSquaredError: 0, absMax: magnitudeOf(top) };
}

/** Quantizes a tensor whose rows are output channels; the last block of a row may be shorter. */
export async function quantizeBlockRows(
  task: QuantizeTask,
  rows: RowSource,
  writers: TaskWriters,
  context: JobContext,
): Promise<QuantizeSums> {
  const { name, scheme, arithmetic } = task;
  const { workspace, breathe, progress } = context;
  const format = requireBlockFormat(scheme);
  const coding: BlockCoding = { format, rule: scheme.scaleRule, arithmetic, globalScale: await globalScaleOf() };
  const width = codeWidth(format);
  const plainStride = rows.cols * width;
  const stride = task.codes === "packed" ? packedRowBytes(format, rows.cols) : plainStride;
  const isPacked = stride !== plainStride;
  const codesOut = writers.get("codes");
  if (codesOut.byteLength !== stride * rows.rows) {
    throw new InputError(
      "input.shape",
      `${name}: codes take ${rows.rows} rows of ${stride} bytes, their region has ${codesOut.byteLength}`,
      {
        tensor: name,
        rows: rows.rows,
        rowBytes: stride,
        region: codesOut.byteLength,
      },
    );
  }
  const scalesOut = writers.get("scales");
  const tile = { rows: rows.tileRows, cols: rows.cols };
  const codes = workspace.take(rows.tileRows * rows.cols * width);
  const packed = isPacked ? workspace.take(rows.tileRows * stride) : codes;
  const scales = workspace.take(scaleBytes(format, tile));
  const read = workspace.take(rows.tileRows * rows.cols * 4);
  const table = workspace.take(TABLE_BYTES);
  const sums = workspace.take(16);
  workspace.f64(sums).fill(0);
  writeTable(workspace, table, format);
  let top = 0;

  async function globalScaleOf(): Promise<number | undefined> {
    if (format.family !== "nvfp4") return undefined;
    if (task.globalScale !== undefined) return task.globalScale;
    const { absMax } = await measureRange(task, rows, { ...context, progress: () => undefined });
    return nvfp4GlobalScale(absMax, arithmetic);
  }

  for (let first = 0; first < rows.rows; first += rows.pieceRows) {
    await breathe();
    const count = Math.min(rows.pieceRows, rows.rows - first);
    for (const piece of rows.tiles(first, count)) {
      const shape = { rows: piece.rows, cols: rows.cols };
      const plain = { x: piece.at, codes: codes.at, stride: plainStride, scales: scales.at };
      const most = encodeBlocksAt(workspace, piece.stored, shape, coding, plain);
      if (most >= INFINITY_BITS) throwNotFinite(workspace, name, rows, piece);
      top = Math.max(top, most);
      if (isPacked) packBlocksAt(workspace, shape, coding, { x: codes.at, stride, out: packed.at });
      decodeBlocksAt(workspace, shape, coding, { codes: codes.at, scales: scales.at, table: table.at, out: read.at });
      sumErrorsAt(workspace, piece.stored, shape, piece.at, read.at, sums.at);
      codesOut.write(workspace.bytes({ at: packed.at, byteLength: piece.rows * stride }));
      scalesOut.write(workspace.bytes({ at: scales.at, byteLength: scaleBytes(format, shape) }));
    }
    progress(count * rows.rowBytes);
  }
  if (coding.globalScale !== undefined) writers.get("global-scale").write(new Uint8Array(Float32Array.of(coding.globalScale).buffer));
  writers.find("shape")?.write(new Uint8Array(BigInt64Array.of(BigInt(rows.rows), BigInt(rows.cols)).buffer));
  const [sumSquares, sumSquaredError] = workspace.f64(sums);
  return { sumSquares: sumSquares!, sumSquaredError: sumSquaredError!, absMax: magnitudeOf(top) };
}
