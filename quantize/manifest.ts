/**
 * `bitwright.json`: what an artifact is, where it came from, and a hash of every tensor and file.
 * @module
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import type { DType } from "../core/dtype.ts";
import { FormatError } from "../core/errors.ts";
import { readSmallFile } from "../formats/containers/bytes.ts";
import { isObject, parseJsonObject } from "../formats/containers/json.ts";
import type { FoldRecords } from "./fold-records.ts";
import { manifestProblem } from "./manifest-check.ts";
import type { Plan, SiteReport } from "./types.ts";

export const MANIFEST_FILE = "bitwright.json";
const MAX_MANIFEST_BYTES = 2 ** 28;

/** One stored tensor. */
export interface ManifestTensor {
  readonly file: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Of the tensor's bytes, hex. */
  readonly sha256: string;
  /** Source tensor it stands for, when the bytes are not simply those of the source. */
  readonly from?: string;
}

export interface Manifest extends FoldRecords {
  readonly tool: "bitwright";
  readonly version: string;
  /** Name of the export that wrote it. */
  readonly format: string;
  readonly plan: Plan;
  /** `sqnr` null: exact. */
  readonly sites: readonly (Omit<SiteReport, "sqnr"> & { readonly sqnr: number | null })[];
  readonly tensors: Readonly<Record<string, ManifestTensor>>;
  /** Every other file of the artifact but this one, with its hash. */
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

/** Read the manifest of an artifact. @throws {FormatError} `format.missing` when there is none, `format.field` when it is not one. */
export async function readManifest(directory: string): Promise<Manifest> {
  const path = join(directory, MANIFEST_FILE);
  const bytes = await readSmallFile(path, MAX_MANIFEST_BYTES).catch((cause: unknown) => {
    throw new FormatError(
      "format.missing",
      `${directory} has no ${MANIFEST_FILE}: it is not a finished artifact of this tool`,
      { directory },
      { cause },
    );
  });
  const parsed = parseJsonObject(bytes, { name: MANIFEST_FILE, maxDepth: 64, code: "format.field", duplicates: "last" });
  const { tool, tensors, files, plan } = parsed;
  if (tool !== "bitwright" || !isObject(tensors) || !isObject(files) || !isObject(plan)) {
    throw new FormatError("format.field", `${path} is not a manifest of this tool (tool, plan, tensors and files are wanted)`, {
      directory,
    });
  }
  for (const [name, entry] of Object.entries(tensors)) {
    if (!isObject(entry) || typeof entry["file"] !== "string" || typeof entry["sha256"] !== "string")
      throw new FormatError("format.field", `${path}: tensor ${name} has no file or sha256`, { directory, tensor: name });
    checkFileName(entry["file"], path);
  }
  for (const name of Object.keys(files)) checkFileName(name, path);
  const problem = manifestProblem(parsed);
  if (problem !== undefined) throw new FormatError("format.field", `${path} is not what this tool writes: ${problem}`, { directory });
  return parsed as unknown as Manifest;
}

/** Every file that a manifest names but itself. */
export function listedFiles(manifest: Manifest): readonly string[] {
  const shards = (manifest as { readonly lossless?: { readonly shards?: unknown } }).lossless?.shards;
  const weights = isObject(shards) ? Object.keys(shards).filter(isBelow) : [];
  return [...new Set([...Object.keys(manifest.files), ...Object.values(manifest.tensors).map(({ file }) => file), ...weights])];
}

/** Whether a relative path with "/" stays below its directory. */
function isBelow(name: string): boolean {
  return !name.includes("\\") && !name.includes("\0") && name.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

/** A manifest names files beside or below it. */
function checkFileName(name: string, path: string): void {
  if (!isBelow(name)) throw new FormatError("format.path", `${path} names a file outside its directory: ${name}`, { file: name });
}

/** sha256 of a whole file, hex. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** sha256 of bytes, hex. */
export function hashBytes(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** JSON with object keys sorted, so that equal values have equal text. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) =>
    isObject(item) ? Object.fromEntries(Object.entries(item).toSorted(([a], [b]) => (a < b ? -1 : 1))) : item,
  );
}
