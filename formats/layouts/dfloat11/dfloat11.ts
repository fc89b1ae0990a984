/**
 * DFloat11 directories as sources: the bf16 tensors they stand for, decoded when they are read.
 *
 * A tensor is decoded alone: the blocks that hold it are found through
 * output_positions, so nothing of a unit is kept but its index.
 * Source: DFloat11 0.5.0, `load_and_replace_tensors`.
 * @module
 */
import { createHash } from "node:crypto";
import { elementCount } from "../../../core/dtype.ts";
import { FormatError } from "../../../core/errors.ts";
import type { LazyTensor } from "../../../core/tensor.ts";
import { openFileSource } from "../../containers/bytes.ts";
import { isObject } from "../../containers/json.ts";
import { decodeUnit } from "../../encodings/dfloat11/decode.ts";
import type { ArtifactLayout, LayoutTools } from "../layout.ts";
import { readPatternDict } from "./config.ts";
import { compileFullMatch } from "./full-match.ts";
import { readDirectoryRecord, type DecodedRecord, type DirectoryRecord } from "./record.ts";
import { findStoredUnits, memberRanges, readUnitIndex, type Suffix, type UnitIndex } from "./stored.ts";

/** Indexes kept at a time: tensors of a block are mostly read one after another. */
const KEPT_INDEXES = 4;

export const dfloat11: ArtifactLayout = {
  name: "dfloat11",

  matches: (config) => isObject(config["dfloat11_config"]),

  async read(checkpoint, tools = {}) {
    const { dfloat11_config: declared, ...config } = checkpoint.config!;
    const record = await readDirectoryRecord(checkpoint.directory);
    const tensors = await readDfloat11(checkpoint.tensors, record, readPatternDict(checkpoint.config!), tools);
    const version = isObject(declared) && typeof declared["version"] === "string" ? declared["version"] : "unknown";
    return { tensors, activations: new Map(), weights: new Map(), format: version, config };
  },
};

/**
 * @param stored - all tensors of the directory.
 * @param record - what our manifest says, when there is one.
 * @param patterns - `pattern_dict`, for artifacts without a manifest.
 */
export async function readDfloat11(
  stored: ReadonlyMap<string, LazyTensor>,
  record: DirectoryRecord | undefined,
  patterns: ReturnType<typeof readPatternDict>,
  tools: LayoutTools,
): Promise<ReadonlyMap<string, LazyTensor>> {
  const units = findStoredUnits(stored);
  const inside = new Set([...units.values()].flatMap((parts) => [...parts.values()].map(({ name }) => name)));
  const matchers = patterns.map(({ pattern, attributes }) => ({ matches: compileFullMatch(pattern), attributes }));
  const indexes = new IndexCache();
  const found = new Map<string, LazyTensor>();
  for (const [name, tensor] of stored) if (!inside.has(name)) found.set(name, checked(tensor, record?.tensors.get(name)));
  for (const [unit, parts] of units) {
    const members = record?.units.get(unit) ?? membersOf(unit, matchers);
    const count = parts.get("split_positions")!.shape[0]! + 1;
    if (members.length !== count) {
      throw new FormatError(
        "format.field",
        `DFloat11 unit ${unit} holds ${count} tensors, ${members.length} are named for it (${members.slice(0, 3).join(", ")})`,
        { unit },
      );
    }
    for (const [i, name] of members.entries()) {
      if (found.has(name))
        throw new FormatError("format.duplicate", `tensor ${name} is stored plain and in DFloat11 unit ${unit}`, { unit, tensor: name });
      const known = record?.tensors.get(name);
      const elements = known === undefined ? await elementsOf(unit, parts, i, indexes) : elementCount(known.shape);
      found.set(name, lazyMember({ name, unit, parts, at: i, elements, indexes, tools, ...(known && { known }) }));
    }
  }
  if (record === undefined) return found;
  // The source's order, so that what is made from these tensors equals what is made from the source.
  const ordered = new Map<string, LazyTensor>();
  for (const name of record.tensors.keys()) {
    const tensor = found.get(name);
    if (tensor === undefined)
      throw new FormatError("format.missing", `tensor ${name} is in the manifest, but not in the files`, { tensor: name });
    ordered.set(name, tensor);
  }
  for (const [name, tensor] of found) if (!ordered.has(name)) ordered.set(name, tensor);
  return ordered;
}

