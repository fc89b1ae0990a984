/**
 * Executes one tensor task: the job that pool workers run.
 * @module
 */
import { blockFormatOf } from "../../core/blocks/format.ts";
import { byteLength } from "../../core/dtype.ts";
import { InputError, NumericError, UnsupportedError } from "../../core/errors.ts";
import { absMaxAt } from "../../kernels/abs-max/abs-max.ts";
import { narrowAt } from "../../kernels/narrow/narrow.ts";
import type { JobContext } from "../../kernels/pool.ts";
import { INFINITY_BITS } from "../../kernels/runs.ts";
import { measureRange, quantizeBlockRows } from "./block-task.ts";
import { quantizeRows } from "./quantize-task.ts";
import { openReader, openWriters, type TaskWriters, type TensorReader } from "./regions.ts";
import { matrixShape, openRows, PIECE_BYTES, throwNotFinite, type RowSourceOptions } from "./source.ts";
import type { QuantizeTask, RangeTask, RescaleTask, TaskResult, TensorTask } from "./task.ts";
import { openTransposed, transposeCodes } from "./transposed.ts";

/** What a task reports beside its hashes. */
type Sums = Pick<TaskResult, "sumSquares" | "sumSquaredError" | "absMax">;

/**
 * @throws {InputError} `input.shape` when a region does not fit; {NumericError} `numeric.not-finite` naming the tensor;
 *   {UnsupportedError} for dtypes and schemes this does not write; {InterruptedError}; system errors as they are (`ENOENT`, `ENOSPC`).
 */
export async function run(task: TensorTask, context: JobContext): Promise<TaskResult> {
  const started = performance.now();
  checkSource(task);
  const mark = context.workspace.mark();
  const reader = openReader(task.name, task.input);
  try {
    const writers = openWriters(task);
    try {
      const sums = await perform(task, reader, writers, context);
      const outputs = writers.finish();
      return { name: task.name, outputs, ...sums, seconds: (performance.now() - started) / 1000 };
    } finally {
      writers.close();
    }
  } finally {
    reader.close();
    context.workspace.release(mark);
  }
}

function checkSource({ name, input: { source, dtype, shape } }: TensorTask): void {
  const expected = byteLength(dtype, shape);
  if (source.kind === "bytes" && source.bytes.byteLength !== expected) {
    throw new InputError(
      "input.shape",
      `${name}: ${dtype} ${JSON.stringify(shape)} takes ${expected} bytes, got ${source.bytes.byteLength}`,
      {
        tensor: name,
      },
    );
  }
}

async function perform(task: TensorTask, reader: TensorReader, writers: TaskWriters, context: JobContext): Promise<Sums> {
  switch (task.kind) {
    case "copy":
      return await copy(byteLength(task.input.dtype, task.input.shape), reader, writers, context);
    case "rescale":
      return await rescale(task, reader, writers, context);
    case "range":
      return await measureRange(task, openRows(context.workspace, reader, rowOptions(task)), context);
    case "quantize": {
      if (blockFormatOf(task.scheme) !== undefined) {
        const rows =
          task.channelAxis === 0
            ? openRows(context.workspace, reader, rowOptions(task))
            : openTransposed(context.workspace, reader, task).rows;
        return await quantizeBlockRows(task, rows, writers, context);
      }
      const shape = matrixShape(task.input.shape);
      const options = { name: task.name, dtype: task.input.dtype, shape, factors: task.factors, arithmetic: task.arithmetic };
      if (task.channelAxis === 0) return await quantizeRows(task, openRows(context.workspace, reader, options), writers, context);
      const columns = openTransposed(context.workspace, reader, task);
      const sums = await quantizeRows(task, columns.rows, columns.writers(writers), context);
      transposeCodes(columns, writers);
      return sums;
    }
    default:
      return task satisfies never;
  }
}

function rowOptions({ name, input, factors, arithmetic }: QuantizeTask | RangeTask): RowSourceOptions {
  return { name, dtype: input.dtype, shape: matrixShape(input.shape), factors, arithmetic };
}

async function copy(
  total: number,
  reader: TensorReader,
  writers: TaskWriters,
  { workspace, breathe, progress }: JobContext,
): Promise<Sums> {
  const out = writers.get("tensor");
  const piece = workspace.take(Math.min(PIECE_BYTES, total));
  for (let done = 0; done < total; done += PIECE_BYTES) {
    await breathe();
    const bytes = workspace.bytes({ at: piece.at, byteLength: Math.min(PIECE_BYTES, total - done) });
    reader.read(done, bytes);
    out.write(bytes);
    progress(bytes.length);
  }
  return { sumSquares: 0, sumSquaredError: 0 };
}

/** From here on f16 rounds to infinity: half way between 65504 and 65536. */
const F16_OVERFLOW = 65520;

async function rescale(task: RescaleTask, reader: TensorReader, writers: TaskWriters, context: JobContext): Promise<Sums> {
  const { workspace, breathe, progress } = context;
  const { name, dtype, factors } = task;
  if (dtype !== "F32" && dtype !== "BF16" && dtype !== "F16") {
    throw new UnsupportedError("unsupported.dtype", `${name}: rescaled tensors are stored as F32, BF16 or F16, not ${dtype}`, {
      tensor: name,
      dtype,
    });
  }
  const shape = matrixShape(task.input.shape);
  const rows = openRows(workspace, reader, { name, dtype: task.input.dtype, shape, factors, arithmetic: "f32" });
  const out = writers.get("tensor");
  const most = workspace.take(rows.tileRows * 4);
  const stored = workspace.take(rows.tileRows * rows.cols * 4);
  let absMax = 0;
  for (let first = 0; first < rows.rows; first += rows.pieceRows) {
    await breathe();
    const count = Math.min(rows.pieceRows, rows.rows - first);
    for (const tile of rows.tiles(first, count)) {
      const size = tile.rows * rows.cols;
      const top = absMaxAt(workspace, tile.stored, tile.at, { rows: tile.rows, cols: rows.cols, group: Math.max(rows.cols, 1) }, most.at);
      if (top >= INFINITY_BITS) throwNotFinite(workspace, name, rows, tile);
      for (const value of workspace.f32({ at: most.at, byteLength: tile.rows * 4 })) absMax = Math.max(absMax, value);
      if (dtype === "F32") out.write(workspace.bytes({ at: tile.at, byteLength: size * 4 }));
      else {
        narrowAt(workspace, dtype, tile.at, stored.at, size);
        out.write(workspace.bytes({ at: stored.at, byteLength: size * 2 }));
      }
    }
    progress(count * rows.rowBytes);
  }
  if (dtype === "F16" && absMax >= F16_OVERFLOW) {
    throw new NumericError(
      "numeric.not-finite",
      `${name}: the rescaled value ${absMax} does not fit F16; store the tensor in F32 or BF16`,
      {
        tensor: name,
        absMax,
      },
    );
  }
  return { sumSquares: 0, sumSquaredError: 0, absMax };
}
