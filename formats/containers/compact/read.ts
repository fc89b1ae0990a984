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
import { blockBytes } from "../../encodings/compact/block.ts";
import { decodeBlocks, HEAD_BYTES, headLength, parseHead, RAW_PIECE, type PayloadHead } from "../../encodings/compact/payload.ts";
import { memorySource } from "../bytes.ts";
import type { ByteSource, TensorFile } from "../container.ts";
import { openSafetensors } from "../safetensors/read.ts";
import { FOOTER_BYTES, MAGIC, parseDirectory, parseFooter, PREFIX_BYTES, type Directory } from "./directory.ts";

/** Encoded bytes read at a time. */
const BATCH_BYTES = 4 * 2 ** 20;

export interface CompactFile extends TensorFile {
  /** First bytes of the safetensors file this one stands for: with the tensors' bytes in order, that file. */
  readonly header: Uint8Array;
  /** Bytes of that file. */
  readonly fileBytes: number;
  /** Rows `from` to `from + count` of the first dimension, reading and decoding no more blocks than hold them. */
  readRows(name: string, from: number, count: number): Promise<Tensor>;
  /** Where and how a tensor is stored. */
  stored(name: string): Promise<StoredTensor>;
}

export interface StoredTensor {
  readonly offset: number;
  readonly bytes: number;
  /** Name of the tensor that holds the bytes, for a copy. */
  readonly sameAs?: string;
  readonly sha256: Uint8Array;
  readonly head: PayloadHead;
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
    async stored(name) {
      const { offset, bytes, sha256, original } = place(name);
      const head = await reader.head(place(name));
      return { offset, bytes, sha256, head, ...(original === undefined ? {} : { sameAs: original.lazy.name }) };
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

function createReader(
  source: ByteSource,
  coder: BlockCoder,
): {
  head(place: Place): Promise<PayloadHead>;
  readTensor(place: Place): Promise<Tensor>;
  readRows(place: Place, from: number, count: number): Promise<Tensor>;
} {
  // The last tensor's head: rows are mostly asked for one tensor at a time.
  let last: { readonly offset: number; readonly head: PayloadHead } | undefined;

  async function head({ lazy, offset, bytes }: Place): Promise<PayloadHead> {
    if (last?.offset === offset) return last.head;
    const { name, dtype, shape } = lazy;
    if (bytes < HEAD_BYTES) throw new FormatError("format.field", `tensor ${name}: ${bytes} bytes hold no tensor`, { tensor: name });
    const length = headLength(name, await source.read(offset, HEAD_BYTES), bytes);
    const parsed = parseHead(name, dtype, shape, await source.read(offset, length), bytes);
    last = { offset, head: parsed };
    return parsed;
  }

  /** Blocks `from` to `to`, in batches. */
  async function read({ lazy, offset }: Place, parsed: PayloadHead, from: number, to: number, out: Uint8Array): Promise<void> {
    const { starts, coded } = parsed;
    const decodedAt = (b: number): number =>
      coded === undefined
        ? Math.min(b * RAW_PIECE, lazy.byteLength)
        : Math.min(b * coded.view.rowsPerBlock, coded.view.rows) * coded.view.cols * coded.view.elementBytes;
    for (let first = from; first < to;) {
      let next = first + 1;
      while (next < to && starts[next + 1]! - starts[first]! <= BATCH_BYTES) next++;
      const bytes = await source.read(offset + starts[first]!, starts[next]! - starts[first]!);
      const part = out.subarray(decodedAt(first) - decodedAt(from), decodedAt(next) - decodedAt(from));
      decodeBlocks(lazy.name, parsed, first, next, bytes, coder, part);
      first = next;
    }
  }

  async function readTensor(place: Place): Promise<Tensor> {
    const { dtype, shape, name, byteLength: bytes } = place.lazy;
    const parsed = await head(place);
    const out = new Uint8Array(bytes);
    await read(place, parsed, 0, parsed.checksums.length, out);
    const found = createHash("sha256").update(out).digest();
    if (!found.equals(place.sha256)) {
      throw new FormatError("format.checksum", `tensor ${name}: SHA-256 is ${found.toString("hex")}, not what was stored`, {
        tensor: name,
      });
    }
    return { dtype, shape, bytes: out };
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
    const parsed = await head(place);
    const unit = parsed.coded === undefined ? RAW_PIECE : blockBytes(parsed.coded.view, 0);
    const firstBlock = Math.floor(begin / unit);
    const lastBlock = Math.ceil((begin + length) / unit);
    if (length === 0) return { dtype, shape: part, bytes: new Uint8Array(0) };
    const out = new Uint8Array(Math.min(lastBlock * unit, place.lazy.byteLength) - firstBlock * unit);
    await read(place, parsed, firstBlock, lastBlock, out);
    return { dtype, shape: part, bytes: out.slice(begin - firstBlock * unit, begin - firstBlock * unit + length) };
  }
  return { head, readTensor, readRows };
}
