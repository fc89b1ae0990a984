/**
 * JSON lines: one record a line, read as a stream.
 * @module
 */
import { FormatError, InputError } from "../../core/errors.ts";
import { contentOf, type SampleDocument } from "./document.ts";
import { readChunks } from "./text.ts";

/** Longest line accepted: a book is about 1 MB. */
const MAX_LINE = 2 ** 26;

/** @throws {InputError} `input.data` with file:line for a line that is not JSON or holds no text. */
export async function* readJsonLines(path: string): AsyncIterable<SampleDocument> {
  let number = 0;
  for await (const line of readLines(path)) {
    number++;
    if (line.trim() === "") continue;
    const where = `${path}:${number}`;
    let record: unknown;
    try {
      record = JSON.parse(line);
    } catch (error) {
      throw new InputError("input.data", `${where}: not JSON: ${(error as Error).message}`, { path, line: number }, { cause: error });
    }
    const content = contentOf(record, where);
    yield { where, content, packing: content.kind === "ids" ? "truncate" : "pack" };
  }
}

async function* readLines(path: string): AsyncIterable<string> {
  let rest = "";
  for await (const chunk of readChunks(path)) {
    const lines = chunk.split("\n");
    lines[0] = rest + lines[0]!;
    rest = lines.pop()!;
    yield* lines;
    if (rest.length > MAX_LINE) {
      throw new FormatError("format.limit", `${path} has a line of more than ${MAX_LINE} characters; is it JSON lines?`, {
        path,
        limit: MAX_LINE,
      });
    }
  }
  if (rest !== "") yield rest;
}
