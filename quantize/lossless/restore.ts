/**
 * Restore: a lossless artifact back to the files it was made from, byte for byte.
 * @module
 */
import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { FormatError } from "../../core/errors.ts";
import { replaceFile, syncDirectory, writeFully } from "../../formats/containers/atomic.ts";
import type { ByteSource } from "../../formats/containers/container.ts";
import { openSafetensors, PREFIX_BYTES } from "../../formats/containers/safetensors/read.ts";
import { hashBytes } from "../manifest.ts";
import { PARTIAL } from "../output-directory.ts";
import type { ProgressEvent } from "../types.ts";
import { claimEmpty } from "./claim.ts";
import { readCompactRecord } from "./compact/record.ts";
import { restoreCompact } from "./compact/restore.ts";
import { followFiles, type FollowingHashes } from "./following-hash.ts";
import type { Place } from "./job.ts";
import { decodeLarge, partition, tellWritten } from "./large-unit.ts";
import { losslessPart, readLosslessManifest, unpack, type ComponentRecord, type LosslessRecord } from "./manifest.ts";
import { createLosslessPool } from "./prepare.ts";
import { decodeWork, openStored, type DecodeWork } from "./stored.ts";
import { THREADED_BYTES } from "./verify.ts";

export interface RestoreOptions {
  /** Directory to write; absent or empty. */
  readonly out: string;
  readonly workers?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

export interface RestoreReport {
  readonly directory: string;
  /** Weight files with the sha256 of the whole file, as a hub lists them. */
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly sha256: string }[];
  /** Other files, copied or unpacked. */
  readonly others: readonly string[];
  readonly bytes: number;
  readonly seconds: number;
  readonly peakMemoryBytes: number;
  readonly notes: readonly string[];
}

/**
 * Write the source files of an artifact: same names, same bytes, headers included. Every tensor is compared with the checksum taken from
 * the source before any file gets its name; on an error nothing is left behind.
 *
 * @throws {FormatError} `format.checksum` naming the unit that is damaged, `format.missing`, `format.field`, `format.truncated`;
 *   {InputError} `input.output-exists` when `out` is not empty; {InterruptedError}.
 */
export async function restore(artifact: string, options: RestoreOptions): Promise<RestoreReport> {
  const started = performance.now();
  const compact = await readCompactRecord(artifact);
  if (compact !== undefined) {
    const restored = await restoreCompact(artifact, compact, options);
    return {
      directory: options.out,
      ...restored,
      bytes: restored.files.reduce((sum, { bytes }) => sum + bytes, 0),
      seconds: (performance.now() - started) / 1000,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
    };
  }
  const manifest = await readLosslessManifest(artifact);
  const record = losslessPart(manifest)!;
  const { out } = options;
  const isNew = await claimEmpty(artifact, out);
  const files = record.components.flatMap((component) => component.sources);
  const others = [
    ...Object.keys(manifest.files).filter((name) => !Object.hasOwn(record.originals, name) && !isWritten(name, record)),
    ...Object.keys(record.originals),
  ];
  const written: string[] = [];
  const hashes = followFiles();
  const total = Object.values(record.shards).reduce((sum, size) => sum + size, 0);
  const pool = createLosslessPool(total < THREADED_BYTES ? 0 : (options.workers ?? 2));
  try {
    let done = 0;
    for (const component of record.components) {
      const places = await prepareFiles(component, out, written, hashes);
      const stored = await openStored(artifact, component, record);
      const work = decodeWork(component, stored, (tensor) => places.get(tensor));
      const tell = ({ bytes }: DecodeWork): void => options.onProgress?.({ phase: "write", done: (done += bytes), total, unit: "bytes" });
      const { large, rest } = partition(work, pool.workers);
      for (const item of large) {
        await decodeLarge(item, pool, { ...(options.signal && { signal: options.signal }), onWritten: hashes.wrote });
        tell(item);
      }
      await pool.map(
        rest.map(({ task }) => task),
        {
          ...(options.signal && { signal: options.signal }),
          onResult(_result, i) {
            tellWritten(rest[i]!, hashes.wrote);
            tell(rest[i]!);
          },
        },
      );
    }
    for (const name of others) await writeOther(artifact, out, name, manifest, record.originals, written);
    const hashed = [];
    for (const { name, bytes } of files) hashed.push({ name, bytes, sha256: await hashes.digest(join(out, name + PARTIAL)) });
    for (const name of written) await rename(join(out, name + PARTIAL), join(out, name));
    await syncDirectory(out);
    return {
      directory: out,
      files: hashed,
      others,
      bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
      seconds: (performance.now() - started) / 1000,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      notes:
        record.cast === undefined
          ? []
          : ["the weights were rounded to bf16 when the artifact was made (--cast bf16): this is the rounded model, not the source"],
    };
  } catch (error) {
    // The pool's other tasks have ended: `map` stops them before it throws.
    await pool.close();
    await hashes.close();
    for (const name of written) await rm(join(out, name + PARTIAL), { force: true });
    if (isNew) await rm(out, { recursive: true, force: true });
    throw error;
  } finally {
    await pool.close();
  }
}

