/**
 * Writes a compact file from a safetensors file, one tensor (or a few) in memory at a time.
 * Same tensors, same level, same bytes.
 * @module
 */
import { createHash } from "node:crypto";
import { byteLength } from "../../../core/dtype.ts";
import { InputError } from "../../../core/errors.ts";
import type { LazyTensor, Tensor } from "../../../core/tensor.ts";
import type { CompactLevel } from "../../encodings/compact/block.ts";
import { definition, type BlockCoder } from "../../encodings/compact/coder.ts";
import { encodePayload } from "../../encodings/compact/payload.ts";
import { replaceFile, writeFully } from "../atomic.ts";
import type { ByteSource } from "../container.ts";
import { openSafetensors, PREFIX_BYTES } from "../safetensors/read.ts";
import { layoutSafetensors } from "../safetensors/write.ts";
import { encodeDirectory, encodePrefix, type DirectoryEntry } from "./directory.ts";

/** A safetensors file to be written: its header as it is, and its tensors in the order of their data. */
export interface CompactSource {
  /** Length prefix and header: everything before the first tensor. */
  readonly header: Uint8Array;
  readonly tensors: readonly LazyTensor[];
}

export interface CompactWriteOptions {
  readonly level: CompactLevel;
  /** How a tensor becomes its payload; the definition in this thread when absent. Workers may do it. */
  readonly encode?: (name: string, tensor: Tensor, level: CompactLevel) => Promise<readonly Uint8Array[]>;
  /** Tensors read and encoded at a time, 1 when absent: memory is theirs. */
  readonly ahead?: number;
  readonly onTensor?: (facts: { readonly name: string; readonly bytes: number; readonly storedBytes: number }) => void;
}

/** Encodes with `coder` in this thread. */
export function encodeWith(coder: BlockCoder): NonNullable<CompactWriteOptions["encode"]> {
  return async (_, { dtype, shape, bytes }, level) => encodePayload(dtype, shape, bytes, level, coder);
}

/** A source from tensors that are in no file: laid out as the safetensors writer would. */
export function compactSource(tensors: readonly LazyTensor[], metadata?: Readonly<Record<string, string>>): CompactSource {
  const { header, order } = layoutSafetensors(tensors, metadata);
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  return { header, tensors: order.map(({ name }) => byName.get(name)!) };
}

/** A source from an open safetensors file, header and all: the file comes back byte for byte. */
export async function compactSourceOf(source: ByteSource): Promise<CompactSource> {
  const { tensors } = await openSafetensors(source);
  const prefix = await source.read(0, PREFIX_BYTES);
  const headerBytes = Number(new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true));
  return { header: await source.read(0, PREFIX_BYTES + headerBytes), tensors: [...tensors.values()] };
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
    size = await writeParts(source, options, (bytes) => writeFully(handle, bytes));
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

interface Ready {
  readonly name: string;
  readonly key: string;
  readonly bytes: number;
  readonly sha256: Uint8Array;
  readonly pieces: readonly Uint8Array[];
}

async function writeParts(
  { header, tensors }: CompactSource,
  { level, encode = encodeWith(definition), ahead = 1, onTensor }: CompactWriteOptions,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<number> {
  const entries: DirectoryEntry[] = [];
  const seen = new Map<string, number>();
  // Keys of tensors that are being encoded or were: a copy is not encoded again.
  const started = new Set<string>();
  let at = 0;
  let fileBytes = header.length;
  const put = async (bytes: Uint8Array): Promise<void> => {
    await write(bytes);
    at += bytes.length;
  };
  const prepare = async (lazy: LazyTensor): Promise<Ready> => {
    const { name } = lazy;
    const tensor = await lazy.read();
    const { dtype, shape, bytes } = tensor;
    if (bytes.length !== byteLength(dtype, shape)) {
      throw new InputError(
        "input.shape",
        `${name}: ${dtype} ${JSON.stringify(shape)} takes ${byteLength(dtype, shape)} bytes, got ${bytes.length}`,
        {
          name,
        },
      );
    }
    const sha256 = createHash("sha256").update(bytes).digest();
    // A copy must have the same view, since payloads depend on it.
    const key = `${dtype} ${shape.join(",")} ${sha256.toString("hex")}`;
    const isCopy = started.has(key);
    started.add(key);
    return { name, key, bytes: bytes.length, sha256, pieces: isCopy ? [] : await encode(name, tensor, level) };
  };
  await put(encodePrefix());
  const running: Promise<Ready>[] = [];
  let next = 0;
  try {
    while (entries.length < tensors.length) {
      while (next < tensors.length && running.length < Math.max(1, ahead)) running.push(prepare(tensors[next++]!));
      const { name, key, bytes, sha256, pieces } = await running[0]!;
      void running.shift();
      const sameAs = seen.get(key);
      const from = at;
      if (sameAs === undefined) {
        seen.set(key, entries.length);
        for (const piece of pieces) await put(piece);
      }
      entries.push({ ...(sameAs === undefined ? {} : { sameAs }), payloadBytes: at - from, sha256 });
      fileBytes += bytes;
      onTensor?.({ name, bytes, storedBytes: at - from });
    }
  } finally {
    await Promise.allSettled(running);
  }
  await put(encodeDirectory({ fileBytes, header, entries }, at));
  return at;
}
