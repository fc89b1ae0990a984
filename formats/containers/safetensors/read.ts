/**
 * safetensors, read: only the header is loaded; tensors are read when asked for.
 *
 *   byte 0        u64 N, little-endian: length of the header
 *   byte 8        N bytes of UTF-8 JSON, first byte "{", padded with spaces
 *   byte 8 + N    tensor bytes, one contiguous buffer without holes
 *
 * Source: the format's README and reference reader (safetensors 0.8). Stricter in three
 * points the specification itself states: no leading spaces, no duplicate names,
 * dimensions and offsets are plain integers.
 * @module
 */
import { DTYPES, isDType, type DType } from "../../../core/dtype.ts";
import { FormatError } from "../../../core/errors.ts";
import type { LazyTensor } from "../../../core/tensor.ts";
import type { ByteSource, TensorFile } from "../container.ts";
import { isObject, parseJsonObject } from "../json.ts";

/** Longest header the reference reader accepts (`MAX_HEADER_SIZE`), bytes. */
export const MAX_HEADER_BYTES = 100_000_000;
/** Bytes before the header: its length. */
export const PREFIX_BYTES = 8;

const INTEGER_FIELDS: ReadonlySet<string> = new Set(["shape", "data_offsets"]);
/** Header object, tensor entry, shape; unknown keys of an entry may hold a little more. */
const MAX_HEADER_DEPTH = 16;

interface Entry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Bytes from the start of the data. */
  readonly begin: number;
  readonly end: number;
}

/**
 * Open and check a safetensors file. On success every tensor lies in the file, none overlaps another
 * and no byte is unaccounted for. The source is closed with the returned file.
 *
 * @throws {FormatError} `format.truncated` file or header cut short; `format.limit` header over 100,000,000 bytes;
 *   `format.magic` header not starting with "{"; `format.field` a bad or missing field; `format.duplicate` a name twice;
 *   `format.overlap` holes, overlaps, or bytes that belong to no tensor.
 */
export async function openSafetensors(source: ByteSource): Promise<TensorFile> {
  const { entries, metadata, dataStart } = await readHeader(source);
  const tensors = new Map<string, LazyTensor>();
  for (const { name, dtype, shape, begin, end } of entries) {
    const offset = dataStart + begin;
    tensors.set(name, {
      name,
      dtype,
      shape,
      byteLength: end - begin,
      read: async () => ({ dtype, shape, bytes: await source.read(offset, end - begin) }),
      ...(source.path === undefined ? {} : { location: { path: source.path, offset } }),
    });
  }
  return { tensors, metadata, close: () => source.close() };
}

async function readHeader(
  source: ByteSource,
): Promise<{ entries: readonly Entry[]; metadata: Readonly<Record<string, string>>; dataStart: number }> {
  const { name: file, size } = source;
  if (size < PREFIX_BYTES) {
    throw new FormatError("format.truncated", `${file} has ${size} bytes; a safetensors file has at least ${PREFIX_BYTES}`, { file, size });
  }
  const prefix = await source.read(0, PREFIX_BYTES);
  const declared = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (declared > BigInt(MAX_HEADER_BYTES)) {
    throw new FormatError(
      "format.limit",
      `${file}: the header length at byte 0 is ${declared}; at most ${MAX_HEADER_BYTES} is allowed (is this a safetensors file?)`,
      { file, declared: declared.toString(), limit: MAX_HEADER_BYTES },
    );
  }
  const headerBytes = Number(declared);
  const dataStart = PREFIX_BYTES + headerBytes;
  if (dataStart > size) {
    throw new FormatError("format.truncated", `${file}: the header ends at byte ${dataStart}, the file at byte ${size}`, {
      file,
      headerBytes,
      size,
    });
  }
  const header = await source.read(PREFIX_BYTES, headerBytes);
  if (header[0] !== 0x7b) {
    throw new FormatError("format.magic", `${file}: the header at byte ${PREFIX_BYTES} must start with "{"`, { file, found: header[0] });
  }
  const fields = parseJsonObject(header, {
    name: file,
    maxDepth: MAX_HEADER_DEPTH,
    code: "format.field",
    duplicates: "refuse",
    integers: INTEGER_FIELDS,
    offset: PREFIX_BYTES,
  });
  const entries: Entry[] = [];
  let metadata: Readonly<Record<string, string>> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (name === "__metadata__") metadata = parseMetadata(file, value);
    else entries.push(parseEntry(file, name, value));
  }
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkChain(file, entries, size - dataStart);
  return { entries, metadata, dataStart };
}

