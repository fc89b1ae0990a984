/**
 * DFloat11 as a codec: the bytes of the official encoder, in memory that does not grow with the unit.
 * @module
 */
import { byteLength, elementCount } from "../../core/dtype.ts";
import { FormatError } from "../../core/errors.ts";
import type { TensorSpec } from "../../formats/containers/container.ts";
import { refuseLaunch } from "../../formats/encodings/dfloat11/encode.ts";
import { BLOCK_BYTES } from "../../formats/encodings/dfloat11/fields.ts";
import {
  memberRanges,
  readUnitIndex,
  storedTensors,
  SUFFIXES,
  type Suffix,
  type UnitIndex,
} from "../../formats/layouts/dfloat11/stored.ts";
import { BATCH, createBlockDecoder, indexOf, type BlockIndex } from "../../kernels/df11/blocks.ts";
import { createExponentCounter, createUnitEncoder, planCode, STRIP, type UnitCode } from "../../kernels/df11/unit-encoder.ts";
import type { JobContext } from "../../kernels/pool.ts";
import type {
  DecodedSink,
  HeldSurvey,
  ReadableTensor,
  SourceUnit,
  StoredUnit,
  UnitCodec,
  UnitPart,
  UnitSink,
  UnitSurvey,
} from "./codec.ts";
import { createWrittenCheck } from "./df11-check.ts";

export const df11Codec: UnitCodec = {
  name: "df11",
  summary: "DFloat11: what the official package loads; about 10.9 bits a weight",
  accepts: ({ dtype, shape }) => dtype === "BF16" && shape.length === 2,
  survey,
  encode,
  decode,
  split,
};

/** Runs of at most STRIP elements, tensor by tensor. */
function* strips({ tensors }: SourceUnit): Generator<{ readonly index: number; readonly offset: number; readonly elements: number }> {
  for (const [index, { byteLength: bytes }] of tensors.entries()) {
    for (let offset = 0; offset < bytes; offset += 2 * STRIP) yield { index, offset, elements: Math.min(STRIP, (bytes - offset) / 2) };
  }
}

async function survey(unit: SourceUnit, context: JobContext): Promise<UnitSurvey> {
  const { workspace } = context;
  const mark = workspace.mark();
  try {
    const counter = createExponentCounter(workspace);
    for (const { index, offset, elements } of strips(unit)) {
      await context.breathe();
      await unit.tensors[index]!.readInto(offset, workspace.bytes({ at: counter.input.at, byteLength: 2 * elements }));
      counter.add(elements);
      context.progress(2 * elements);
    }
    const code = planCode(counter.counts);
    if ("refusal" in code) return code;
    workspace.release(mark);
    const refusal = await surveyLaunch(unit, code, context);
    if (refusal !== undefined) return { refusal };
    const { luts, elements, streamBytes, blocks } = code;
    const sizes = { rows: luts.length / 256, elements, streamBytes, blocks, parts: unit.tensors.length };
    return { stored: storedTensors(unit.name, sizes), state: counter.counts };
  } finally {
    workspace.release(mark);
  }
}

/** Whether the official kernel could stage every block: only one-bit codes can crowd a block, and only then it is counted. */
async function surveyLaunch(unit: SourceUnit, code: UnitCode, context: JobContext): Promise<ReturnType<typeof refuseLaunch>> {
  const shortest = code.table.reduce((least, { length }) => Math.min(least, length), Infinity);
  if (shortest > 1) return undefined;
  const encoder = createUnitEncoder(unit.name, code, context.workspace);
  for (const { index, offset, elements } of strips(unit)) {
    await context.breathe();
    await unit.tensors[index]!.readInto(offset, encoder.input(elements));
    encoder.push(elements);
  }
  const { gaps, outputPositions } = encoder.finish();
  const none = new Uint8Array(0);
  return refuseLaunch({ luts: code.luts, gaps, outputPositions, encodedExponent: none, signMantissa: none, splitPositions: [] });
}

