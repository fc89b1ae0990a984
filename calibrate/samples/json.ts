/**
 * JSON files: token ids `[[...], ...]` or `[...]`, or a list of records.
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { FormatError, InputError } from "../../core/errors.ts";
import { checkIds, contentOf, type SampleDocument } from "./document.ts";

const MAX_FILE_BYTES = 2 ** 28;

/** @throws {FormatError} `format.limit`, {@link InputError} `input.data` naming the file and the entry. */
export async function* readJson(path: string): AsyncIterable<SampleDocument> {
  const { size } = await stat(path);
  if (size > MAX_FILE_BYTES) {
    throw new FormatError(
      "format.limit",
      `${path} has ${size} bytes; JSON is read whole up to ${MAX_FILE_BYTES}: give jsonl, which is streamed`,
      {
        path,
        size,
        limit: MAX_FILE_BYTES,
      },
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    throw new InputError("input.data", `${path}: not JSON: ${(error as Error).message}`, { path }, { cause: error });
  }
  if (!Array.isArray(value) || value.length === 0) {
    throw new InputError("input.data", `${path}: expected a list of ids, of lists of ids or of records, found ${describe(value)}`, {
      path,
    });
  }
  if (typeof value[0] === "number") {
    yield { where: path, content: { kind: "ids", ids: checkIds(value, path) }, packing: "pack" };
    return;
  }
  for (const [i, entry] of value.entries()) {
    const where = `${path}[${i}]`;
    const content = contentOf(entry, where);
    yield { where, content, packing: content.kind === "ids" ? "truncate" : "pack" };
  }
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return "an empty list";
  return value === null ? "null" : typeof value === "object" ? "an object" : typeof value;
}
