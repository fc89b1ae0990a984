/**
 * Weights stored [in, out] (Conv1D): read whole and turned, so that output
 * channels become rows; their codes are turned back. Slower than rows, and
 * bounded by memory, which such models are small enough for.
 * @module
 */
import { blockFormatOf } from "../../core/blocks/format.ts";
import { DTYPES, elementCount } from "../../core/dtype.ts";
import { BudgetError, InputError, UnsupportedError } from "../../core/errors.ts";
import type { Workspace } from "../../kernels/load-wasm.ts";
import type { RegionWriter, TaskWriters, TensorReader } from "./regions.ts";
import { openRows, type RowSource } from "./source.ts";
import type { QuantizeTask } from "./task.ts";

/** Bytes of a tensor that is read whole. */
const WHOLE_LIMIT = 2 ** 30;

export interface TransposedSource {
  /** Rows are output channels. */
  readonly rows: RowSource;
  /** The task's writers, except that codes are kept. */
  writers(target: TaskWriters): TaskWriters;
  /** Codes in the order of `rows`. */
  readonly codes: Uint8Array;
}

/**
 * @throws {InputError} `input.shape` unless the tensor has two axes.
 * @throws {UnsupportedError} `unsupported.scheme` for packed codes, whose rows would be input channels.
 * @throws {BudgetError} `budget.memory` above 1 GiB.
 */
export function openTransposed(workspace: Workspace, reader: TensorReader, task: QuantizeTask): TransposedSource {
  const { name, input, factors, arithmetic } = task;
  const [inputs, outputs] = input.shape;
  if (input.shape.length !== 2 || inputs === undefined || outputs === undefined) {
    throw new InputError("input.shape", `${name}: channel axis 1 needs a shape [in, out], got ${JSON.stringify(input.shape)}`, {
      tensor: name,
    });
  }
  if (task.codes === "packed" && blockFormatOf(task.scheme) === undefined) {
    throw new UnsupportedError(
      "unsupported.scheme",
      `${name} is stored [in, out], and packed codes run along input channels; store one byte a code`,
      {
        tensor: name,
      },
    );
  }
  const width = DTYPES[input.dtype].bits / 8;
  const total = elementCount(input.shape) * width;
  if (total > WHOLE_LIMIT) {
    throw new BudgetError("budget.memory", `${name} is stored [in, out] and takes ${total} bytes; at most ${WHOLE_LIMIT} can be turned`, {
      tensor: name,
      bytes: total,
    });
  }
  const stored = new Uint8Array(total);
  reader.read(0, stored);
  const turned = transpose(stored, inputs, outputs, width);
  const turnedReader: TensorReader = { read: (start, out) => out.set(turned.subarray(start, start + out.length)), close: () => undefined };
  const codes = new Uint8Array(inputs * outputs);
  let written = 0;
  const kept: RegionWriter = {
    role: "codes",
    byteLength: codes.byteLength,
    write(bytes) {
      codes.set(bytes, written);
      written += bytes.length;
    },
    finish: () => "",
    close: () => undefined,
  };
  return {
    codes,
    rows: openRows(workspace, turnedReader, { name, dtype: input.dtype, shape: { rows: outputs, cols: inputs }, factors, arithmetic }),
    writers: (target) => ({
      ...target,
      get: (role) => (role === "codes" ? kept : target.get(role)),
    }),
  };
}

/** Writes the kept codes in the stored order. */
export function transposeCodes({ codes, rows }: TransposedSource, writers: TaskWriters): void {
  writers.get("codes").write(transpose(codes, rows.rows, rows.cols, 1));
}

/** Elements of `width` bytes: [rows, cols] to [cols, rows]. */
function transpose(bytes: Uint8Array, rows: number, cols: number, width: number): Uint8Array {
  const out = new Uint8Array(bytes.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const [from, to] = [(r * cols + c) * width, (c * rows + r) * width];
      for (let b = 0; b < width; b++) out[to + b] = bytes[from + b]!;
    }
  }
  return out;
}
