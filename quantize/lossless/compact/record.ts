/**
 * `bitwright.json` of a compact artifact. Compact files check themselves, so it only names the files and says what the others hash to:
 * every byte of it counts as a byte of the artifact.
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { FormatError, InputError } from "../../../core/errors.ts";
import { version } from "../../../core/version.ts";
import { readSmallFile } from "../../../formats/containers/bytes.ts";
import { COMPACT_EXTENSION } from "../../../formats/containers/compact/open.ts";
import { isObject, parseJsonObject } from "../../../formats/containers/json.ts";
import type { CompactLevel } from "../../../formats/encodings/compact/block.ts";

const RECORD_FILE = "bitwright.json";
const MAX_BYTES = 2 ** 28;

export interface CompactRecord {
  /** Release of this tool that wrote it. */
  readonly version: string;
  readonly level: CompactLevel;
  /** Compact files, relative to the artifact, with "/". */
  readonly weights: readonly string[];
  /** SHA-256 (base64url) of every other file, as in the source. */
  readonly files: Readonly<Record<string, string>>;
  /** Decoders that were put beside the weights; `restore` leaves them out. */
  readonly kernels?: readonly string[];
  /** The source's own `bitwright.json`, deflated, in base64. */
  readonly original?: string;
  /** Set when weights were rounded: `restore` then gives the rounded model. */
  readonly cast?: "bf16";
}

/** One line of JSON. */
export function encodeRecord(record: Omit<CompactRecord, "version">): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify({ tool: "bitwright", version: version(), format: "compact", ...record })}\n`);
}

/** SHA-256 as the record keeps it. */
export function shortHash(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("base64url");
}

/**
 * @returns undefined when the directory has no such file, or it is of another kind of artifact.
 * @throws {FormatError} `format.field`, `format.path` when it is one and broken.
 */
export async function readCompactRecord(directory: string): Promise<CompactRecord | undefined> {
  const path = join(directory, RECORD_FILE);
  const bytes = await readSmallFile(path, MAX_BYTES).catch((error: unknown) => {
    if (error instanceof InputError) return undefined;
    throw error;
  });
  if (bytes === undefined) return undefined;
  const parsed = parseJsonObject(bytes, { name: RECORD_FILE, maxDepth: 64, code: "format.field", duplicates: "last" });
  if (parsed["tool"] !== "bitwright" || parsed["format"] !== "compact") return undefined;
  const fail = (what: string): FormatError =>
    new FormatError("format.field", `${path} is not what this tool writes: ${what}`, { directory, field: what });
  const { version: release, level, weights, files, kernels, original, cast } = parsed;
  if (typeof release !== "string") throw fail("version");
  if (level !== "max" && level !== "fast") throw fail("level");
  const isList = Array.isArray(weights) && weights.length > 0;
  if (!isList || !weights.every((name) => typeof name === "string" && name.endsWith(COMPACT_EXTENSION))) throw fail("weights");
  if (!isObject(files) || !Object.values(files).every((hash) => typeof hash === "string")) throw fail("files");
  const isNames = Array.isArray(kernels) && kernels.every((name) => typeof name === "string");
  if (kernels !== undefined && !isNames) throw fail("kernels");
  if (original !== undefined && typeof original !== "string") throw fail("original");
  if (cast !== undefined && cast !== "bf16") throw fail("cast");
  const decoders = kernels ?? [];
  const names = [...(weights as string[]), ...Object.keys(files), ...decoders];
  const outside = names.find((name) => !isBelow(name));
  if (outside !== undefined)
    throw new FormatError("format.path", `${path} names a file outside its directory: ${outside}`, { file: outside });
  if (new Set(names).size !== names.length) throw fail("a file is named twice");
  return {
    version: release,
    level,
    weights: weights as string[],
    files: files as Record<string, string>,
    ...(decoders.length > 0 && { kernels: decoders }),
    ...(original !== undefined && { original }),
    ...(cast !== undefined && { cast }),
  };
}

/** Files that a compact artifact in `directory` consists of, but for the record; undefined when there is none that can be read. */
export async function compactFiles(directory: string): Promise<readonly string[] | undefined> {
  const record = await readCompactRecord(directory).catch(() => undefined);
  return record === undefined ? undefined : [...record.weights, ...Object.keys(record.files), ...(record.kernels ?? [])];
}

/** Name of the safetensors file that a compact file stands for. */
export function sourceName(weights: string): string {
  return weights.slice(0, -COMPACT_EXTENSION.length);
}

function isBelow(name: string): boolean {
  const parts = name.split("/");
  return name.length <= 1024 && !/[\\:\0]/.test(name) && parts.every((part) => part !== "" && part !== "." && part !== "..");
}
