/**
 * ZIP archives as far as `.npz` needs them: stored and deflated entries, ZIP64 sizes, no encryption, one disk
 * (PKWARE APPNOTE 6.3, sections 4.3 to 4.5).
 * @module
 */
import { constants, crc32, inflateRawSync } from "node:zlib";
import { FormatError, UnsupportedError } from "../../../core/errors.ts";
import type { ByteSource } from "../container.ts";

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const END64 = 0x06064b50;
const END64_LOCATOR = 0x07064b50;
const END_BYTES = 22;
const MAX_COMMENT = 0xffff;
const MAX_DIRECTORY = 2 ** 26;
const MAX_ENTRIES = 65_535;
/** Largest entry, and largest archive written: sizes of the plain format. */
export const MAX_ENTRY: number = 2 ** 31 - 1;
/** 1 January 1980, so that equal content gives equal bytes. */
const DATE = 0x0021;
const UTF8_NAMES = 0x0800;
const ENCRYPTED = 0x2041;

export interface ZipEntry {
  readonly name: string;
  readonly method: "stored" | "deflated";
  /** Bytes in the file. */
  readonly packed: number;
  /** Bytes of the content. */
  readonly size: number;
  readonly crc: number;
  /** Of the local header. */
  readonly offset: number;
}

/**
 * The entries of an archive, folders left out.
 *
 * @throws {FormatError} `format.magic`, `format.truncated`, `format.field`, `format.limit`, `format.duplicate`, `format.overlap`.
 * @throws {UnsupportedError} `unsupported.format` for encryption and other ways of compression.
 */
export async function readZipDirectory(source: ByteSource): Promise<readonly ZipEntry[]> {
  const { name } = source;
  const { offset, length, entries: count } = await findDirectory(source);
  if (count > MAX_ENTRIES || length > MAX_DIRECTORY) {
    throw new FormatError("format.limit", `${name} lists ${count} entries in ${length} bytes; at most ${MAX_ENTRIES} in ${MAX_DIRECTORY}`, {
      count,
      length,
    });
  }
  if (offset + length > source.size) throw outside(name, "the list of entries", offset + length, source.size);
  const bytes = await source.read(offset, length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 46 > length || view.getUint32(at, true) !== CENTRAL) throw broken(name, `entry ${i} of ${count} is not where it should be`);
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => view.getUint16(at + field, true)) as [
      number,
      number,
      number,
    ];
    const next = at + 46 + nameLength + extraLength + commentLength;
    if (next > length) throw broken(name, `entry ${i} runs over the list`);
    const entry = readEntry(view, bytes, at, nameLength, extraLength, name);
    if (entries.has(entry.name)) throw new FormatError("format.duplicate", `${name} holds ${entry.name} twice`, { entry: entry.name });
    if (!entry.name.endsWith("/")) entries.set(entry.name, entry);
    at = next;
  }
  checkOverlap([...entries.values()], offset, name);
  return [...entries.values()];
}

/** The content of an entry, its checksum checked. @throws as {@link readZipDirectory}, and `format.checksum`. */
export async function readZipEntry(source: ByteSource, entry: ZipEntry): Promise<Uint8Array> {
  const where = `${source.name}: ${entry.name}`;
  const packed = await source.read(await findContent(source, entry), entry.packed);
  const content = entry.method === "stored" ? packed : inflate(packed, entry.size, where);
  if (content.byteLength !== entry.size) {
    throw new FormatError("format.truncated", `${where} has ${content.byteLength} bytes; ${entry.size} were stored`, { where });
  }
  if (crc32(content) !== entry.crc) throw new FormatError("format.checksum", `${where} is damaged (CRC-32)`, { where });
  return content;
}

/** The first bytes of an entry, at most `length`; its checksum is not checked. @throws as {@link readZipDirectory}. */
export async function readZipHead(source: ByteSource, entry: ZipEntry, length: number): Promise<Uint8Array> {
  const start = await findContent(source, entry);
  const wanted = Math.min(length, entry.size);
  // What does not compress grows by a few bytes; a header is short and does.
  const packed = await source.read(start, Math.min(entry.packed, length));
  if (entry.method === "stored") return packed.subarray(0, wanted);
  return inflateHead(packed, wanted, `${source.name}: ${entry.name}`);
}

