/**
 * Writes a compact file from a safetensors file, a few ranges of tensors in memory at a time.
 * Same tensors, same level, same bytes.
 * @module
 */
import type { LazyTensor } from "../../../core/tensor.ts";
import type { CompactLevel } from "../../encodings/compact/block.ts";
import { definition } from "../../encodings/compact/coder.ts";
import { replaceFile, writeFully } from "../atomic.ts";
import type { ByteSource } from "../container.ts";
import { openSafetensors, PREFIX_BYTES } from "../safetensors/read.ts";
import { layoutSafetensors } from "../safetensors/write.ts";
import { encodeDirectory, encodePrefix, type DirectoryEntry } from "./directory.ts";
import { encodeWith, type RangeEncoder } from "./encoder.ts";
import { createPipeline } from "./pipeline.ts";

/** Written bytes that are synced while the next ones are made: what is left for the end then takes no time. */
const SYNC_BYTES = 2 ** 27;

/** A safetensors file to be written: its header as it is, and its tensors in the order of their data. */
export interface CompactSource {
  /** Length prefix and header: everything before the first tensor. */
  readonly header: Uint8Array;
  readonly tensors: readonly RangedTensor[];
}

/** A tensor that can be read piece by piece. */
export interface RangedTensor extends LazyTensor {
  /** Fills `out`, which may lie in shared memory, with the bytes from `offset` on. */
  readonly readInto?: (offset: number, out: Uint8Array) => Promise<void>;
}

export interface CompactWriteOptions {
  readonly level: CompactLevel;
  /** The definition in this thread when absent. Workers may do it. */
  readonly encoder?: RangeEncoder;
  /** Ranges read and encoded at a time, 1 when absent: memory is theirs, 8 MiB each. */
  readonly ahead?: number;
  readonly onTensor?: (facts: { readonly name: string; readonly bytes: number; readonly storedBytes: number }) => void;
}

/** A source from tensors that are in no file: laid out as the safetensors writer would. */
export function compactSource(tensors: readonly RangedTensor[], metadata?: Readonly<Record<string, string>>): CompactSource {
  const { header, order } = layoutSafetensors(tensors, metadata);
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  return { header, tensors: order.map(({ name }) => byName.get(name)!) };
}

/** A source from an open safetensors file, header and all: the file comes back byte for byte. */
export async function compactSourceOf(source: ByteSource): Promise<CompactSource> {
  const { tensors } = await openSafetensors(source);
  const prefix = await source.read(0, PREFIX_BYTES);
  const headerBytes = Number(new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true));
  const ranged = [...tensors.values()].map((tensor): RangedTensor => {
    const { location } = tensor;
    return location?.path === source.path && location !== undefined
      ? { ...tensor, readInto: (offset, out) => source.readInto(location.offset + offset, out) }
      : tensor;
  });
  return { header: await source.read(0, PREFIX_BYTES + headerBytes), tensors: ranged };
}

/**
 * Write a compact file atomically.
 *
 * @returns bytes of the file.
 * @throws {InputError} `input.shape` when a tensor's bytes do not fill its shape.
 */
export async function writeCompact(path: string, source: CompactSource, options: CompactWriteOptions): Promise<number> {
  let size = 0;
  await replaceFile(path, async (handle) => {
    let unsynced = 0;
    let syncing: Promise<void> | undefined;
    let failure: { readonly error: unknown } | undefined;
    try {
      size = await writeParts(source, options, async (bytes) => {
        if (failure !== undefined) throw failure.error;
        await writeFully(handle, bytes);
        unsynced += bytes.length;
        if (unsynced < SYNC_BYTES || syncing !== undefined) return;
        unsynced = 0;
        syncing = handle
          .datasync()
          .catch((error: unknown) => void (failure = { error }))
          .finally(() => (syncing = undefined));
      });
    } finally {
      await syncing;
    }
    if (failure !== undefined) throw failure.error;
  });
  return size;
}

/** The whole file in memory. */
export async function encodeCompact(source: CompactSource, options: CompactWriteOptions): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  const size = await writeParts(source, options, async (bytes) => void parts.push(bytes));
  const out = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

async function writeParts(
  { header, tensors }: CompactSource,
  { level, encoder = encodeWith(definition), ahead = 1, onTensor }: CompactWriteOptions,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<number> {
  const entries: DirectoryEntry[] = [];
  let at = 0;
  let fileBytes = header.length;
  const put = async (bytes: Uint8Array): Promise<void> => {
    await write(bytes);
    at += bytes.length;
  };
  await put(encodePrefix());
  const pipeline = createPipeline(tensors, level, encoder, Math.max(1, ahead));
  try {
    for (const lazy of tensors) {
      const from = at;
      const { sameAs, sha256 } = await pipeline.next(put);
      entries.push({ ...(sameAs === undefined ? {} : { sameAs }), payloadBytes: at - from, sha256 });
      fileBytes += lazy.byteLength;
      onTensor?.({ name: lazy.name, bytes: lazy.byteLength, storedBytes: at - from });
    }
  } finally {
    await pipeline.close();
  }
  await put(encodeDirectory({ fileBytes, header, entries }, at));
  return at;
}