async function encode(
  unit: SourceUnit,
  { state, stored }: HeldSurvey,
  sink: UnitSink,
  context: JobContext,
  onSource: DecodedSink,
): Promise<void> {
  const { name, tensors } = unit;
  const code = planCode(state as Float64Array);
  if ("refusal" in code) throw new FormatError("format.field", `unit ${name}: ${code.refusal.text}`, { unit: name });
  const { workspace } = context;
  const mark = workspace.mark();
  try {
    const encoder = createUnitEncoder(name, code, workspace);
    // Takes memory behind the encoder's.
    const written = createWrittenCheck(
      name,
      code.luts,
      encoder.index,
      (suffix, offset, out) => sink.read(`${name}.${suffix}`, offset, out),
      workspace,
    );
    let streamAt = 0;
    let element = 0;
    for (const { index, offset, elements } of strips(unit)) {
      await context.breathe();
      const input = encoder.input(elements);
      await tensors[index]!.readInto(offset, input);
      await onSource(index, offset, input);
      const { stream, signMantissa } = encoder.push(elements);
      await sink.write(`${name}.encoded_exponent`, streamAt, stream);
      await sink.write(`${name}.sign_mantissa`, element, signMantissa);
      streamAt += stream.length;
      element += elements;
      await written.add(input, encoder.complete());
      context.progress(2 * elements);
    }
    const { stream, gaps, outputPositions } = encoder.finish();
    await sink.write(`${name}.encoded_exponent`, streamAt, stream);
    await sink.write(`${name}.luts`, 0, code.luts);
    await sink.write(`${name}.gaps`, 0, gaps);
    await sink.write(`${name}.output_positions`, 0, littleEndian32(outputPositions));
    await sink.write(`${name}.split_positions`, 0, splitBytes(tensors));
    const lengths = new Map(stored.map((spec) => [spec.name.slice(name.length + 1) as Suffix, byteLength(spec.dtype, spec.shape)]));
    await written.end(() => readIndex(name, lengths, tensors, (suffix, out) => sink.read(`${name}.${suffix}`, 0, out)));
  } finally {
    workspace.release(mark);
  }
}

function littleEndian32(values: Uint32Array): Uint8Array {
  const out = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => out.setUint32(4 * i, value, true));
  return new Uint8Array(out.buffer);
}

/** Cumulative element counts, the last one left out, as I64. */
function splitBytes(tensors: readonly TensorSpec[]): Uint8Array {
  const out = new DataView(new ArrayBuffer(8 * (tensors.length - 1)));
  let total = 0;
  tensors.slice(0, -1).forEach(({ shape }, i) => {
    total += elementCount(shape);
    out.setBigInt64(8 * i, BigInt(total), true);
  });
  return new Uint8Array(out.buffer);
}

/** A unit's index as it is stored. @throws {FormatError} when its structure is none, or its tensors are not of the members' sizes. */
async function readIndex(
  name: string,
  lengths: ReadonlyMap<Suffix, number>,
  members: readonly TensorSpec[],
  read: (suffix: Suffix, out: Uint8Array) => Promise<void>,
): Promise<UnitIndex> {
  const index = await readUnitIndex(name, lengths, async (suffix) => {
    const out = new Uint8Array(lengths.get(suffix)!);
    await read(suffix, out);
    return out;
  });
  const ranges = memberRanges(index);
  const agrees =
    ranges.length === members.length && members.every(({ shape }, i) => elementCount(shape) === ranges[i]!.to - ranges[i]!.from);
  if (agrees) return index;
  const wanted = members.map(({ shape }) => elementCount(shape)).join(", ");
  throw new FormatError(
    "format.field",
    `DFloat11 unit ${name}: its tensors have ${ranges.map(({ from, to }) => to - from).join(", ")} elements, the manifest says ${wanted}`,
    { unit: name },
  );
}

/** Bytes of a stored tensor. @throws {FormatError} `format.missing`. */
function storedPart(name: string, stored: StoredUnit, suffix: Suffix): ReadableTensor {
  const tensor = stored.get(`${name}.${suffix}`);
  if (tensor === undefined)
    throw new FormatError("format.missing", `DFloat11 unit ${name} has no ${suffix}`, { unit: name, missing: suffix });
  return tensor;
}

async function indexOfStored(name: string, stored: StoredUnit, members: readonly TensorSpec[]): Promise<UnitIndex> {
  const lengths = new Map(SUFFIXES.map((suffix) => [suffix, storedPart(name, stored, suffix).byteLength]));
  return readIndex(name, lengths, members, (suffix, out) => storedPart(name, stored, suffix).readInto(0, out));
}

