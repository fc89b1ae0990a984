/**
 * Blocks that are worked on together, and the tensors they make up: what one worker does at a time, so that memory does not grow with a tensor.
 * @module
 */
import { blockBytes, type CompactLevel } from "./block.ts";
import { MIN_ROWS_FOR_COLUMNS, sampleRows } from "./classes.ts";
import type { BlockCoder } from "./coder.ts";
import { TABLE_SIZE } from "./frequencies.ts";
import { FLOAT_TABLES, type TensorModel } from "./symbols.ts";
import { fitFrequencies } from "./table.ts";
import { bytesModel } from "./tail.ts";
import type { MatrixView } from "./view.ts";

/** Tensors smaller than this are coded with `fast`: sixteen states would cost more than they save. */
const SMALL = 4096;

/** The level that a tensor is coded with. */
export function levelFor({ rows, cols }: MatrixView, level: CompactLevel): CompactLevel {
  return rows * cols < SMALL ? "fast" : level;
}

/** What all blocks of a tensor share. */
export interface TensorPlan {
  /** Of floats. */
  readonly columns?: Int16Array;
  /** Of bytes. */
  readonly frequencies?: Uint16Array;
}

/** Some blocks of a tensor; plain data. */
export interface RangeTask {
  /** The tensor, for messages. */
  readonly name: string;
  /** Of these blocks alone. */
  readonly view: MatrixView;
  readonly level: CompactLevel;
  /** Absent when the range is the whole tensor: then it is made of the range itself. */
  readonly plan?: TensorPlan;
}

export interface RangeResult {
  readonly plan: TensorPlan;
  /** Row classes; empty for bytes. */
  readonly rows: Int16Array;
  readonly blocks: readonly Uint8Array[];
  readonly checksums: readonly number[];
}

/** Which columns a float tensor's classes are measured for; the others have class 0. */
export function hasColumns({ kind, rows }: MatrixView): boolean {
  return kind !== "bytes" && rows >= MIN_ROWS_FOR_COLUMNS;
}

/** @returns undefined when a table would save less than one byte in 64. */
export function planBytes(counts: Float64Array): TensorPlan | undefined {
  const frequencies = fitFrequencies(counts);
  const total = counts.reduce((sum, count) => sum + count, 0);
  let bits = 0;
  for (let s = 0; s < 256; s++) if (counts[s]! > 0) bits += counts[s]! * Math.log2(TABLE_SIZE / frequencies[s]!);
  return bits / 8 > (total * 63) / 64 ? undefined : { frequencies };
}

/** @param sample - the sampled rows; not read when columns have no classes. */
export function planColumns(view: MatrixView, sample: () => Uint8Array, coder: BlockCoder): TensorPlan {
  return { columns: hasColumns(view) ? coder.fitColumns(view, sample()) : new Int16Array(view.cols) };
}

/**
 * Encodes a range.
 *
 * @param bytes - its elements.
 * @param keep - sees each block before the next is encoded, and gives what is to be kept of it; a copy when absent.
 * @returns undefined when the range is a whole tensor of bytes and a table would not save enough.
 */
export function encodeRange(
  { view, level, plan: given }: RangeTask,
  bytes: Uint8Array,
  coder: BlockCoder,
  keep: (b: number, block: Uint8Array, checksum: number, model: TensorModel) => Uint8Array = (_, block) => new Uint8Array(block),
): RangeResult | undefined {
  const plan =
    given ?? (view.kind === "bytes" ? planBytes(coder.countBytes(bytes)) : planColumns(view, () => sampleRows(view, bytes), coder));
  if (plan === undefined) return undefined;
  const { columns, frequencies } = plan;
  const rows = columns === undefined ? new Int16Array(0) : coder.fitRows(view, columns, level, bytes);
  const model: TensorModel = columns === undefined ? bytesModel(frequencies!) : { classes: { rows, columns }, tables: FLOAT_TABLES };
  const blocks: Uint8Array[] = [];
  const checksums: number[] = [];
  for (let b = 0, at = 0; b < view.blocks; b++) {
    const part = bytes.subarray(at, (at += blockBytes(view, b)));
    const { block, checksum } = coder.encodeBlock(view, model, level, b, part);
    blocks.push(keep(b, block, checksum, model));
    checksums.push(checksum);
  }
  return { plan, rows, blocks, checksums };
}
