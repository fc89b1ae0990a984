/**
 * Text files: one document a file, tokenized only as far as needed.
 * @module
 */
import { createReadStream } from "node:fs";
import { createGunzip } from "node:zlib";
import { pipeline } from "node:stream/promises";
import { PassThrough, type Readable } from "node:stream";
import { FormatError } from "../../core/errors.ts";
import type { SampleDocument } from "./document.ts";

/** Longest text held as one string; V8's own limit is 2^29 - 24. */
const MAX_TEXT = 2 ** 28;
/** Characters read first per id wanted: English takes 4 to 5, code and other scripts fewer. */
const CHARACTERS_PER_ID = 6;
/**
 * Ids dropped at the end of a cut text. A cut can change how the text before it is split, but only as far as one
 * merge reaches: the longest token of any vocabulary is far below 128 ids of this text.
 */
const CUT_MARGIN = 128;

export async function* readTextFile(path: string): AsyncIterable<SampleDocument> {
  yield { where: path, content: { kind: "file", path }, packing: "pack" };
}

/** Chunks of text, decoded as UTF-8; `.gz` is unpacked on the way. @throws {FormatError} `format.field` when it is not UTF-8. */
export async function* readChunks(path: string): AsyncIterable<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const decode = (bytes?: Uint8Array): string => {
    try {
      return bytes === undefined ? decoder.decode() : decoder.decode(bytes, { stream: true });
    } catch (error) {
      throw new FormatError(
        "format.field",
        `${path} is not UTF-8 text; convert it, or give jsonl, parquet or token ids`,
        { path },
        { cause: error },
      );
    }
  };
  for await (const bytes of openBytes(path)) {
    const text = decode(bytes);
    if (text !== "") yield text;
  }
  const rest = decode();
  if (rest !== "") yield rest;
}

async function* openBytes(path: string): AsyncIterable<Uint8Array> {
  const file = createReadStream(path, { highWaterMark: 2 ** 20 });
  if (!path.endsWith(".gz")) {
    yield* file as AsyncIterable<Uint8Array>;
    return;
  }
  const out: Readable = new PassThrough();
  const pumping = pipeline(file, createGunzip(), out as PassThrough).catch((error: unknown) => out.destroy(error as Error));
  try {
    yield* out as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw new FormatError("format.field", `${path} cannot be unpacked: ${(error as Error).message}`, { path }, { cause: error });
  } finally {
    out.destroy();
    await pumping;
  }
}

/**
 * The first ids of a text file, the same as those of the whole file.
 *
 * @param limit - ids wanted; Infinity reads the whole file.
 * @returns at least `limit` ids unless the file has fewer.
 * @throws {FormatError} `format.limit` when the text needed is longer than one string can be.
 */
export async function tokenizeFile(path: string, encode: (text: string) => number[], limit: number): Promise<number[]> {
  let text = "";
  let target = limit * CHARACTERS_PER_ID + 4096;
  for await (const chunk of readChunks(path)) {
    text += chunk;
    if (text.length > MAX_TEXT) {
      throw new FormatError("format.limit", `${path} holds more than ${MAX_TEXT} characters of one text; split it, or give jsonl`, {
        path,
        limit: MAX_TEXT,
      });
    }
    if (text.length < target) continue;
    const ids = encode(cutText(text));
    if (ids.length >= limit + CUT_MARGIN) return ids.slice(0, ids.length - CUT_MARGIN);
    target = text.length * 2;
  }
  return encode(text);
}

/** Up to the last line end, so that no word and no surrogate pair is halved; whole when there is none. */
function cutText(text: string): string {
  const end = text.lastIndexOf("\n");
  return end > text.length / 2 ? text.slice(0, end) : text;
}
