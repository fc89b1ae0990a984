/**
 * What a worker thread does for a lossless run: look at a unit, write one, copy tensors, or decode a stored unit.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { byteLength, type DType } from "../../core/dtype.ts";
import { FormatError, VerifyError } from "../../core/errors.ts";
import type { TensorSpec } from "../../formats/containers/container.ts";
import { copyOut } from "../../kernels/compact/copies.ts";
import type { CompactKernel } from "../../kernels/compact/kernel.ts";
import { wasm as compactWasm } from "../../kernels/generated/compact.wasm.ts";
import type { JobContext } from "../../kernels/pool.ts";
import type { HeldSurvey, ReadableTensor, SourceUnit, UnitPart, UnitSink, UnitSurvey } from "./codec.ts";
import { CODECS } from "./codecs.ts";
import { readCast } from "./cast.ts";

/** Bytes of a tensor in a file. */
export interface FileRange extends TensorSpec {
  readonly path: string;
  readonly offset: number;
  readonly byteLength: number;
  /** The file holds this dtype and the bytes are rounded when read; `dtype` and `byteLength` are those after it. */
  readonly castFrom?: DType;
}

/** Where bytes go. */
export interface Place {
  readonly path: string;
  readonly offset: number;
}

export interface CopyRef {
  readonly from: FileRange;
  readonly to?: Place;
  /** Checked when given. */
  readonly sha256?: string;
}

export type LosslessTask =
  | { readonly kind: "survey"; readonly codec: string; readonly unit: UnitRef }
  | {
      readonly kind: "encode";
      readonly codec: string;
      readonly unit: UnitRef;
      readonly survey: HeldSurvey;
      readonly places: ReadonlyMap<string, Place>;
    }
  | { readonly kind: "copy"; readonly copies: readonly CopyRef[] }
  | {
      readonly kind: "decode";
      readonly codec: string;
      readonly name: string;
      readonly stored: readonly FileRange[];
      readonly members: readonly { readonly spec: TensorSpec; readonly sha256?: string; readonly to?: Place }[];
      /** Of the unit, and shared memory with room for its bytes, which are then not hashed here. */
      readonly part?: UnitPart;
      readonly into?: Uint8Array;
    };

export type DecodeTask = Extract<LosslessTask, { kind: "decode" }>;

export interface UnitRef {
  readonly name: string;
  readonly tensors: readonly FileRange[];
}

/** `survey` for a survey; else sha256 of each tensor's source bytes, by name. */
export interface LosslessResult {
  readonly survey?: UnitSurvey;
  readonly hashes?: Readonly<Record<string, string>>;
}

const COPY_BYTES = 2 ** 21;

export async function run(task: LosslessTask, context: JobContext): Promise<LosslessResult> {
  const files = new Files();
  try {
    switch (task.kind) {
      case "survey":
        return { survey: await codecOf(task.codec).survey(sourceUnit(task.unit, files), context) };
      case "encode":
        return { hashes: await encodeUnit(task, files, context) };
      case "copy":
        return { hashes: await copyTensors(task.copies, files, context) };
      case "decode":
        return { hashes: await decodeUnit(task, files, context) };
      default:
        return task satisfies never;
    }
  } finally {
    files.close();
  }
}

function codecOf(name: string): NonNullable<ReturnType<(typeof CODECS)["get"]>> {
  return CODECS.get(name)!;
}

function sourceUnit({ name, tensors }: UnitRef, files: Files): SourceUnit {
  return { name, tensors: tensors.map((range) => readable(range, files)) };
}

function readable(range: FileRange, files: Files): ReadableTensor {
  const { name, dtype, shape, castFrom } = range;
  return {
    name,
    dtype,
    shape,
    byteLength: range.byteLength,
    async readInto(offset, out) {
      if (castFrom === undefined) files.read(range.path, range.offset + offset, out, name);
      else await readCast(castFrom, offset, out, async (at, bytes) => files.read(range.path, range.offset + at, bytes, name));
    },
  };
}

/** sha256 of tensors whose bytes arrive in order. */
class Hashes {
  readonly #names: readonly string[];
  readonly #hashes: Hash[];

  constructor(names: readonly string[]) {
    this.#names = names;
    this.#hashes = names.map(() => createHash("sha256"));
  }

  add(index: number, bytes: Uint8Array): void {
    this.#hashes[index]!.update(bytes);
  }

  finish(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.#names.map((name, i) => [name, this.#hashes[i]!.digest("hex")]));
  }
}

async function encodeUnit(
  task: Extract<LosslessTask, { kind: "encode" }>,
  files: Files,
  context: JobContext,
): Promise<Readonly<Record<string, string>>> {
  const codec = codecOf(task.codec);
  const source = sourceUnit(task.unit, files);
  const hashes = new Hashes(task.unit.tensors.map(({ name }) => name));
  const { places } = task;
  checkApart(task.unit.name, task.survey, places);
  const sink: UnitSink = {
    async write(tensor, offset, bytes) {
      const place = places.get(tensor)!;
      files.write(place.path, place.offset + offset, bytes);
    },
    async read(tensor, offset, out) {
      const place = places.get(tensor)!;
      files.read(place.path, place.offset + offset, out, tensor);
    },
  };
  await codec.encode(source, task.survey, sink, context, (tensor, _offset, bytes) => hashes.add(tensor, bytes));
  return hashes.finish();
}

/**
 * Tensors are read back as they are written: none may lie where another one comes later.
 *
 * @throws {VerifyError} `verify.mismatch`.
 */
