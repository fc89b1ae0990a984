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
import { BATCH, createBlockDecoder, indexOf } from "../../kernels/df11/blocks.ts";
import { createExponentCounter, createUnitEncoder, planCode, STRIP, type UnitCode } from "../../kernels/df11/unit-encoder.ts";
import type { JobContext } from "../../kernels/pool.ts";
import type { DecodedSink, HeldSurvey, SourceUnit, StoredUnit, UnitCodec, UnitSink, UnitSurvey } from "./codec.ts";
import { createWrittenCheck } from "./df11-check.ts";

export const df11Codec: UnitCodec = {
  name: "df11",
  summary: "DFloat11: what the official package loads; about 10.9 bits a weight",
  accepts: ({ dtype, shape }) => dtype === "BF16" && shape.length === 2,
  survey,
  encode,
  decode,
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

async function decode(
  name: string,
  stored: StoredUnit,
  members: readonly TensorSpec[],
  context: JobContext,
  emit: DecodedSink,
): Promise<void> {
  const part = (suffix: string): NonNullable<ReturnType<StoredUnit["get"]>> => {
    const tensor = stored.get(`${name}.${suffix}`);
    if (tensor === undefined)
      throw new FormatError("format.missing", `DFloat11 unit ${name} has no ${suffix}`, { unit: name, missing: suffix });
    return tensor;
  };
  const lengths = new Map(SUFFIXES.map((suffix) => [suffix, part(suffix).byteLength]));
  const index = await readIndex(name, lengths, members, (suffix, out) => part(suffix).readInto(0, out));
  const ranges = memberRanges(index);
  const { workspace } = context;
  const mark = workspace.mark();
  try {
    const blocks = indexOf(index);
    const decoder = createBlockDecoder(name, index.luts, blocks, workspace);
    let member = 0;
    for (let first = 0; first < blocks.blocks; first += BATCH) {
      await context.breathe();
      const last = Math.min(first + BATCH, blocks.blocks);
      const [from, to] = [blocks.position(first), blocks.position(last)];
      const { stream, signMantissa } = decoder.input(first, last);
      await part("encoded_exponent").readInto(first * BLOCK_BYTES, stream);
      await part("sign_mantissa").readInto(from, signMantissa);
      const patterns = decoder.run();
      for (let at = from; at < to;) {
        while (ranges[member]!.to <= at) member++;
        const range = ranges[member]!;
        const until = Math.min(to, range.to);
        await emit(member, 2 * (at - range.from), patterns.subarray(2 * (at - from), 2 * (until - from)));
        at = until;
      }
      context.progress(2 * (to - from));
    }
  } finally {
    workspace.release(mark);
  }
}
