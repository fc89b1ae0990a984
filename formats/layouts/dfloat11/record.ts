/**
 * The part of `bitwright.json` that a reader of a DFloat11 directory wants: shapes, order and checksums of the decoded tensors.
 * Official artifacts have no such file, and then none of this is known.
 * @module
 */
import { join } from "node:path";
import { isDType, type DType } from "../../../core/dtype.ts";
import { InputError } from "../../../core/errors.ts";
import { readSmallFile } from "../../containers/bytes.ts";
import { isObject, parseJsonObject } from "../../containers/json.ts";

const MANIFEST = "bitwright.json";
const MAX_BYTES = 2 ** 28;

/** One decoded tensor. */
export interface DecodedRecord {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly sha256: string;
}

/** What the manifest says of one folder of weights. */
export interface DirectoryRecord {
  /** By tensor name, in the order of the source. */
  readonly tensors: ReadonlyMap<string, DecodedRecord>;
  /** Tensors of each unit in stream order, by module path. */
  readonly units: ReadonlyMap<string, readonly string[]>;
}

/**
 * @param prefix - folder below `directory` whose weights are meant: "" or e.g. "transformer/".
 * @returns undefined when there is no manifest, or it is not of a lossless artifact.
 * @throws {FormatError} `format.field` when it is there and broken.
 */
export async function readDirectoryRecord(directory: string, prefix = ""): Promise<DirectoryRecord | undefined> {
  const bytes = await readSmallFile(join(directory, MANIFEST), MAX_BYTES).catch((error: unknown) => {
    if (error instanceof InputError) return undefined;
    throw error;
  });
  if (bytes === undefined) return undefined;
  const parsed = parseJsonObject(bytes, { name: MANIFEST, maxDepth: 64, code: "format.field", duplicates: "last" });
  const lossless = parsed["lossless"];
  const components = isObject(lossless) ? lossless["components"] : undefined;
  const found = Array.isArray(components)
    ? (components as unknown[]).find((item) => isObject(item) && item["prefix"] === prefix)
    : undefined;
  if (!isObject(found) || !isObject(found["tensors"]) || !Array.isArray(found["units"])) return undefined;
  const tensors = new Map<string, DecodedRecord>();
  for (const [name, entry] of Object.entries(found["tensors"])) {
    if (!isObject(entry)) continue;
    const { dtype, shape, sha256 } = entry;
    const isShape = Array.isArray(shape) && (shape as unknown[]).every((size) => Number.isSafeInteger(size) && (size as number) >= 0);
    if (typeof dtype === "string" && isDType(dtype) && isShape && typeof sha256 === "string")
      tensors.set(name, { dtype, shape: shape as number[], sha256 });
  }
  const units = new Map<string, readonly string[]>();
  for (const unit of found["units"] as unknown[]) {
    if (!isObject(unit) || typeof unit["name"] !== "string" || !Array.isArray(unit["tensors"])) continue;
    units.set(
      unit["name"],
      (unit["tensors"] as unknown[]).filter((name) => typeof name === "string"),
    );
  }
  return { tensors, units };
}
