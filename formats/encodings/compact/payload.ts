/**
 * One tensor in bytes: its blocks, then its tail (`tail.ts`).
 * @module
 */
import type { DType } from "../../../core/dtype.ts";
import { FormatError } from "../../../core/errors.ts";
import { blockBytes, wholeWords, type CompactLevel } from "./block.ts";
import type { BlockCoder } from "./coder.ts";
import { fillProgression, findProgression } from "./progression.ts";
import { encodeRange, levelFor, planBytes, planColumns, type RangeResult, type TensorPlan } from "./ranges.ts";
import {
  encodeBytesTail,
  encodeFloatTail,
  encodeProgressionTail,
  encodeRawTail,
  RAW_PIECE,
  rawPayloadBytes,
  type PayloadTail,
} from "./tail.ts";
import { sampleRows } from "./classes.ts";
import { blocksPerRange, rangeOf, viewMatrix, type MatrixView } from "./view.ts";

/**
 * Encodes one tensor.
 *
 * @param keep - takes each block out of memory that the next one overwrites; a copy when absent.
 * @returns the payload in pieces, to be written one after the other.
 */
export function encodePayload(
  dtype: DType,
  shape: readonly number[],
  bytes: Uint8Array,
  level: CompactLevel,
  coder: BlockCoder,
  keep: (block: Uint8Array) => Uint8Array = (block) => new Uint8Array(block),
): readonly Uint8Array[] {
  const progression = findProgression(dtype, bytes);
  if (progression !== undefined) return [encodeProgressionTail(progression, coder.checksum(bytes))];
  const view = viewMatrix(dtype, shape);
  if (view === undefined) return rawPayload(bytes, coder);
  const used = levelFor(view, level);
  const step = blocksPerRange(view);
  const unit = blockBytes(view, 0);
  const plan = view.blocks <= step ? undefined : planTensor(view, bytes, coder);
  const results: RangeResult[] = [];
  for (let from = 0; from < view.blocks; from += step) {
    const to = Math.min(from + step, view.blocks);
    const result =
      plan === "raw"
        ? undefined
        : encodeRange(
            { name: "", view: rangeOf(view, from, to), level: used, ...(plan && { plan }) },
            bytes.subarray(from * unit, to * unit),
            coder,
            (_, block) => keep(block),
          );
    if (result === undefined) return rawPayload(bytes, coder);
    results.push(result);
  }
  const blocks = results.flatMap((result) => result.blocks);
  const tail = encodeTail(
    view,
    used,
    results[0]!.plan,
    results.map(({ rows, checksums, blocks: own }) => ({ rows, checksums, lengths: own.map(({ length }) => length) })),
  );
  return isWorthwhile(view, blocks, tail, bytes.length) ? [...blocks, tail] : rawPayload(bytes, coder);
}

function planTensor(view: MatrixView, bytes: Uint8Array, coder: BlockCoder): TensorPlan | "raw" {
  if (view.kind === "bytes") return planBytes(coder.countBytes(bytes)) ?? "raw";
  return planColumns(view, () => sampleRows(view, bytes), coder);
}

/** The tail of a tensor from its ranges, in order. */
export function encodeTail(
  view: MatrixView,
  level: CompactLevel,
  { columns, frequencies }: TensorPlan,
  results: readonly { readonly rows: Int16Array; readonly lengths: readonly number[]; readonly checksums: readonly number[] }[],
): Uint8Array {
  const index = {
    lengths: results.flatMap(({ lengths }) => lengths),
    checksums: results.flatMap(({ checksums }) => checksums),
  };
  if (columns === undefined) return encodeBytesTail(level, frequencies!, index);
  const rows = new Int16Array(view.rows);
  let at = 0;
  for (const result of results) {
    rows.set(result.rows, at);
    at += result.rows.length;
  }
  return encodeFloatTail(view, level, { rows, columns }, index);
}

/** Whether a coded payload is smaller than a raw one. Only asked for tensors of one block: of larger ones the first blocks are written before the last are known. */
export function isWorthwhile({ blocks: count }: MatrixView, blocks: readonly Uint8Array[], tail: Uint8Array, bytes: number): boolean {
  return count > 1 || blocks.reduce((sum, block) => sum + block.length, tail.length) < rawPayloadBytes(bytes);
}

function rawPayload(bytes: Uint8Array, coder: BlockCoder): readonly Uint8Array[] {
  const checksums = rawChecksums(bytes, coder);
  return [bytes, new Uint8Array(wholeWords(bytes.length) - bytes.length), encodeRawTail(checksums)];
}

/** Of each 262,144 bytes. */
export function rawChecksums(bytes: Uint8Array, coder: Pick<BlockCoder, "checksum">): readonly number[] {
  return Array.from({ length: Math.ceil(bytes.length / RAW_PIECE) }, (_, p) =>
    coder.checksum(bytes.subarray(p * RAW_PIECE, (p + 1) * RAW_PIECE)),
  );
}

/**
 * Decodes and checks blocks `from` to `to` (exclusive).
 *
 * @param bytes - of those blocks, one after the other.
 * @param out - receives their elements.
 * @throws {FormatError} `format.checksum` when a block's elements are not those that were encoded; `format.field`.
 */
export function decodeBlocks(
  name: string,
  { dtype, coded, progression, level, starts, checksums }: PayloadTail,
  from: number,
  to: number,
  bytes: Uint8Array,
  coder: BlockCoder,
  out: Uint8Array,
): void {
  for (let b = from, at = 0; b < to; b++) {
    const block = bytes.subarray(starts[b]! - starts[from]!, starts[b + 1]! - starts[from]!);
    const length = progression !== undefined ? out.length : coded === undefined ? block.length : blockBytes(coded.view, b);
    const part = out.subarray(at, (at += length));
    let found: number;
    if (coded === undefined) {
      if (progression === undefined) part.set(block);
      else fillProgression(dtype, progression, part);
      found = coder.checksum(part);
    } else found = coder.decodeBlock(`tensor ${name}, block ${b}`, coded.view, coded.model, level, b, block, part);
    if (found !== checksums[b]) {
      throw new FormatError(
        "format.checksum",
        `tensor ${name}: block ${b} decodes to other elements than were encoded; the file is damaged`,
        {
          tensor: name,
          block: b,
          expected: checksums[b],
          found,
        },
      );
    }
  }
}