function membersOf(
  unit: string,
  matchers: readonly { readonly matches: (name: string) => boolean; readonly attributes: readonly string[] }[],
): readonly string[] {
  const match = matchers.find(({ matches }) => matches(unit));
  if (match === undefined) throw new FormatError("format.config", `no pattern of dfloat11_config matches unit ${unit}`, { unit });
  return match.attributes.length === 0 ? [`${unit}.weight`] : match.attributes.map((attribute) => `${unit}.${attribute}.weight`);
}

/** A plain tensor, with its checksum when one is known. */
function checked(tensor: LazyTensor, known: DecodedRecord | undefined): LazyTensor {
  if (known === undefined) return tensor;
  // Without a location nothing reads past the check.
  const { location: _location, ...rest } = tensor;
  return {
    ...rest,
    async read() {
      const value = await tensor.read();
      checkHash(tensor.name, tensor.name, value.bytes, known);
      return value;
    },
  };
}

function checkHash(unit: string, name: string, bytes: Uint8Array, { sha256 }: DecodedRecord): void {
  if (createHash("sha256").update(bytes).digest("hex") === sha256) return;
  throw new FormatError(
    "format.checksum",
    `unit ${unit}: the decoded bytes of ${name} are not those that were stored (sha256); the file is damaged`,
    { unit, tensor: name },
  );
}

type Parts = ReadonlyMap<Suffix, LazyTensor>;

/** The last few indexes read. */
class IndexCache {
  readonly #kept = new Map<string, Promise<UnitIndex>>();

  get(unit: string, parts: Parts): Promise<UnitIndex> {
    const known = this.#kept.get(unit);
    if (known !== undefined) return known;
    const lengths = new Map([...parts].map(([suffix, { byteLength }]) => [suffix, byteLength]));
    const reading = readUnitIndex(unit, lengths, async (suffix) => (await parts.get(suffix)!.read()).bytes);
    this.#kept.set(unit, reading);
    reading.catch(() => this.#kept.delete(unit));
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= KEPT_INDEXES) break;
      this.#kept.delete(oldest);
    }
    return reading;
  }
}

async function elementsOf(unit: string, parts: Parts, at: number, indexes: IndexCache): Promise<number> {
  const { from, to } = memberRanges(await indexes.get(unit, parts))[at]!;
  return to - from;
}

interface Member {
  readonly name: string;
  readonly unit: string;
  readonly parts: Parts;
  /** Which tensor of the unit. */
  readonly at: number;
  readonly elements: number;
  readonly indexes: IndexCache;
  readonly tools: LayoutTools;
  readonly known?: DecodedRecord;
}

function lazyMember({ name, unit, parts, at, elements, indexes, tools, known }: Member): LazyTensor {
  const shape = known?.shape ?? [elements];
  return {
    name,
    dtype: "BF16",
    shape,
    byteLength: 2 * elements,
    ...(known === undefined && { shapeless: true }),
    async read() {
      const index = await indexes.get(unit, parts);
      const range = memberRanges(index)[at];
      if (range === undefined || range.to - range.from !== elements) {
        throw new FormatError(
          "format.field",
          `DFloat11 unit ${unit}: ${name} has ${range === undefined ? 0 : range.to - range.from} elements in the unit, ${elements} were expected`,
          { unit, tensor: name },
        );
      }
      const bytes = await (tools.decodeDfloat11 ?? decodeWhole)(index, range, (suffix, from, to) =>
        readBytes(parts.get(suffix)!, from, to),
      );
      if (known !== undefined) checkHash(unit, name, bytes, known);
      return { dtype: "BF16", shape, bytes };
    },
  };
}

/** Bytes [from, to) of a stored tensor. */
async function readBytes(tensor: LazyTensor, from: number, to: number): Promise<Uint8Array> {
  if (tensor.location === undefined) return (await tensor.read()).bytes.subarray(from, to);
  const source = await openFileSource(tensor.location.path);
  try {
    return await source.read(tensor.location.offset + from, to - from);
  } finally {
    await source.close();
  }
}

/** Without kernels: the whole unit by the definition. */
const decodeWhole: NonNullable<LayoutTools["decodeDfloat11"]> = async (index, { from, to }, read) => {
  const encodedExponent = await read("encoded_exponent", 0, index.encodedExponent.length);
  const signMantissa = await read("sign_mantissa", 0, index.signMantissa.length);
  const patterns = decodeUnit(index.name, { ...index, encodedExponent, signMantissa }).subarray(from, to);
  const out = new DataView(new ArrayBuffer(2 * patterns.length));
  patterns.forEach((pattern, i) => out.setUint16(2 * i, pattern, true));
  return new Uint8Array(out.buffer);
};
