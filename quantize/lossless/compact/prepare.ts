/**
 * Source and recipe → files to write and what they will take, about: sizes are measured on samples of the largest tensors.
 * @module
 */
import { basename, resolve } from "node:path";
import { byteLength, elementCount, type DType } from "../../../core/dtype.ts";
import { UnsupportedError } from "../../../core/errors.ts";
import type { LazyTensor } from "../../../core/tensor.ts";
import { openFileSource } from "../../../formats/containers/bytes.ts";
import type { ByteSource } from "../../../formats/containers/container.ts";
import { COMPACT_EXTENSION } from "../../../formats/containers/compact/open.ts";
import { compactSource, type CompactSource, type RangedTensor } from "../../../formats/containers/compact/write.ts";
import type { CompactLevel } from "../../../formats/encodings/compact/block.ts";
import { encodePayload } from "../../../formats/encodings/compact/payload.ts";
import { threadCompactCoder } from "../../../kernels/compact/thread-coder.ts";
import { readRange } from "../../../model/sources/detached.ts";
import type { LosslessUnit, Plan, QuantizeOptions } from "../../types.ts";
import { CASTABLE, readCast } from "../cast.ts";
import type { CodecName } from "../codec.ts";
import { openLosslessSource, type LosslessSource, type SourceFile } from "../source.ts";

/** One file to write. */
export interface CompactTarget {
  /** Of the compact file, relative, with "/". */
  readonly name: string;
  readonly file: SourceFile;
  readonly source: CompactSource;
  /** Bytes of the safetensors file. */
  readonly bytes: number;
  readonly elements: number;
}

export interface PreparedCompact {
  readonly source: LosslessSource;
  readonly codec: CodecName;
  readonly level: CompactLevel;
  readonly targets: readonly CompactTarget[];
  readonly plan: Plan;
  /** Closes the files that were read. */
  readonly close: () => Promise<void>;
}

/** Bytes of a tensor, and tensors of a dtype, that a size is estimated from. */
const SAMPLE_BYTES = 2 ** 19;
const SAMPLE_TENSORS = 3;
const MIB = 2 ** 20;

/** @throws {InputError}, {FormatError}, {UnsupportedError} before anything is written. */
export async function prepareCompact(
  path: string,
  codec: Exclude<CodecName, "df11">,
  options: Omit<QuantizeOptions, "out">,
): Promise<PreparedCompact> {
  const { recipe } = options;
  const level = codec === "compact-max" ? "max" : "fast";
  const source = await openLosslessSource(path);
  const notes = [...source.notes];
  const files = source.components.flatMap((component) => component.files);
  const readers = createReaders();
  const targets = files.map((file) => targetOf(file, recipe.cast, readers));
  const rounded = files.flatMap(({ tensors }) => tensors.filter(({ dtype }) => recipe.cast === "bf16" && CASTABLE.has(dtype)));
  if (rounded.length > 0)
    notes.push(`--cast bf16 is lossy: ${rounded.length} tensors are rounded to bf16; restore gives the rounded model back, not the source`);
  if (targets.every(({ elements }) => elements === 0))
    throw new UnsupportedError("unsupported.dtype", `${path} has no weights to compress: its tensors are empty`, { path });
  const plan = await planOf(path, source, codec, level, targets, options, notes);
  return { source, codec, level, targets, plan, close: () => readers.close() };
}

function targetOf(file: SourceFile, cast: "bf16" | undefined, readers: Readers): CompactTarget {
  const isCast = cast === "bf16" && file.tensors.some(({ dtype }) => CASTABLE.has(dtype));
  const tensors = file.tensors.map((tensor) => detached(tensor, cast, readers));
  const source = isCast ? compactSource(tensors, { format: "pt" }) : { header: file.header, tensors };
  return {
    name: file.name + COMPACT_EXTENSION,
    file,
    source,
    bytes: source.header.length + tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0),
    elements: tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0),
  };
}

/** A tensor of a file that is closed, rounded when it is asked for and wide. */
function detached(tensor: LazyTensor, cast: "bf16" | undefined, { readInto }: Readers): RangedTensor {
  const { name, dtype, shape, byteLength: bytes, location } = tensor;
  const { path, offset } = location!;
  if (cast === undefined || !CASTABLE.has(dtype))
    return {
      ...tensor,
      read: async () => ({ dtype, shape, bytes: bytes === 0 ? new Uint8Array(0) : await readRange(path, offset, bytes) }),
      readInto: (from, out) => readInto(path, offset + from, out),
    };
  const readPart = async (from: number, out: Uint8Array): Promise<void> => {
    if (out.length > 0) await readCast(dtype, from, out, (at, part) => readInto(path, offset + at, part));
  };
  return {
    name,
    dtype: "BF16",
    shape,
    byteLength: byteLength("BF16", shape),
    async read() {
      const out = new Uint8Array(byteLength("BF16", shape));
      await readPart(0, out);
      return { dtype: "BF16", shape, bytes: out };
    },
    readInto: readPart,
  };
}