/** Blocks [first, last) and their part of the index. */
interface PartState extends Pick<BlockIndex, "blocks" | "elements" | "streamBytes"> {
  readonly luts: Uint8Array;
  readonly first: number;
  readonly last: number;
  /** From the first block to the one behind the last. */
  readonly positions: Uint32Array;
  readonly gaps: Uint8Array;
}

function runsOf(ranges: ReturnType<typeof memberRanges>, from: number, to: number): UnitPart["runs"] {
  return ranges.flatMap((range, member) => {
    const [begin, end] = [Math.max(from, range.from), Math.min(to, range.to)];
    return begin < end ? [{ member, offset: 2 * (begin - range.from), bytes: 2 * (end - begin) }] : [];
  });
}

async function split(name: string, stored: StoredUnit, members: readonly TensorSpec[], bytes: number): Promise<readonly UnitPart[]> {
  const index = await indexOfStored(name, stored, members);
  const ranges = memberRanges(index);
  const all = indexOf(index);
  const { blocks, elements, streamBytes } = all;
  const parts: UnitPart[] = [];
  for (let first = 0; first < blocks;) {
    let last = first + 1;
    while (last < blocks && 2 * (all.position(last + 1) - all.position(first)) <= bytes) last++;
    const count = all.position(last) - all.position(first);
    if (count > (last - first) * 8 * BLOCK_BYTES)
      throw new FormatError(
        "format.field",
        `DFloat11 unit ${name}: blocks ${first} to ${last} claim ${count} elements, more than their bits`,
        { unit: name },
      );
    const state: PartState = {
      blocks,
      elements,
      streamBytes,
      first,
      last,
      luts: index.luts,
      positions: index.outputPositions.slice(first, last + 1),
      gaps: Uint8Array.from({ length: Math.min(last + 1, blocks) - first }, (_, i) => all.gap(first + i)),
    };
    parts.push({ runs: runsOf(ranges, all.position(first), all.position(last)), state });
    first = last;
  }
  return parts;
}

async function decode(
  name: string,
  stored: StoredUnit,
  members: readonly TensorSpec[],
  context: JobContext,
  emit: DecodedSink,
  part?: UnitPart,
): Promise<void> {
  if (part === undefined) {
    const index = await indexOfStored(name, stored, members);
    const blocks = indexOf(index);
    return decodeBlocks(
      name,
      stored,
      { luts: index.luts, index: blocks, first: 0, last: blocks.blocks },
      memberRanges(index),
      context,
      emit,
    );
  }
  const { luts, first, last, positions, gaps, blocks, elements, streamBytes } = part.state as PartState;
  const position = (block: number): number => positions[block - first]!;
  const index: BlockIndex = { blocks, elements, streamBytes, position, gap: (block) => gaps[block - first]! };
  await decodeBlocks(name, stored, { luts, index, first, last }, rangesOf(members), context, emit);
}

/** Element ranges of tensors one behind the other. */
function rangesOf(members: readonly TensorSpec[]): ReturnType<typeof memberRanges> {
  let at = 0;
  return members.map(({ shape }) => ({ from: at, to: (at += elementCount(shape)) }));
}

async function decodeBlocks(
  name: string,
  stored: StoredUnit,
  what: { readonly luts: Uint8Array; readonly index: BlockIndex; readonly first: number; readonly last: number },
  ranges: ReturnType<typeof memberRanges>,
  { workspace, breathe, progress }: JobContext,
  emit: DecodedSink,
): Promise<void> {
  const { luts, index } = what;
  const mark = workspace.mark();
  try {
    const decoder = createBlockDecoder(name, luts, index, workspace);
    for (let first = what.first; first < what.last; first += BATCH) {
      await breathe();
      const last = Math.min(first + BATCH, what.last);
      const [from, to] = [index.position(first), index.position(last)];
      const { stream, signMantissa } = decoder.input(first, last);
      await storedPart(name, stored, "encoded_exponent").readInto(first * BLOCK_BYTES, stream);
      await storedPart(name, stored, "sign_mantissa").readInto(from, signMantissa);
      const patterns = decoder.run();
      let at = 0;
      for (const { member, offset, bytes } of runsOf(ranges, from, to)) {
        await emit(member, offset, patterns.subarray(at, at + bytes));
        at += bytes;
      }
      progress(2 * (to - from));
    }
  } finally {
    workspace.release(mark);
  }
}