/** Where the content of an entry begins in the file. */
async function findContent(source: ByteSource, entry: ZipEntry): Promise<number> {
  if (entry.offset + 30 > source.size) throw outside(source.name, entry.name, entry.offset + 30, source.size);
  const header = await source.read(entry.offset, 30);
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  if (view.getUint32(0, true) !== LOCAL) throw broken(source.name, `${entry.name} has no header at byte ${entry.offset}`);
  const start = entry.offset + 30 + view.getUint16(26, true) + view.getUint16(28, true);
  if (start + entry.packed > source.size) throw outside(source.name, entry.name, start + entry.packed, source.size);
  return start;
}

/** A few kilobytes of deflated data unpack to a few megabytes at most. */
function inflateHead(packed: Uint8Array, length: number, where: string): Uint8Array {
  try {
    return inflateRawSync(packed, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, length);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FormatError("format.field", `${where} does not inflate: ${reason}`, { where }, { cause });
  }
}

function inflate(packed: Uint8Array, size: number, where: string): Uint8Array {
  try {
    return inflateRawSync(packed, { maxOutputLength: Math.max(1, size) });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FormatError("format.field", `${where} does not inflate to ${size} bytes: ${reason}`, { where, size }, { cause });
  }
}

/** Local headers and contents, then the list: a whole archive of stored entries, the same bytes for the same content. */
export function zipParts(entries: readonly { readonly name: string; readonly content: Uint8Array }[]): readonly Uint8Array[] {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const { name, content } of entries) {
    const label = new TextEncoder().encode(name);
    if (content.byteLength > MAX_ENTRY || offset > MAX_ENTRY || entries.length >= MAX_ENTRIES || label.byteLength > 0xffff) {
      throw new FormatError("format.limit", `${name} does not fit into one .npz archive (2 GiB); write fewer outputs`, { name });
    }
    const common = new DataView(new ArrayBuffer(26));
    common.setUint16(0, 20, true);
    common.setUint16(2, UTF8_NAMES, true);
    common.setUint16(8, DATE, true);
    common.setUint32(10, crc32(content), true);
    common.setUint32(14, content.byteLength, true);
    common.setUint32(18, content.byteLength, true);
    common.setUint16(22, label.byteLength, true);
    const fields = new Uint8Array(common.buffer);
    parts.push(numbers([LOCAL, 4]), fields, label, content);
    directory.push(numbers([CENTRAL, 4], [20, 2]), fields, numbers([0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), label);
    offset += 30 + label.byteLength + content.byteLength;
  }
  const length = directory.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const count = entries.length;
  return [...parts, ...directory, numbers([END, 4], [0, 2], [0, 2], [count, 2], [count, 2], [length, 4], [offset, 4], [0, 2])];
}

