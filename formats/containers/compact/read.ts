/**
 * Compact files, read: the directory is loaded and checked, tensors and rows are decoded when asked for.
 *
 *   byte 0   magic, u32 version, four zero bytes
 *   byte 16  payloads of the tensors, one after the other (`formats/encodings/compact/payload.ts`)
 *   then     directory, deflated, and a footer of 32 bytes (`directory.ts`)
 *
 * Every element that is handed out was checked: by its block's checksum, and by SHA-256 when a whole tensor is read.
 * @module
 */
import { createHash } from "node:crypto";
import { byteLength } from "../../../core/dtype.ts";
import { FormatError, InputError } from "../../../core/errors.ts";
import type { LazyTensor, Tensor } from "../../../core/tensor.ts";
import { definition, type BlockCoder } from "../../encodings/compact/coder.ts";
import { decodeBlocks } from "../../encodings/compact/payload.ts";
import { parseTail, TAIL_BYTES, tailLength, type PayloadTail } from "../../encodings/compact/tail.ts";
import { memorySource } from "../bytes.ts";
import type { ByteSource, TensorFile } from "../container.ts";
import { openSafetensors } from "../safetensors/read.ts";
import { FOOTER_BYTES, MAGIC, parseDirectory, parseFooter, PREFIX_BYTES, type Directory } from "./directory.ts";

/** Decoded bytes at a time. */
const BATCH_BYTES = 8 * 2 ** 20;

export interface CompactFile extends TensorFile {
  /** First bytes of the safetensors file this one stands for: with the tensors' bytes in order, that file. */
  readonly header: Uint8Array;
  /** Bytes of that file. */
  readonly fileBytes: number;
  /** Rows `from` to `from + count` of the first dimension, reading and decoding no more blocks than hold them. */
  readRows(name: string, from: number, count: number): Promise<Tensor>;
  /**
   * The bytes of a tensor piece by piece, 8 MiB or one block at a time: memory does not grow with the tensor. A piece is overwritten by the next.
   *
   * @throws {FormatError} `format.checksum` at the end when they are not what was stored; what was seen before must then be thrown away.
   */
  readPieces(name: string): AsyncIterable<Uint8Array>;
  /** Decodes blocks `from` to `to` of a tensor to `out`, which has room for just these; checked by their own checksums only. */
  readBlocks(name: string, from: number, to: number, out: Uint8Array): Promise<void>;
  /** Where and how a tensor is stored. */
  stored(name: string): Promise<StoredTensor>;
}

export interface StoredTensor {
  readonly offset: number;
  readonly bytes: number;
  /** Name of the tensor that holds the bytes, for a copy. */
  readonly sameAs?: string;
  readonly sha256: Uint8Array;
  readonly tail: PayloadTail;
}

/** Whether a file starts as a compact file does. @param head - the first 16 bytes or more. */
export function isCompact(head: Uint8Array): boolean {
  return MAGIC.every((byte, i) => head[i] === byte);
}

/**
 * Open and check a compact file. The source is closed with the returned file.
 *
 * @param coder - what decodes blocks; the definition when absent.
 * @throws {FormatError} `format.magic`, `format.truncated`, `format.limit`, `format.field`, `format.overlap`, `format.checksum`,
 *   and what `openSafetensors` throws for the header held inside. Reading tensors: `format.field`, `format.checksum`.
 */