function parseMetadata(file: string, value: unknown): Readonly<Record<string, string>> {
  // The reference reads it as an optional map.
  if (value === null) return {};
  if (!isObject(value)) throw new FormatError("format.field", `${file}: __metadata__ must be an object of strings`, { file });
  const pairs: [string, string][] = [];
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string") {
      throw new FormatError("format.field", `${file}: __metadata__ ${quote(key)} must be a string, found ${typeof text}`, { file, key });
    }
    pairs.push([key, text]);
  }
  return Object.fromEntries(pairs);
}

function parseEntry(file: string, name: string, value: unknown): Entry {
  const refuse = (field: string, problem: string): never => {
    throw new FormatError("format.field", `${file}: tensor ${quote(name)}: ${field} ${problem}`, { file, tensor: name, field });
  };
  if (/\p{Surrogate}/u.test(name)) return refuse("name", "is not well-formed text");
  if (!isObject(value)) return refuse("entry", "must be an object with dtype, shape and data_offsets");
  const field = (key: string): unknown => (Object.hasOwn(value, key) ? value[key] : refuse(key, "is missing"));
  const dtype = field("dtype");
  if (typeof dtype !== "string") return refuse("dtype", `must be a string, found ${typeof dtype}`);
  if (!isDType(dtype)) return refuse("dtype", `${quote(dtype)} is unknown; known: ${Object.keys(DTYPES).join(", ")}`);
  const shape = field("shape");
  if (!isIntegers(shape)) return refuse("shape", "must be a list of integers from 0 to 2^53 - 1");
  const offsets = field("data_offsets");
  if (!isIntegers(offsets) || offsets.length !== 2) return refuse("data_offsets", "must be two integers from 0 to 2^53 - 1");
  const [begin, end] = offsets as [number, number];
  if (end < begin) return refuse("data_offsets", `end (${end}) is before begin (${begin})`);
  let bits: number = DTYPES[dtype].bits;
  for (const size of shape) {
    bits *= size;
    if (!Number.isSafeInteger(bits)) return refuse("shape", `${shorten(shape)} is more bits than 2^53`);
  }
  if (bits % 8 !== 0) return refuse("shape", `${shorten(shape)} of ${dtype} takes ${bits} bits, not whole bytes`);
  if (end - begin !== bits / 8) {
    return refuse("data_offsets", `span ${end - begin} bytes, but ${dtype} ${shorten(shape)} takes ${bits / 8}`);
  }
  return { name, dtype, shape, begin, end };
}

/** Entries sorted by offset must follow each other from 0 to the end of the data. */
function checkChain(file: string, entries: readonly Entry[], dataBytes: number): void {
  let at = 0;
  for (const { name, begin, end } of entries) {
    if (begin !== at) {
      const problem =
        begin > at
          ? `leaves a hole: bytes ${at} to ${begin} of the data belong to no tensor`
          : `overlaps the tensor before it, which ends at ${at}`;
      throw new FormatError("format.overlap", `${file}: tensor ${quote(name)} at ${begin} ${problem}`, {
        file,
        tensor: name,
        begin,
        expected: at,
      });
    }
    at = end;
  }
  if (at > dataBytes) {
    throw new FormatError("format.truncated", `${file}: tensors take ${at} bytes, the file holds ${dataBytes} after its header`, {
      file,
      needed: at,
      found: dataBytes,
    });
  }
  if (at < dataBytes) {
    throw new FormatError("format.overlap", `${file}: not fully covered: ${dataBytes - at} bytes after the last tensor belong to none`, {
      file,
      covered: at,
      found: dataBytes,
    });
  }
}

function isIntegers(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((x) => Number.isSafeInteger(x) && (x as number) >= 0);
}

function quote(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}

function shorten(shape: readonly number[]): string {
  return shape.length > 16 ? `[${shape.slice(0, 16).join(",")},… ${shape.length} dimensions]` : JSON.stringify(shape);
}