/** Little-endian numbers of 2 or 4 bytes. */
function numbers(...fields: readonly (readonly [value: number, bytes: 2 | 4])[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [, bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [value, bytes] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

/** Where the list of entries lies, from the record at the end of the file. */
async function findDirectory(source: ByteSource): Promise<{ offset: number; length: number; entries: number }> {
  const tailLength = Math.min(source.size, END_BYTES + MAX_COMMENT);
  const tail = await source.read(source.size - tailLength, tailLength);
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  for (let at = tailLength - END_BYTES; at >= 0; at--) {
    if (view.getUint32(at, true) !== END || at + END_BYTES + view.getUint16(at + 20, true) !== tailLength) continue;
    const found = { entries: view.getUint16(at + 10, true), length: view.getUint32(at + 12, true), offset: view.getUint32(at + 16, true) };
    const isLarge = found.entries === 0xffff || found.length === 0xffffffff || found.offset === 0xffffffff;
    return isLarge ? findDirectory64(source, source.size - tailLength + at) : found;
  }
  throw new FormatError("format.magic", `${source.name} is not a .npz file: no end of a ZIP archive`, { name: source.name });
}

async function findDirectory64(source: ByteSource, end: number): Promise<{ offset: number; length: number; entries: number }> {
  if (end < 20) throw broken(source.name, "its ZIP64 record is missing");
  const locator = await source.read(end - 20, 20);
  const locatorView = new DataView(locator.buffer, locator.byteOffset, 20);
  const at = Number(locatorView.getBigUint64(8, true));
  if (locatorView.getUint32(0, true) !== END64_LOCATOR || at + 56 > end) throw broken(source.name, "its ZIP64 record is missing");
  const record = await source.read(at, 56);
  const view = new DataView(record.buffer, record.byteOffset, 56);
  if (view.getUint32(0, true) !== END64) throw broken(source.name, "its ZIP64 record is missing");
  return {
    entries: Number(view.getBigUint64(32, true)),
    length: Number(view.getBigUint64(40, true)),
    offset: Number(view.getBigUint64(48, true)),
  };
}

function readEntry(view: DataView, bytes: Uint8Array, at: number, nameLength: number, extraLength: number, archive: string): ZipEntry {
  const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
  const method = view.getUint16(at + 10, true);
  if ((view.getUint16(at + 8, true) & ENCRYPTED) !== 0) {
    throw new UnsupportedError("unsupported.format", `${archive}: ${name} is encrypted`, { entry: name });
  }
  if (method !== 0 && method !== 8) {
    throw new UnsupportedError(
      "unsupported.format",
      `${archive}: ${name} is compressed by method ${method}; readable: 0 (stored), 8 (deflate)`,
      {
        entry: name,
        method,
      },
    );
  }
  const sizes = readSizes(view, at, at + 46 + nameLength, extraLength);
  if (sizes.size > MAX_ENTRY || sizes.packed > MAX_ENTRY) {
    throw new FormatError("format.limit", `${archive}: ${name} has ${sizes.size} bytes; at most ${MAX_ENTRY} are read`, { entry: name });
  }
  const entry: ZipEntry = { name, method: method === 0 ? "stored" : "deflated", crc: view.getUint32(at + 16, true), ...sizes };
  if (entry.method === "stored" && entry.packed !== entry.size)
    throw broken(archive, `${name} is stored, but ${entry.packed} bytes are not ${entry.size}`);
  return entry;
}

/** Sizes and offset; those that say "see ZIP64" come from the extra field 1, in this order. */
function readSizes(view: DataView, at: number, extra: number, extraLength: number): Pick<ZipEntry, "size" | "packed" | "offset"> {
  const found = { size: view.getUint32(at + 24, true), packed: view.getUint32(at + 20, true), offset: view.getUint32(at + 42, true) };
  for (let field = extra; field + 4 <= extra + extraLength;) {
    const end = Math.min(field + 4 + view.getUint16(field + 2, true), extra + extraLength);
    if (view.getUint16(field, true) === 1) {
      let value = field + 4;
      for (const key of ["size", "packed", "offset"] as const) {
        if (found[key] !== 0xffffffff || value + 8 > end) continue;
        found[key] = Number(view.getBigUint64(value, true));
        value += 8;
      }
    }
    field = end;
  }
  return found;
}

/** No two entries share bytes: an archive of overlapping entries can inflate to far more than it seems. */
function checkOverlap(entries: readonly ZipEntry[], end: number, archive: string): void {
  const sorted = entries.toSorted((a, b) => a.offset - b.offset);
  for (const [i, { name, offset, packed }] of sorted.entries()) {
    const limit = sorted[i + 1]?.offset ?? end;
    if (offset + 30 + packed > limit)
      throw new FormatError("format.overlap", `${archive}: ${name} runs into what follows it`, { entry: name });
  }
}

function broken(name: string, why: string): FormatError {
  return new FormatError("format.field", `${name} is not a sound ZIP archive: ${why}`, { name });
}

function outside(name: string, what: string, end: number, size: number): FormatError {
  return new FormatError("format.truncated", `${name}: ${what} would end at byte ${end}, the file has ${size}`, { name, end, size });
}