export async function openCompact(source: ByteSource, coder: BlockCoder = definition): Promise<CompactFile> {
  const directory = await readDirectory(source);
  const plain = await openHeader(source.name, directory);
  const { entries } = directory;
  if (plain.tensors.size !== entries.length) {
    throw new FormatError(
      "format.field",
      `${source.name}: its header names ${plain.tensors.size} tensors, the directory ${entries.length}`,
      {
        file: source.name,
      },
    );
  }
  const places = new Map<string, Place>();
  const order: Place[] = [];
  let at = PREFIX_BYTES;
  for (const [i, lazy] of [...plain.tensors.values()].entries()) {
    const { sameAs, payloadBytes, sha256 } = entries[i]!;
    const original = sameAs === undefined ? undefined : order[sameAs]!;
    if (original !== undefined && (original.lazy.dtype !== lazy.dtype || original.lazy.shape.join() !== lazy.shape.join())) {
      throw new FormatError("format.field", `${source.name}: tensor ${lazy.name} is no copy of ${original.lazy.name}`, {
        tensor: lazy.name,
      });
    }
    const place: Place = { lazy, sha256, offset: original?.offset ?? at, bytes: original?.bytes ?? payloadBytes, original };
    at += payloadBytes;
    order.push(place);
    places.set(lazy.name, place);
  }
  const reader = createReader(source, coder);
  const place = (name: string): Place => {
    const found = places.get(name);
    if (found === undefined) throw new InputError("input.value", `${source.name} has no tensor ${JSON.stringify(name)}`, { name });
    return found;
  };
  const tensors = new Map<string, LazyTensor>();
  for (const [name, found] of places) {
    const { dtype, shape, byteLength: bytes } = found.lazy;
    tensors.set(name, { name, dtype, shape, byteLength: bytes, read: () => reader.readTensor(found) });
  }
  return {
    tensors,
    metadata: plain.metadata,
    header: directory.header,
    fileBytes: directory.fileBytes,
    readRows: async (name, from, count) => await reader.readRows(place(name), from, count),
    readPieces: (name) => reader.readPieces(place(name)),
    readBlocks: async (name, from, to, out) => await reader.readBlocks(place(name), from, to, out),
    async stored(name) {
      const { offset, bytes, sha256, original } = place(name);
      const tail = await reader.tail(place(name));
      return { offset, bytes, sha256, tail, ...(original === undefined ? {} : { sameAs: original.lazy.name }) };
    },
    close: () => source.close(),
  };
}

interface Place {
  readonly lazy: LazyTensor;
  readonly sha256: Uint8Array;
  readonly offset: number;
  readonly bytes: number;
  readonly original: Place | undefined;
}

async function readDirectory(source: ByteSource): Promise<Directory> {
  const { name, size } = source;
  if (size < PREFIX_BYTES + FOOTER_BYTES) {
    throw new FormatError("format.truncated", `${name} has ${size} bytes; a compact file has at least ${PREFIX_BYTES + FOOTER_BYTES}`, {
      file: name,
      size,
    });
  }
  const prefix = await source.read(0, PREFIX_BYTES);
  const footer = parseFooter(name, size, prefix, await source.read(size - FOOTER_BYTES, FOOTER_BYTES));
  return parseDirectory(name, footer, await source.read(footer.offset, footer.packedBytes));
}

/** The header held inside, checked as that of a safetensors file of the size it had; its tensors in data order. */
async function openHeader(name: string, { header, fileBytes }: Directory): Promise<TensorFile> {
  const held = memorySource(`${name} (header)`, header);
  return await openSafetensors({ ...held, size: fileBytes });
}

interface Reader {
  tail(place: Place): Promise<PayloadTail>;
  readTensor(place: Place): Promise<Tensor>;
  readPieces(place: Place): AsyncIterable<Uint8Array>;
  readBlocks(place: Place, from: number, to: number, out: Uint8Array): Promise<void>;
  readRows(place: Place, from: number, count: number): Promise<Tensor>;
}