/** Files that stay open from their first read on. */
interface Readers {
  readonly readInto: (path: string, offset: number, out: Uint8Array) => Promise<void>;
  readonly close: () => Promise<void>;
}

function createReaders(): Readers {
  const sources = new Map<string, Promise<ByteSource>>();
  return {
    async readInto(path, offset, out) {
      const source = sources.get(path) ?? openFileSource(path);
      sources.set(path, source);
      await (await source).readInto(offset, out);
    },
    async close() {
      for (const source of sources.values()) await (await source.catch(() => undefined))?.close();
      sources.clear();
    },
  };
}

/** Stored bytes for each byte of a dtype, by samples of its largest tensors. */
async function ratios(targets: readonly CompactTarget[], level: CompactLevel): Promise<ReadonlyMap<DType, number>> {
  const byDType = new Map<DType, LazyTensor[]>();
  for (const tensor of targets.flatMap(({ source }) => source.tensors))
    if (tensor.byteLength > 0) byDType.set(tensor.dtype, [...(byDType.get(tensor.dtype) ?? []), tensor]);
  const found = new Map<DType, number>();
  for (const [dtype, tensors] of byDType) {
    let [before, after] = [0, 0];
    for (const tensor of tensors.toSorted((a, b) => b.byteLength - a.byteLength).slice(0, SAMPLE_TENSORS)) {
      const sample = await sampleOf(tensor);
      before += sample.bytes.length;
      const pieces = encodePayload(dtype, sample.shape, sample.bytes, level, threadCompactCoder());
      after += pieces.reduce((sum, piece) => sum + piece.length, 0);
    }
    found.set(dtype, before === 0 ? 1 : after / before);
  }
  return found;
}

/** The first rows of a tensor; all of it when it is small, or rounded, or has no rows. */
async function sampleOf(tensor: LazyTensor): Promise<{ readonly shape: readonly number[]; readonly bytes: Uint8Array }> {
  const { shape, byteLength: bytes, location, dtype } = tensor;
  const rowBytes = shape.length < 2 ? bytes : byteLength(dtype, [1, ...shape.slice(1)]);
  const rows = Math.max(1, Math.floor(SAMPLE_BYTES / rowBytes));
  if (location === undefined || shape.length < 2 || rows >= shape[0]!) return tensor.read();
  const source = await openFileSource(location.path);
  try {
    return { shape: [rows, ...shape.slice(1)], bytes: await source.read(location.offset, rows * rowBytes) };
  } finally {
    await source.close();
  }
}

async function planOf(
  path: string,
  source: LosslessSource,
  codec: CodecName,
  level: CompactLevel,
  targets: readonly CompactTarget[],
  { recipe, workers = 2 }: Omit<QuantizeOptions, "out">,
  notes: readonly string[],
): Promise<Plan> {
  const ratio = await ratios(targets, level);
  const units = targets.map(({ name, source: file, elements }): LosslessUnit => {
    const bytes = file.tensors.reduce((sum, tensor) => sum + tensor.byteLength * (ratio.get(tensor.dtype) ?? 1), 0);
    return {
      name,
      tensors: file.tensors.map((tensor) => tensor.name),
      elements,
      bitsPerWeight: elements === 0 ? 0 : (8 * bytes) / elements,
    };
  });
  const weights = units.reduce((sum, { elements }) => sum + elements, 0);
  const outputBytes = Math.ceil(units.reduce((sum, { elements, bitsPerWeight }) => sum + (elements * bitsPerWeight) / 8, 0));
  const sourceBytes = targets.reduce((sum, { file }) => sum + file.bytes, 0);
  const largest = targets.flatMap((target) => target.source.tensors).reduce((most, tensor) => Math.max(most, tensor.byteLength), 0);
  const declared = source.components[0]?.config?.["model_type"];
  return {
    version: 1,
    source: {
      path: basename(resolve(path)),
      family: typeof declared === "string" ? declared : source.isFile ? "file" : "unknown",
      parameters: weights,
      bytes: sourceBytes,
    },
    recipe,
    transforms: [],
    method: recipe.method[0]!,
    sites: [],
    exports: [codec],
    pairs: [],
    scaleDType: "BF16",
    arithmetic: "f32",
    notes,
    lossless: { codec, units },
    estimate: {
      outputBytes,
      diskBytes: Math.ceil(1.05 * outputBytes) + 32 * MIB,
      // Ranges of 8 MiB under way, and each thread's own memory; classes and lengths of the largest tensor.
      memoryBytes: 150 * MIB + Math.max(1, workers) * 72 * MIB + 32 * MIB + largest / 64,
      seconds: 0.5 + sourceBytes / 150e6,
      bitsPerWeight: weights === 0 ? 0 : (8 * outputBytes) / weights,
    },
  };
}
