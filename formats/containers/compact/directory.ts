/**
 * The directory of a compact file, at its end: what the safetensors file was, and where each tensor went.
 *
 * Plain form, deflated (RFC 1951) in the file; numbers little-endian, `n` tensors in the order of their data in the safetensors file:
 *
 * | byte | type | meaning |
 * |---|---|---|
 * | 0 | u64 | bytes of the safetensors file |
 * | 8 | u32 | `h`, bytes of its header, length prefix included |
 * | 12 | u32 | `n` |
 * | 16 | h bytes | that header as it was |
 * | | n u32 | 0, or 1 + the number of an earlier tensor with the same bytes, which is stored once |
 * | | n u64 | bytes of the payload; 0 for such a copy |
 * | | n × 32 bytes | SHA-256 of the tensor's bytes |
 *
 * Payloads follow each other from byte 16 of the file, in the same order.
 * @module
 */
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { FormatError } from "../../../core/errors.ts";
import { checksum } from "../../encodings/compact/checksum.ts";
import { MAX_HEADER_BYTES } from "../safetensors/read.ts";

/** First bytes of a file and last of its footer. A byte that is not text, and line ends that a text transfer would change. */
export const MAGIC: Uint8Array = Uint8Array.of(0x89, 0x42, 0x57, 0x43, 0x0d, 0x0a, 0x1a, 0x0a);
export const VERSION = 1;
/** Magic, version, four zero bytes. */
export const PREFIX_BYTES = 16;
/** u64 offset of the directory, u32 its bytes, u32 its plain bytes, u32 checksum of the plain bytes, u32 version, magic. */
export const FOOTER_BYTES = 32;
export const HASH_BYTES = 32;
const FIXED_BYTES = 16;
const TENSOR_BYTES = 4 + 8 + HASH_BYTES;
/** Deflate makes nothing more than 1,032 times smaller; a larger claim is a broken file. */
const MAX_RATIO = 1032;
/** The largest header and an entry for each of its tensors (which take 40 bytes of it at least). */
const MAX_PLAIN_BYTES = 3 * MAX_HEADER_BYTES;

export interface DirectoryEntry {
  /** Number of the earlier tensor that holds the bytes. */
  readonly sameAs?: number;
  /** Bytes of the payload; 0 for a copy. */
  readonly payloadBytes: number;
  readonly sha256: Uint8Array;
}

export interface Directory {
  /** Bytes of the safetensors file. */
  readonly fileBytes: number;
  /** First bytes of that file: length prefix and header. */
  readonly header: Uint8Array;
  readonly entries: readonly DirectoryEntry[];
}

export function encodePrefix(): Uint8Array {
  const out = new Uint8Array(PREFIX_BYTES);
  out.set(MAGIC);
  out[8] = VERSION;
  return out;
}

/** Directory and footer. @param offset - where the directory starts in the file. */
export function encodeDirectory({ fileBytes, header, entries }: Directory, offset: number): Uint8Array {
  const plain = new Uint8Array(FIXED_BYTES + header.length + TENSOR_BYTES * entries.length);
  const numbers = new DataView(plain.buffer);
  numbers.setBigUint64(0, BigInt(fileBytes), true);
  numbers.setUint32(8, header.length, true);
  numbers.setUint32(12, entries.length, true);
  plain.set(header, FIXED_BYTES);
  const copiesAt = FIXED_BYTES + header.length;
  const lengthsAt = copiesAt + 4 * entries.length;
  const hashesAt = lengthsAt + 8 * entries.length;
  entries.forEach(({ sameAs, payloadBytes, sha256 }, i) => {
    numbers.setUint32(copiesAt + 4 * i, sameAs === undefined ? 0 : sameAs + 1, true);
    numbers.setBigUint64(lengthsAt + 8 * i, BigInt(payloadBytes), true);
    plain.set(sha256, hashesAt + HASH_BYTES * i);
  });
  const packed = deflateRawSync(plain, { level: 9 });
  const out = new Uint8Array(packed.length + FOOTER_BYTES);
  out.set(packed);
  const footer = new DataView(out.buffer, packed.length);
  footer.setBigUint64(0, BigInt(offset), true);
  footer.setUint32(8, packed.length, true);
  footer.setUint32(12, plain.length, true);
  footer.setUint32(16, checksum(plain), true);
  footer.setUint32(20, VERSION, true);
  out.set(MAGIC, packed.length + 24);
  return out;
}

export interface Footer {
  readonly offset: number;
  readonly packedBytes: number;
  readonly plainBytes: number;
  readonly checksum: number;
}

