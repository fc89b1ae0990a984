/**
 * A checkpoint: the tensors of a Hugging Face model directory, whatever files they are in.
 *
 * Which files: `model.safetensors` when it is there (as transformers does), else
 * `model.safetensors.index.json` and the shards it names. When both are there and the
 * index names `model.safetensors` among its shards, the index counts.
 * @module
 */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import pLimit from "p-limit";
import { FormatError, InputError } from "../core/errors.ts";
import type { LazyTensor } from "../core/tensor.ts";
import { openFileSource, readSmallFile } from "./containers/bytes.ts";
import { COMPACT_EXTENSION, openCompactFile } from "./containers/compact/open.ts";
import type { TensorFile } from "./containers/container.ts";
import type { BlockCoder } from "./encodings/compact/coder.ts";
import { isObject, parseJsonObject } from "./containers/json.ts";
import { openSafetensors } from "./containers/safetensors/read.ts";
import { INDEX_FILE, SINGLE_FILE } from "./shards.ts";

export { planShards } from "./shards.ts";

/** Largest config.json read, bytes; published ones stay under 1 MB. */
export const MAX_CONFIG_BYTES: number = 2 ** 24;
/** Largest index read, bytes: about a million tensors. */
export const MAX_INDEX_BYTES: number = 2 ** 27;
const MAX_CONFIG_DEPTH = 64;
const MAX_INDEX_DEPTH = 8;
/** Most shards opened at once; the largest published models have a few hundred. */
const MAX_SHARDS = 4096;
/** Headers read at the same time: they may lie on a slow or remote disk. */
const OPEN_AT_ONCE = 8;

/** Files that hold pickled Python objects. */
const PICKLE = /\.(?:bin|pt|pth|ckpt|pkl|pickle)$/i;

export interface Checkpoint {
  /** As given: a directory or one file. */
  readonly path: string;
  /** Where config.json and the tokenizer files are looked for. */
  readonly directory: string;
  /** The safetensors files, or the compact files that stand for them, full paths. */
  readonly files: readonly string[];
  /** All tensors; files in name order, file order inside each. */
  readonly tensors: ReadonlyMap<string, LazyTensor>;
  /** Parsed config.json, when there is one. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** `__metadata__` of the first file. */
  readonly metadata: Readonly<Record<string, string>>;
  close(): Promise<void>;
}

/** Faster ways that higher layers have; without them the definitions decode. */
export interface CheckpointTools {
  readonly compactCoder?: () => BlockCoder;
}

/**
 * Open a model directory or one .safetensors file; either may be compact. Links are followed and must end in regular files.
 *
 * @throws {InputError} `input.path` when there is nothing at `path`.
 * @throws {FormatError} `format.pickle` when only pickles are there; `format.missing` without any tensors or with shards missing;
 *   `format.path` for shard names that leave the directory or files that are not regular; `format.config` for a bad config.json;
 *   `format.field`, `format.duplicate` when index and shards disagree; else as `openSafetensors`.
 */
export async function openCheckpoint(path: string, tools: CheckpointTools = {}): Promise<Checkpoint> {
  const facts = await stat(path).catch((cause: unknown) => {
    throw new InputError("input.path", `${path}: no such file or directory`, { path }, { cause });
  });
  if (facts.isDirectory()) return openDirectory(path, tools);
  if (PICKLE.test(path)) throw pickleError(path, [basename(path)]);
  const directory = dirname(path);
  return openFiles(path, directory, [path], undefined, tools);
}

async function openDirectory(directory: string, tools: CheckpointTools): Promise<Checkpoint> {
  const names = new Set(await readdir(directory));
  if (await isDfloat11(directory, names)) {
    const all = [...names].filter((name) => name.endsWith(".safetensors") && !name.startsWith(".")).toSorted();
    if (all.length > MAX_SHARDS)
      throw new FormatError("format.limit", `${directory} has ${all.length} files; at most ${MAX_SHARDS} are opened`, { directory });
    return openFiles(
      directory,
      directory,
      all.map((name) => join(directory, name)),
      undefined,
      tools,
    );
  }
  const index = names.has(INDEX_FILE) ? await readIndex(join(directory, INDEX_FILE)) : undefined;
  // A compact file stands for the safetensors file it is named after, unless that is there as well.
  const isThere = (name: string): boolean => names.has(name) || names.has(name + COMPACT_EXTENSION);
  const pathOf = (name: string): string => join(directory, names.has(name) ? name : name + COMPACT_EXTENSION);
  const isSingle = isThere(SINGLE_FILE) && !(index !== undefined && [...index.values()].includes(SINGLE_FILE));
  if (isSingle) return openFiles(directory, directory, [pathOf(SINGLE_FILE)], undefined, tools);
  if (index === undefined) {
    const compact = compactNames(names);
    if (compact.length === 0) throw nothingToOpen(directory, names);
    const paths = compact.map((name) => join(directory, name));
    return openFiles(directory, directory, paths, undefined, tools);
  }
  const shards = [...new Set(index.values())].toSorted();
  if (shards.length > MAX_SHARDS) {
    throw new FormatError("format.limit", `${INDEX_FILE} names ${shards.length} shards; at most ${MAX_SHARDS} are opened`, { directory });
  }
  const missing = shards.filter((name) => !isThere(name));
  if (missing.length > 0) {
    throw new FormatError(
      "format.missing",
      `${directory}: ${missing.length} of ${shards.length} shards named by ${INDEX_FILE} are missing, first ${missing[0]}; download them again`,
      { directory, missing: missing.slice(0, 20) },
    );
  }
  return openFiles(directory, directory, shards.map(pathOf), index, tools);
}

