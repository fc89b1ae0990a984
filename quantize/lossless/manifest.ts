/**
 * What `bitwright.json` keeps of a lossless artifact: enough to check every decoded byte and to give the source files back.
 * @module
 */
import { deflateSync, inflateSync } from "node:zlib";
import { isDType, type DType } from "../../core/dtype.ts";
import { FormatError } from "../../core/errors.ts";
import { MAX_HEADER_BYTES } from "../../formats/containers/safetensors/read.ts";
import { isObject } from "../../formats/containers/json.ts";
import { MANIFEST_FILE, readManifest, type Manifest } from "../manifest.ts";

/** A unit: its weights in stream order. */
export interface UnitRecord {
  readonly name: string;
  readonly tensors: readonly string[];
}

export interface TensorRecord {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Of the decoded bytes, hex. */
  readonly sha256: string;
}

/** One folder of weights. */
export interface ComponentRecord {
  /** "" or e.g. "transformer/". */
  readonly prefix: string;
  readonly codec: string;
  readonly units: readonly UnitRecord[];
  readonly tensors: Readonly<Record<string, TensorRecord>>;
  /** Weight files of the source, whose header is `packed` as it was. */
  readonly sources: readonly { readonly name: string; readonly bytes: number; readonly header: string }[];
}

export interface LosslessRecord {
  readonly version: 1;
  readonly components: readonly ComponentRecord[];
  /** Weight files of the artifact and their sizes. */
  readonly shards: Readonly<Record<string, number>>;
  /** Source files that the artifact has in another form or not at all, `packed`. */
  readonly originals: Readonly<Record<string, string>>;
  /** Files that the tool added: decoders. */
  readonly emitted?: readonly string[];
  /** Set when weights were rounded: `restore` then gives the rounded model. */
  readonly cast?: "bf16";
}

export interface LosslessManifest extends Manifest {
  readonly lossless: LosslessRecord;
}

/** Bytes as text for the manifest: deflate, then base64. */
export function pack(bytes: Uint8Array): string {
  return deflateSync(bytes, { level: 9 }).toString("base64");
}

/** @throws {FormatError} `format.field` / `format.limit` when it does not unpack. */
export function unpack(text: string, name: string): Uint8Array {
  try {
    return new Uint8Array(inflateSync(Buffer.from(text, "base64"), { maxOutputLength: MAX_HEADER_BYTES + 8 }));
  } catch (cause) {
    throw new FormatError("format.field", `${MANIFEST_FILE}: what is kept of ${name} does not unpack`, { name }, { cause });
  }
}

/** The manifest's lossless part; undefined for other artifacts. @throws {FormatError} `format.field` naming what is wrong. */
export function losslessPart(manifest: Manifest): LosslessRecord | undefined {
  const record = (manifest as Partial<LosslessManifest>).lossless as unknown;
  if (record === undefined) return undefined;
  const fail = (what: string): FormatError =>
    new FormatError("format.field", `${MANIFEST_FILE}: lossless.${what} is not what this tool writes`, { field: what });
  if (!isObject(record) || record["version"] !== 1) throw fail("version");
  const { components, shards, originals } = record;
  if (!Array.isArray(components) || !isObject(shards) || !isObject(originals)) throw fail("components, shards or originals");
  for (const [name, size] of Object.entries(shards)) if (!isSafePath(name) || !isSize(size)) throw fail(`shards ${name}`);
  for (const [name, text] of Object.entries(originals)) if (!isSafePath(name) || typeof text !== "string") throw fail(`originals ${name}`);
  for (const component of components) checkComponent(component, fail);
  return record as unknown as LosslessRecord;
}

function checkComponent(component: unknown, fail: (what: string) => FormatError): void {
  if (!isObject(component)) throw fail("components");
  const { prefix, codec, units, tensors, sources } = component;
  if (typeof prefix !== "string" || (prefix !== "" && (!prefix.endsWith("/") || !isSafePath(prefix.slice(0, -1))))) throw fail("prefix");
  if (typeof codec !== "string" || !Array.isArray(units) || !isObject(tensors) || !Array.isArray(sources))
    throw fail(`components ${prefix}`);
  for (const [name, tensor] of Object.entries(tensors)) {
    if (!isObject(tensor) || typeof tensor["dtype"] !== "string" || !isDType(tensor["dtype"]) || typeof tensor["sha256"] !== "string")
      throw fail(`tensors ${name}`);
    const { shape } = tensor;
    if (!Array.isArray(shape) || !shape.every(isSize)) throw fail(`tensors ${name}`);
  }
  const owned = new Set<string>();
  for (const unit of units as unknown[]) {
    if (!isObject(unit) || typeof unit["name"] !== "string" || !Array.isArray(unit["tensors"])) throw fail("units");
    for (const name of unit["tensors"] as unknown[]) {
      if (typeof name !== "string" || !Object.hasOwn(tensors, name) || owned.has(name)) throw fail(`units ${unit["name"]}`);
      owned.add(name);
    }
  }
  for (const source of sources as unknown[]) {
    if (!isObject(source) || typeof source["name"] !== "string" || !isSafePath(source["name"])) throw fail("sources");
    if (!isSize(source["bytes"]) || typeof source["header"] !== "string") throw fail(`sources ${source["name"]}`);
  }
}

const isSize = (value: unknown): value is number => typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

/** A relative path that stays below its directory. */
export function isSafePath(name: string): boolean {
  return (
    name.length <= 1024 &&
    !name.includes("\\") &&
    !name.includes("\0") &&
    name.split("/").every((part) => part !== "" && part !== "." && part !== "..")
  );
}

/** @throws {FormatError} `format.missing` for an artifact that is not lossless. */
export async function readLosslessManifest(directory: string): Promise<LosslessManifest> {
  const manifest = await readManifest(directory);
  if (losslessPart(manifest) === undefined) {
    throw new FormatError(
      "format.missing",
      `${directory} is not a lossless artifact (${manifest.format}): its weights were quantized, so the source cannot be restored`,
      { directory },
    );
  }
  return manifest as LosslessManifest;
}