/** Decoders, and a config.json that the writer made where the source had none. */
function isWritten(name: string, { components, emitted = [] }: LosslessRecord): boolean {
  return emitted.includes(name) || components.some(({ prefix }) => name === `${prefix}config.json`);
}

/** Weight files at full length with their headers, and where each tensor goes. */
async function prepareFiles(
  { sources, tensors }: ComponentRecord,
  out: string,
  written: string[],
  hashes: FollowingHashes,
): Promise<ReadonlyMap<string, Place>> {
  const places = new Map<string, Place>();
  for (const { name, bytes, header } of sources) {
    const head = unpack(header, name);
    const file = await openSafetensors(headerSource(name, head, bytes));
    for (const { name: tensor, dtype, shape, location } of file.tensors.values()) {
      const known = Object.hasOwn(tensors, tensor) ? tensors[tensor] : undefined;
      if (known?.dtype !== dtype || known.shape.join() !== shape.join()) {
        throw new FormatError("format.field", `the manifest's header of ${name} and its tensor list disagree on ${tensor}`, {
          tensor,
          file: name,
        });
      }
      places.set(tensor, { path: join(out, name + PARTIAL), offset: location!.offset });
    }
    await mkdir(dirname(join(out, name)), { recursive: true });
    written.push(name);
    const handle = await open(join(out, name + PARTIAL), "w");
    try {
      await writeFully(handle, head);
      await handle.truncate(bytes);
    } finally {
      await handle.close();
    }
    hashes.add(join(out, name + PARTIAL), bytes, head.length);
  }
  const lost = Object.keys(tensors).find((name) => !places.has(name));
  if (lost !== undefined) throw new FormatError("format.field", `the manifest's headers do not name ${lost}`, { tensor: lost });
  return places;
}

/** A file of which only the header is there. */
function headerSource(name: string, header: Uint8Array, size: number): ByteSource {
  if (header.length < PREFIX_BYTES || header.length > size)
    throw new FormatError("format.field", `the manifest's header of ${name} has ${header.length} bytes, the file ${size}`, { file: name });
  const slice = (offset: number, length: number): Uint8Array => {
    if (offset + length > header.length)
      throw new FormatError("format.truncated", `the manifest's header of ${name} ends at byte ${header.length}`, { file: name });
    return header.slice(offset, offset + length);
  };
  return {
    name,
    path: name,
    size,
    read: async (offset, length) => slice(offset, length),
    readInto: async (offset, target) => target.set(slice(offset, target.length)),
    close: async () => {},
  };
}

async function writeOther(
  artifact: string,
  out: string,
  name: string,
  manifest: { readonly files: Readonly<Record<string, { readonly sha256: string }>> },
  originals: Readonly<Record<string, string>>,
  written: string[],
): Promise<void> {
  const packed = Object.hasOwn(originals, name) ? originals[name] : undefined;
  const content =
    packed === undefined
      ? new Uint8Array(await readFile(join(artifact, name)).catch((cause: unknown) => missing(name, cause)))
      : unpack(packed, name);
  if (packed === undefined && hashBytes(content) !== manifest.files[name]!.sha256) {
    throw new FormatError("format.checksum", `${name} has changed since the artifact was written (sha256)`, { file: name });
  }
  await mkdir(dirname(join(out, name)), { recursive: true });
  written.push(name);
  await replaceFile(join(out, name + PARTIAL), (handle) => writeFully(handle, content));
}

function missing(name: string, cause: unknown): never {
  throw new FormatError("format.missing", `the artifact lacks ${name}`, { file: name }, { cause });
}
