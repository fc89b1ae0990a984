/**
 * Parquet: one record a row, row group by row group, only the columns that can hold samples.
 * @module
 */
import { parquetMetadataAsync, parquetReadObjects, parquetSchema, type AsyncBuffer, type Compressors, type FileMetaData } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { FormatError, InputError, QuantError } from "../../core/errors.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import type { ByteSource } from "../../formats/containers/container.ts";
import { contentOf, KNOWN_FIELDS, type SampleDocument } from "./document.ts";

/** Largest unpacked page and row group accepted, so that a few bytes cannot claim all memory. Writers aim at 1 MiB and 128 MiB. */
const MAX_PAGE_BYTES = 2 ** 28;
const MAX_GROUP_BYTES = 2 ** 30;
const MAX_GROUP_ROWS = 2 ** 24;

/**
 * Columns are chosen as fields of a JSON line are; failing those, the one column of strings.
 *
 * @throws {FormatError} `format.field` / `format.limit` naming the file when it is not readable as parquet.
 * @throws {InputError} `input.data` when no column can be meant, listing the columns.
 */
export async function* readParquet(path: string): AsyncIterable<SampleDocument> {
  const source = await openFileSource(path);
  try {
    const file = bufferOver(source);
    const metadata = await readable(path, async () => parquetMetadataAsync(file, { geoparquet: false }));
    const { columns, single } = await readable(path, async () => chooseColumns(metadata, path));
    let row = 0;
    for (const [index, group] of metadata.row_groups.entries()) {
      const rows = Number(group.num_rows);
      const bytes = group.columns
        .filter(({ meta_data }) => columns.includes(meta_data?.path_in_schema[0] ?? ""))
        .reduce((sum, { meta_data }) => sum + Number(meta_data?.total_uncompressed_size ?? 0), 0);
      checkGroup(path, index, rows, bytes);
      const options = { file, metadata, columns, rowStart: row, rowEnd: row + rows, compressors: boundedCompressors(path) };
      const records = await readable(path, async () => parquetReadObjects(options));
      for (const [i, record] of records.entries()) {
        const where = `${path}: row ${row + i}`;
        const value: unknown = single === undefined ? record : record[single];
        // A missing value is an empty document, as in a JSON line with "text": "".
        if (value === null || value === undefined) continue;
        const content = contentOf(value, where);
        yield { where, content, packing: content.kind === "ids" ? "truncate" : "pack" };
      }
      row += rows;
    }
  } finally {
    await source.close();
  }
}

/** @returns the columns to read, and the one column of strings where no name is known. */
function chooseColumns(metadata: FileMetaData, path: string): { columns: string[]; single?: string } {
  const { children } = parquetSchema(metadata);
  const names = children.map(({ element }) => element.name);
  const known = names.filter((name) => KNOWN_FIELDS.includes(name));
  if (known.length > 0) return { columns: known };
  const strings = children.filter(({ element, children: inner }) => {
    const { type, converted_type: converted, logical_type: logical } = element;
    return inner.length === 0 && type === "BYTE_ARRAY" && (converted === "UTF8" || logical?.type === "STRING");
  });
  if (strings.length === 1) return { columns: [strings[0]!.element.name], single: strings[0]!.element.name };
  const found = names.slice(0, 12).join(", ") || "none";
  throw new InputError(
    "input.data",
    `${path}: no column of text (columns: ${found}); name one "text", "messages", "prompt" or "input_ids"`,
    {
      path,
      columns: names,
    },
  );
}

function checkGroup(path: string, index: number, rows: number, bytes: number): void {
  const fits = Number.isSafeInteger(rows) && rows >= 0 && rows <= MAX_GROUP_ROWS && bytes >= 0 && bytes <= MAX_GROUP_BYTES;
  if (fits) return;
  throw new FormatError(
    "format.limit",
    `${path}: row group ${index} claims ${rows} rows and ${bytes} bytes; at most ${MAX_GROUP_ROWS} rows and ${MAX_GROUP_BYTES} bytes are read: write smaller row groups`,
    { path, group: index, rows, bytes },
  );
}

function bufferOver(source: ByteSource): AsyncBuffer {
  return {
    byteLength: source.size,
    slice: async (start, end = source.size) => {
      const bytes = await source.read(start, Math.min(end, source.size) - start);
      return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
    },
  };
}

/** The library's decompressors with a limit on what they may be asked to unpack. */
function boundedCompressors(path: string): Compressors {
  const bounded = Object.entries(compressors).map(([codec, decompress]) => [
    codec,
    (input: Uint8Array, outputLength: number): Uint8Array => {
      if (outputLength > MAX_PAGE_BYTES) {
        throw new FormatError("format.limit", `${path}: a page claims ${outputLength} bytes; at most ${MAX_PAGE_BYTES} are read`, {
          path,
          outputLength,
        });
      }
      return decompress(input, outputLength);
    },
  ]);
  return Object.fromEntries(bounded) as Compressors;
}

/** Errors of the parquet library become ours, with the file's name. */
async function readable<T>(path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof QuantError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new FormatError("format.field", `${path} is not readable as parquet: ${reason}`, { path }, { cause: error });
  }
}