/** Compact files that stand for a file of another name than loaders know: all there are, unless safetensors files are there too. */
function compactNames(names: ReadonlySet<string>): readonly string[] {
  const visible = [...names].filter((name) => !name.startsWith("."));
  if (visible.some((name) => name.endsWith(".safetensors"))) return [];
  return visible.filter((name) => name.endsWith(COMPACT_EXTENSION)).toSorted();
}

/** DFloat11 directories have one file a unit and no index: their loader reads every file there is. */
async function isDfloat11(directory: string, names: ReadonlySet<string>): Promise<boolean> {
  if (!names.has("config.json") || ![...names].some((name) => name.endsWith(".safetensors"))) return false;
  const config = await readConfig(directory);
  return config !== undefined && isObject(config["dfloat11_config"]);
}

async function openFiles(
  path: string,
  directory: string,
  files: readonly string[],
  index: ReadonlyMap<string, string> | undefined,
  tools: CheckpointTools,
): Promise<Checkpoint> {
  const config = await readConfig(directory);
  const opened: TensorFile[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(opened.map((file) => file.close()));
  };
  try {
    opened.push(...(await openAll(files, tools)));
    const tensors = new Map<string, LazyTensor>();
    const home = new Map<string, string>();
    opened.forEach((file, i) => {
      const shard = basename(files[i]!, COMPACT_EXTENSION);
      for (const [name, tensor] of file.tensors) {
        const other = home.get(name);
        if (other !== undefined) {
          throw new FormatError("format.duplicate", `${directory}: tensor ${name} is in both ${other} and ${shard}`, { tensor: name });
        }
        home.set(name, shard);
        tensors.set(name, tensor);
      }
    });
    if (index !== undefined) compareIndex(directory, index, home);
    const metadata = opened[0]?.metadata ?? {};
    return { path, directory, files, tensors, metadata, close, ...(config === undefined ? {} : { config }) };
  } catch (cause) {
    await close();
    throw cause;
  }
}

/** Opens shards a few at a time, in order; when one fails, the others are closed. */
async function openAll(files: readonly string[], tools: CheckpointTools): Promise<TensorFile[]> {
  const limit = pLimit(OPEN_AT_ONCE);
  const results = await Promise.allSettled(files.map((file) => limit(() => openTensorFile(file, tools))));
  const opened = results.filter((result) => result.status === "fulfilled").map(({ value }) => value);
  const failed = results.find((result) => result.status === "rejected");
  if (failed === undefined) return opened;
  await Promise.all(opened.map((file) => file.close()));
  throw failed.reason;
}

async function openTensorFile(path: string, { compactCoder }: CheckpointTools): Promise<TensorFile> {
  if (path.endsWith(COMPACT_EXTENSION)) return openCompactFile(path, compactCoder?.());
  const source = await openFileSource(path);
  try {
    return await openSafetensors(source);
  } catch (cause) {
    await source.close();
    throw cause;
  }
}

/** @returns the parsed config.json of a directory, or undefined when there is none. @throws {FormatError} `format.config`. */
export async function readConfig(directory: string): Promise<Readonly<Record<string, unknown>> | undefined> {
  const path = join(directory, "config.json");
  let bytes: Uint8Array;
  try {
    bytes = await readSmallFile(path, MAX_CONFIG_BYTES);
  } catch (cause) {
    if (cause instanceof InputError && cause.details["reason"] === "ENOENT") return undefined;
    if (cause instanceof FormatError) throw new FormatError("format.config", cause.message, cause.details, { cause });
    throw cause;
  }
  return parseConfig(bytes, path);
}