function createReader(source: ByteSource, coder: BlockCoder): Reader {
  // The last tensor's tail: rows are mostly asked for one tensor at a time.
  let last: { readonly offset: number; readonly tail: PayloadTail } | undefined;

  async function tail({ lazy, offset, bytes }: Place): Promise<PayloadTail> {
    if (last?.offset === offset) return last.tail;
    const { name, dtype, shape } = lazy;
    if (bytes < TAIL_BYTES) throw new FormatError("format.field", `tensor ${name}: ${bytes} bytes hold no tensor`, { tensor: name });
    const length = tailLength(name, await source.read(offset + bytes - TAIL_BYTES, TAIL_BYTES), bytes);
    const parsed = parseTail(name, dtype, shape, await source.read(offset + bytes - length, length), bytes);
    last = { offset, tail: parsed };
    return parsed;
  }

  /** Blocks `from` to `to`, in batches; each batch is decoded to what `place` gives for its bytes. */
  async function read(
    { lazy, offset }: Place,
    parsed: PayloadTail,
    from: number,
    to: number,
    target: (begin: number, end: number) => Uint8Array,
    onBatch?: (part: Uint8Array) => Promise<void> | void,
  ): Promise<void> {
    const { starts, unitBytes } = parsed;
    const decodedAt = (b: number): number => Math.min(b * unitBytes, lazy.byteLength);
    const most = Math.max(1, Math.floor(BATCH_BYTES / unitBytes));
    for (let first = from; first < to;) {
      const next = Math.min(first + most, to);
      const bytes = await source.read(offset + starts[first]!, starts[next]! - starts[first]!);
      const part = target(decodedAt(first), decodedAt(next));
      decodeBlocks(lazy.name, parsed, first, next, bytes, coder, part);
      await onBatch?.(part);
      first = next;
    }
  }

  function checkHash({ lazy: { name }, sha256 }: Place, found: Buffer): void {
    if (found.equals(sha256)) return;
    throw new FormatError("format.checksum", `tensor ${name}: SHA-256 is ${found.toString("hex")}, not what was stored`, { tensor: name });
  }

  async function readTensor(place: Place): Promise<Tensor> {
    const { dtype, shape, byteLength: bytes } = place.lazy;
    const parsed = await tail(place);
    const out = new Uint8Array(bytes);
    await read(place, parsed, 0, parsed.checksums.length, (begin, end) => out.subarray(begin, end));
    checkHash(place, createHash("sha256").update(out).digest());
    return { dtype, shape, bytes: out };
  }

  async function* readPieces(place: Place): AsyncGenerator<Uint8Array> {
    const parsed = await tail(place);
    const hash = createHash("sha256");
    const blocks = parsed.checksums.length;
    const most = Math.max(1, Math.floor(BATCH_BYTES / parsed.unitBytes));
    const buffer = new Uint8Array(Math.min(place.lazy.byteLength, most * parsed.unitBytes));
    for (let first = 0; first < blocks; first += most) {
      let piece = buffer;
      await read(place, parsed, first, Math.min(first + most, blocks), (begin, end) => (piece = buffer.subarray(0, end - begin)));
      hash.update(piece);
      yield piece;
    }
    checkHash(place, hash.digest());
  }

  async function readBlocks(place: Place, from: number, to: number, out: Uint8Array): Promise<void> {
    const parsed = await tail(place);
    const base = from * parsed.unitBytes;
    await read(place, parsed, from, to, (begin, end) => out.subarray(begin - base, end - base));
  }

  async function readRows(place: Place, from: number, count: number): Promise<Tensor> {
    const { name, dtype, shape } = place.lazy;
    const rows = shape[0] ?? 1;
    if (!Number.isSafeInteger(from) || !Number.isSafeInteger(count) || from < 0 || count < 0 || from + count > rows) {
      throw new InputError("input.value", `tensor ${name} has rows 0 to ${rows}; ${from} to ${from + count} were asked for`, {
        name,
        from,
        count,
      });
    }
    const part = shape.length === 0 ? [] : [count, ...shape.slice(1)];
    const length = byteLength(dtype, part);
    const begin = shape.length === 0 ? 0 : byteLength(dtype, [1, ...shape.slice(1)]) * from;
    const parsed = await tail(place);
    const unit = parsed.unitBytes;
    const firstBlock = Math.floor(begin / unit);
    const lastBlock = Math.ceil((begin + length) / unit);
    if (length === 0) return { dtype, shape: part, bytes: new Uint8Array(0) };
    const at = firstBlock * unit;
    const out = new Uint8Array(Math.min(lastBlock * unit, place.lazy.byteLength) - at);
    await read(place, parsed, firstBlock, lastBlock, (start, end) => out.subarray(start - at, end - at));
    return { dtype, shape: part, bytes: out.slice(begin - at, begin - at + length) };
  }
  return { tail, readTensor, readPieces, readBlocks, readRows };
}