function checkApart(unit: string, { stored }: HeldSurvey, places: ReadonlyMap<string, Place>): void {
  const ranges = stored
    .map(({ name, dtype, shape }) => ({ name, ...places.get(name)!, bytes: byteLength(dtype, shape) }))
    .filter(({ bytes }) => bytes > 0)
    .toSorted((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : a.offset - b.offset));
  for (const [i, { name, path, offset }] of ranges.entries()) {
    const before = ranges[i - 1];
    if (before?.path === path && before.offset + before.bytes > offset)
      throw new VerifyError("verify.mismatch", `unit ${unit}: ${before.name} and ${name} would lie over each other in ${path}`, { unit });
  }
}

async function copyTensors(copies: readonly CopyRef[], files: Files, context: JobContext): Promise<Readonly<Record<string, string>>> {
  const hashes = new Hashes(copies.map(({ from }) => from.name));
  const buffer = new Uint8Array(COPY_BYTES);
  const again = new Uint8Array(COPY_BYTES);
  for (const [i, { from, to }] of copies.entries()) {
    const source = readable(from, files);
    for (let at = 0; at < from.byteLength; at += COPY_BYTES) {
      await context.breathe();
      const bytes = buffer.subarray(0, Math.min(COPY_BYTES, from.byteLength - at));
      await source.readInto(at, bytes);
      hashes.add(i, bytes);
      if (to !== undefined) {
        files.write(to.path, to.offset + at, bytes);
        const stored = again.subarray(0, bytes.length);
        files.read(to.path, to.offset + at, stored, from.name);
        if (Buffer.compare(stored, bytes) !== 0)
          throw new VerifyError("verify.mismatch", `tensor ${from.name}: what was written is not what was read (bytes from ${at} on)`, {
            tensor: from.name,
          });
      }
      context.progress(bytes.byteLength);
    }
  }
  const found = hashes.finish();
  for (const { from, sha256 } of copies) if (sha256 !== undefined && found[from.name] !== sha256) throw changed(from.name, from.name);
  return found;
}

async function decodeUnit(task: DecodeTask, files: Files, context: JobContext): Promise<Readonly<Record<string, string>>> {
  const { codec, name, stored, members, part, into } = task;
  const hashes = createHashes(members);
  const tensors = new Map(stored.map((range) => [range.name, readable(range, files)]));
  const copier = context.workspace.kernel<CompactKernel>(compactWasm);
  let at = 0;
  const emit = (index: number, offset: number, bytes: Uint8Array): void => {
    if (into === undefined) hashes.add(index, bytes);
    else copyOut(context.workspace, copier, bytes, into.subarray(at, at + bytes.length));
    at += bytes.length;
    const to = members[index]!.to;
    if (to !== undefined) files.write(to.path, to.offset + offset, bytes);
  };
  const specs = members.map(({ spec }) => spec);
  await codecOf(codec).decode(name, tensors, specs, context, emit, part);
  return into === undefined ? checkHashes(task, hashes) : {};
}

/** sha256 of a unit's members, to be given their bytes in order. */
export function createHashes(members: DecodeTask["members"]): Hashes {
  return new Hashes(members.map(({ spec }) => spec.name));
}

/** @throws {FormatError} `format.checksum` when a member's bytes are not those that were stored. */
export function checkHashes({ name, members }: DecodeTask, hashes: Hashes): Readonly<Record<string, string>> {
  const found = hashes.finish();
  for (const { spec, sha256 } of members) if (sha256 !== undefined && found[spec.name] !== sha256) throw changed(name, spec.name);
  return found;
}

/** Parts of a unit, for several threads. @throws {FormatError} as the task, for what is seen without decoding. */
export async function splitUnit({ codec, name, stored, members }: DecodeTask, bytes: number): Promise<readonly UnitPart[]> {
  const files = new Files();
  try {
    const tensors = new Map(stored.map((range) => [range.name, readable(range, files)]));
    const specs = members.map(({ spec }) => spec);
    return await codecOf(codec).split(name, tensors, specs, bytes);
  } finally {
    files.close();
  }
}

function changed(unit: string, tensor: string): FormatError {
  return new FormatError(
    "format.checksum",
    `unit ${unit}: the decoded bytes of ${tensor} are not those that were stored (sha256); the file is damaged`,
    { unit, tensor },
  );
}

/** Open files of one task. Synchronous: a thread has one task and nothing else to do while it waits, and a thread pool in between costs more than a page of cache. */
class Files {
  readonly #open = new Map<string, number>();

  #file(path: string, mode: "r" | "r+"): number {
    const key = mode + path;
    let file = this.#open.get(key);
    if (file === undefined) {
      file = openSync(path, mode);
      this.#open.set(key, file);
    }
    return file;
  }

  read(path: string, offset: number, out: Uint8Array, tensor: string): void {
    const file = this.#file(path, "r");
    for (let done = 0; done < out.length;) {
      const bytesRead = readSync(file, out, done, out.length - done, offset + done);
      if (bytesRead === 0)
        throw new FormatError("format.truncated", `${path} ends at byte ${offset + done}, inside tensor ${tensor}`, { tensor });
      done += bytesRead;
    }
  }

  write(path: string, offset: number, bytes: Uint8Array): void {
    const file = this.#file(path, "r+");
    for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done, bytes.length - done, offset + done);
  }

  close(): void {
    for (const file of this.#open.values()) closeSync(file);
    this.#open.clear();
  }
}