/** Parse the bytes of a config.json. @param name - for messages. @throws {FormatError} `format.config`. */
export function parseConfig(bytes: Uint8Array, name = "config.json"): Readonly<Record<string, unknown>> {
  return parseJsonObject(bytes, { name, maxDepth: MAX_CONFIG_DEPTH, code: "format.config", duplicates: "last" });
}

async function readIndex(path: string): Promise<ReadonlyMap<string, string>> {
  return parseIndex(await readSmallFile(path, MAX_INDEX_BYTES), path);
}

/**
 * Tensor name → shard name of a `model.safetensors.index.json`.
 *
 * @throws {FormatError} `format.field` when it is not such an index; `format.path` for a shard name that is not a plain
 *   file name ending in .safetensors; `format.duplicate` for a tensor listed twice.
 */
export function parseIndex(bytes: Uint8Array, name: string = INDEX_FILE): ReadonlyMap<string, string> {
  const parsed = parseJsonObject(bytes, { name, maxDepth: MAX_INDEX_DEPTH, code: "format.field", duplicates: "refuse" });
  const weightMap = Object.hasOwn(parsed, "weight_map") ? parsed["weight_map"] : undefined;
  if (!isObject(weightMap)) {
    throw new FormatError("format.field", `${name}: weight_map must be an object from tensor names to file names`, {
      name,
      field: "weight_map",
    });
  }
  const result = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(weightMap)) {
    if (typeof shard !== "string") {
      throw new FormatError("format.field", `${name}: weight_map of ${JSON.stringify(tensor.slice(0, 200))} must be a file name`, { name });
    }
    checkShardName(shard, name);
    result.set(tensor, shard);
  }
  if (result.size === 0) throw new FormatError("format.field", `${name}: weight_map is empty`, { name, field: "weight_map" });
  return result;
}

/** Shards lie beside their index: a name is never a path. */
function checkShardName(shard: string, index: string): void {
  // eslint-disable-next-line no-control-regex -- control characters are what is refused
  const isPlain = shard.length <= 255 && !/[/\\:\u0000-\u001f]/.test(shard) && !shard.startsWith(".");
  if (isPlain && shard.endsWith(".safetensors")) return;
  throw new FormatError(
    "format.path",
    `${index}: shard ${JSON.stringify(shard.slice(0, 255))} must be a file name in the same directory that ends in .safetensors`,
    { index, shard },
  );
}

/** Index and shards must say the same. */
function compareIndex(directory: string, index: ReadonlyMap<string, string>, home: ReadonlyMap<string, string>): void {
  for (const [tensor, shard] of index) {
    const found = home.get(tensor);
    if (found === shard) continue;
    throw new FormatError(
      found === undefined ? "format.missing" : "format.field",
      `${directory}: ${INDEX_FILE} says tensor ${JSON.stringify(tensor.slice(0, 200))} is in ${shard}; it is ${found === undefined ? "in no shard" : `in ${found}`}`,
      { tensor, shard, found },
    );
  }
  for (const [tensor, shard] of home) {
    if (index.has(tensor)) continue;
    throw new FormatError(
      "format.field",
      `${directory}: ${shard} holds tensor ${JSON.stringify(tensor.slice(0, 200))}, which ${INDEX_FILE} does not list`,
      {
        tensor,
        shard,
      },
    );
  }
}

function nothingToOpen(directory: string, names: ReadonlySet<string>): FormatError {
  const pickles = [...names].filter((name) => PICKLE.test(name)).toSorted();
  const others = [...names].filter((name) => name.endsWith(".safetensors")).toSorted();
  if (others.length > 0) {
    return new FormatError(
      "format.missing",
      `${directory} has neither ${SINGLE_FILE} nor ${INDEX_FILE}, but ${others.slice(0, 3).join(", ")}${others.length > 3 ? ", …" : ""}; ` +
        `pass one file by name, or download the index`,
      { directory, found: others.slice(0, 20) },
    );
  }
  if (pickles.length > 0) return pickleError(directory, pickles);
  return new FormatError("format.missing", `${directory} has neither ${SINGLE_FILE} nor ${INDEX_FILE}; is it a model directory?`, {
    directory,
  });
}

function pickleError(path: string, names: readonly string[]): FormatError {
  return new FormatError(
    "format.pickle",
    `${path} holds its weights as pickles (${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""}). Loading a pickle runs whatever code it contains, ` +
      `so they are not read. Convert it to safetensors first (in Python: AutoModelForCausalLM.from_pretrained(dir).save_pretrained(out)), ` +
      `or take the safetensors revision most published models have`,
    { path, files: names.slice(0, 20) },
  );
}