/** @throws {FormatError} `format.magic`, `format.limit`, `format.field`. */
export function parseFooter(file: string, size: number, prefix: Uint8Array, bytes: Uint8Array): Footer {
  const isMagic = (at: Uint8Array): boolean => MAGIC.every((byte, i) => at[i] === byte);
  if (!isMagic(prefix)) throw new FormatError("format.magic", `${file} is not a compact file: its first bytes are others`, { file });
  if (!isMagic(bytes.subarray(24))) {
    throw new FormatError("format.truncated", `${file} does not end as a compact file does: it is cut short or still being written`, {
      file,
    });
  }
  const footer = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = footer.getUint32(20, true);
  if (version !== VERSION || prefix[8] !== VERSION) {
    throw new FormatError("format.field", `${file} has version ${version} of the compact format; this program reads ${VERSION}`, {
      file,
      version,
    });
  }
  const offset = footer.getBigUint64(0, true);
  const packedBytes = footer.getUint32(8, true);
  const plainBytes = footer.getUint32(12, true);
  if (offset !== BigInt(size - FOOTER_BYTES - packedBytes) || offset < BigInt(PREFIX_BYTES)) {
    throw new FormatError("format.field", `${file}: its directory does not lie between tensors and footer`, { file, packedBytes, size });
  }
  if (plainBytes > MAX_PLAIN_BYTES || plainBytes > MAX_RATIO * packedBytes || plainBytes < FIXED_BYTES) {
    throw new FormatError("format.limit", `${file}: a directory of ${plainBytes} bytes cannot come from ${packedBytes}`, {
      file,
      plainBytes,
    });
  }
  return { offset: Number(offset), packedBytes, plainBytes, checksum: footer.getUint32(16, true) };
}

/** @throws {FormatError} `format.checksum`, `format.field`. */
export function parseDirectory(file: string, footer: Footer, packed: Uint8Array): Directory {
  let plain: Uint8Array;
  try {
    // A copy of its own class: a Buffer slices differently.
    plain = new Uint8Array(inflateRawSync(packed, { maxOutputLength: footer.plainBytes }));
  } catch (cause) {
    throw new FormatError("format.field", `${file}: its directory cannot be inflated`, { file }, { cause });
  }
  if (plain.length !== footer.plainBytes || checksum(plain) !== footer.checksum) {
    throw new FormatError("format.checksum", `${file}: its directory is damaged`, { file });
  }
  const numbers = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const fileBytes = numbers.getBigUint64(0, true);
  const headerBytes = numbers.getUint32(8, true);
  const count = numbers.getUint32(12, true);
  if (fileBytes > BigInt(Number.MAX_SAFE_INTEGER) || FIXED_BYTES + headerBytes + TENSOR_BYTES * count !== plain.length) {
    throw new FormatError(
      "format.field",
      `${file}: a directory of ${plain.length} bytes does not hold a header of ${headerBytes} and ${count} tensors`,
      {
        file,
      },
    );
  }
  const copiesAt = FIXED_BYTES + headerBytes;
  const lengthsAt = copiesAt + 4 * count;
  const hashesAt = lengthsAt + 8 * count;
  const entries: DirectoryEntry[] = [];
  let at = BigInt(PREFIX_BYTES);
  for (let i = 0; i < count; i++) {
    const copy = numbers.getUint32(copiesAt + 4 * i, true);
    const length = numbers.getBigUint64(lengthsAt + 8 * i, true);
    const isCopy = copy > 0;
    if (length % 4n !== 0n || (isCopy && (length !== 0n || copy > i || entries[copy - 1]!.sameAs !== undefined))) {
      throw new FormatError("format.field", `${file}: tensor ${i} has neither a payload nor an earlier one's`, { file, tensor: i });
    }
    at += length;
    if (at > BigInt(footer.offset))
      throw new FormatError("format.field", `${file}: tensor ${i} reaches into the directory`, { file, tensor: i });
    const sha256 = plain.slice(hashesAt + HASH_BYTES * i, hashesAt + HASH_BYTES * (i + 1));
    entries.push({ ...(isCopy ? { sameAs: copy - 1 } : {}), payloadBytes: Number(length), sha256 });
  }
  if (at !== BigInt(footer.offset)) {
    throw new FormatError("format.overlap", `${file}: bytes ${at} to ${footer.offset} belong to no tensor`, { file });
  }
  return { fileBytes: Number(fileBytes), header: plain.slice(FIXED_BYTES, copiesAt), entries };
}
