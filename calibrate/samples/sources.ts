/**
 * Sample sources by file ending, and paths → documents.
 * @module
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, InputError } from "../../core/errors.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import type { SampleDocument, SampleSource } from "./document.ts";
import { readIdTensors } from "./id-tensors.ts";
import { readJson } from "./json.ts";
import { readJsonLines } from "./json-lines.ts";
import { readParquet } from "./parquet.ts";
import { readTextFile } from "./text.ts";

/** Every source, by file ending. To add one: a file beside this one and one line below. */
export const SOURCES: Readonly<Record<string, SampleSource>> = {
  ".txt": readTextFile,
  ".text": readTextFile,
  ".md": readTextFile,
  ".rst": readTextFile,
  ".txt.gz": readTextFile,
  ".jsonl": readJsonLines,
  ".ndjson": readJsonLines,
  ".jsonl.gz": readJsonLines,
  ".json": readJson,
  ".parquet": readParquet,
  ".safetensors": readIdTensors,
};

/** What to try where there is nothing to read. */
export const BUNDLED_SAMPLE_HINT = "the package brings a sample: --data fixtures/data/calib.txt";

function findSource(path: string): SampleSource | undefined {
  const ending = Object.keys(SOURCES)
    .filter((candidate) => path.toLowerCase().endsWith(candidate))
    .toSorted((a, b) => b.length - a.length)[0];
  return ending === undefined ? undefined : SOURCES[ending];
}

/**
 * The documents of files and folders, in the order given; folders are read in the order of names, with what lies below.
 *
 * @throws {InputError} `input.no-data` without paths, `input.path` for a path that is not there or a folder without readable files.
 */
export async function* readDocuments(paths: readonly string[]): AsyncIterable<SampleDocument> {
  if (paths.length === 0) throw new InputError("input.no-data", `no data was given; ${BUNDLED_SAMPLE_HINT}`);
  for (const path of paths) {
    for (const file of await listFiles(path)) {
      const source = findSource(file) ?? (await guessSource(file));
      yield* source(file);
    }
  }
}

async function listFiles(path: string): Promise<string[]> {
  let isDirectory: boolean;
  try {
    isDirectory = (await stat(path)).isDirectory();
  } catch (error) {
    throw new InputError("input.path", `there is no file or folder ${path}; ${BUNDLED_SAMPLE_HINT}`, { path }, { cause: error });
  }
  if (!isDirectory) return [path];
  const entries = (await readdir(path, { recursive: true })).filter((name) => findSource(name) !== undefined);
  if (entries.length === 0) {
    throw new InputError("input.path", `${path} holds no sample files; known endings: ${Object.keys(SOURCES).join(" ")}`, { path });
  }
  return entries.toSorted().map((name) => join(path, name));
}

/** Files without a known ending are text when they look like it. */
async function guessSource(path: string): Promise<SampleSource> {
  const source = await openFileSource(path);
  try {
    const head = await source.read(0, Math.min(4096, source.size));
    if (!head.includes(0)) return readTextFile;
  } finally {
    await source.close();
  }
  throw new FormatError(
    "format.magic",
    `${path} is neither text nor a known kind of sample file; known endings: ${Object.keys(SOURCES).join(" ")}`,
    {
      path,
    },
  );
}
