/**
 * Sources of named inputs by file ending, and paths → items.
 * @module
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { InputError } from "../../core/errors.ts";
import { listImage } from "./image.ts";
import { listJson, listJsonLines } from "./json.ts";
import { listNamedNpy, listNpy } from "./npy.ts";
import { listNpz } from "./npz.ts";
import { listSafetensors } from "./safetensors.ts";
import type { InputItem, InputSource, SourceContext } from "./source.ts";

/** Every source, by file ending. To add one: a file beside this one and one line below. */
export const INPUT_SOURCES: ReadonlyMap<string, InputSource> = new Map([
  [".npz", listNpz],
  [".npy", listNpy],
  [".png", listImage],
  [".jpg", listImage],
  [".jpeg", listImage],
  [".json", listJson],
  [".jsonl", listJsonLines],
  [".ndjson", listJsonLines],
  [".safetensors", listSafetensors],
]);

/** `name=path.npy` */
const NAMED = /^([^=]+)=(.+\.npy)$/i;

/** The ending under which a source is known. */
export function inputEnding(path: string): string | undefined {
  return [...INPUT_SOURCES.keys()].find((ending) => path.toLowerCase().endsWith(ending));
}

/**
 * The items of files and folders, in the order given; folders in the order of names, with what lies below. All `name=path.npy`
 * together are one item.
 *
 * @throws {InputError} `input.path` for a path that is not there, `input.data` for a file of another kind and a folder without any; what the
 *   sources throw.
 */
export async function listItems(paths: readonly string[], context: SourceContext): Promise<readonly InputItem[]> {
  const items: InputItem[] = [];
  const named: [name: string, path: string][] = [];
  for (const path of paths) {
    const match = NAMED.exec(path);
    if (match !== null && !(await isThere(path))) {
      named.push([match[1]!, match[2]!]);
      continue;
    }
    for (const file of await listFiles(path)) {
      const source = INPUT_SOURCES.get(inputEnding(file) ?? "");
      if (source === undefined) throw unknownKind(file);
      items.push(...(await source(file, context)));
    }
  }
  if (named.length > 0) items.push(...(await listNamedNpy(named, context)));
  return items;
}

/** A file, or the files of known endings below a folder. @throws {InputError} `input.path`, `input.data`. */
export async function listFiles(path: string): Promise<readonly string[]> {
  const facts = await stat(path).catch((cause: unknown) => {
    throw new InputError("input.path", `there is no file or folder ${path}`, { path }, { cause });
  });
  if (!facts.isDirectory()) return [path];
  const files = (await readdir(path, { recursive: true })).filter((name) => inputEnding(name) !== undefined).toSorted();
  if (files.length > 0) return files.map((name) => join(path, name));
  throw new InputError("input.data", `${path} holds no samples; known endings: ${[...INPUT_SOURCES.keys()].join(" ")}`, { path });
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

function unknownKind(path: string): InputError {
  return new InputError(
    "input.data",
    `${path}: samples for this model are named arrays or images, ending in ${[...INPUT_SOURCES.keys()].join(" ")}`,
    { path, known: [...INPUT_SOURCES.keys()] },
  );
}
