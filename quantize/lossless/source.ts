/**
 * What a lossless run reads: the safetensors files of a model directory, a diffusers
 * directory (one component a sub-folder), or one file, with their exact headers.
 * @module
 */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FormatError, InputError } from "../../core/errors.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import { parseIndex, readConfig, MAX_INDEX_BYTES } from "../../formats/checkpoint.ts";
import { openFileSource, readSmallFile } from "../../formats/containers/bytes.ts";
import { isObject } from "../../formats/containers/json.ts";
import { openSafetensors, PREFIX_BYTES } from "../../formats/containers/safetensors/read.ts";
import { INDEX_FILE, SINGLE_FILE } from "../../formats/shards.ts";
import { readCompactRecord } from "./compact/record.ts";

/** One weight file. */
export interface SourceFile {
  /** Relative to the source's root, with "/". */
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  /** The file's first bytes: length prefix and header, as they are. */
  readonly header: Uint8Array;
  /** In file order. */
  readonly tensors: readonly LazyTensor[];
}

/** A folder of weights with one config.json. */
export interface Component {
  /** Relative to the root: "" or, for diffusers, e.g. "transformer/". */
  readonly prefix: string;
  readonly files: readonly SourceFile[];
  readonly config?: Readonly<Record<string, unknown>>;
  /** Name of the file for tensors outside units, as `save_pretrained` would call it. */
  readonly restFile: string;
}

export interface LosslessSource {
  /** Directory that names are relative to. */
  readonly root: string;
  /** One file was given rather than a directory. */
  readonly isFile: boolean;
  readonly components: readonly Component[];
  /** Every other file that goes along, relative names, sorted. */
  readonly others: readonly string[];
  readonly notes: readonly string[];
}

const DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors";
const DIFFUSERS_INDEX = "diffusion_pytorch_model.safetensors.index.json";
/** Weights in other formats, which do not go along. */
const FOREIGN_WEIGHTS = /\.(?:bin|pt|pth|ckpt|pkl|pickle|h5|msgpack|onnx|onnx_data|gguf|ggml|npz|safetensors|tflite|mlmodel)$/i;
/** Largest other file that goes along. */
const MAX_OTHER_BYTES = 2 ** 28;
const MAX_DEPTH = 4;

/**
 * @throws {InputError} `input.path`; {FormatError} `format.missing` without safetensors files, else as the readers.
 */
export async function openLosslessSource(path: string): Promise<LosslessSource> {
  const facts = await stat(path).catch((cause: unknown) => {
    throw new InputError("input.path", `${path}: no such file or directory`, { path }, { cause });
  });
  if (!facts.isDirectory()) {
    const file = await readSourceFile(path, basename(path));
    return {
      root: dirname(path),
      isFile: true,
      components: [{ prefix: "", files: [file], restFile: basename(path) }],
      others: [],
      notes: [],
    };
  }
  if ((await readCompactRecord(path)) !== undefined)
    throw new InputError("input.path", `${path} is a compact artifact already; restore it first, or give the model it was made from`, {
      path,
    });
  const notes: string[] = [];
  const components: Component[] = [];
  const own = await openComponent(path, "", notes);
  if (own !== undefined) components.push(own);
  if (own === undefined || (await isThere(join(path, "model_index.json")))) {
    for (const name of (await readdir(path)).toSorted()) {
      if (name.startsWith(".") || !(await stat(join(path, name))).isDirectory()) continue;
      const component = await openComponent(path, `${name}/`, notes);
      if (component !== undefined) components.push(component);
    }
  }
  if (components.length === 0) {
    throw new FormatError("format.missing", `${path} has no .safetensors files, and no sub-folder has; pickled weights are not read`, {
      path,
    });
  }
  const weights = new Set(components.flatMap(({ files }) => files.map(({ name }) => name)));
  const others = (await listOthers(path, "", 0, notes)).filter((name) => !weights.has(name));
  return { root: path, isFile: false, components, others, notes };
}

async function openComponent(root: string, prefix: string, notes: string[]): Promise<Component | undefined> {
  const directory = join(root, prefix);
  const names = new Set(await readdir(directory));
  const all = [...names].filter((name) => name.endsWith(".safetensors") && !name.startsWith(".")).toSorted();
  if (all.length === 0 && !names.has(INDEX_FILE) && !names.has(DIFFUSERS_INDEX)) return undefined;
  const chosen = await chooseFiles(directory, names, all);
  const left = all.filter((name) => !chosen.includes(name));
  if (left.length > 0)
    notes.push(`${prefix}${left.slice(0, 3).join(", ")}${left.length > 3 ? ", …" : ""}: not part of the model that loads, left out`);
  const files: SourceFile[] = [];
  const home = new Map<string, string>();
  for (const name of chosen) {
    const file = await readSourceFile(join(directory, name), prefix + name);
    for (const tensor of file.tensors) {
      const other = home.get(tensor.name);
      if (other !== undefined)
        throw new FormatError("format.duplicate", `${directory}: tensor ${tensor.name} is in both ${other} and ${name}`, {
          tensor: tensor.name,
        });
      home.set(tensor.name, name);
    }
    files.push(file);
  }
  const config = await readConfig(directory);
  if (config !== undefined && isObject(config["dfloat11_config"])) {
    throw new InputError(
      "input.path",
      `${directory} is a DFloat11 artifact already; restore it first, or give the model it was made from`,
      { path: directory },
    );
  }
  const isDiffusers = chosen[0]!.startsWith("diffusion_pytorch_model");
  return { prefix, files, restFile: isDiffusers ? DIFFUSERS_FILE : SINGLE_FILE, ...(config && { config }) };
}

/** Which files make the model, as loaders choose: index, else the single file, else all there are. */
async function chooseFiles(directory: string, names: ReadonlySet<string>, all: readonly string[]): Promise<readonly string[]> {
  for (const [index, single] of [
    [INDEX_FILE, SINGLE_FILE],
    [DIFFUSERS_INDEX, DIFFUSERS_FILE],
  ] as const) {
    if (names.has(single)) return [single];
    if (!names.has(index)) continue;
    const shards = [...new Set(parseIndex(await readSmallFile(join(directory, index), MAX_INDEX_BYTES), index).values())].toSorted();
    const missing = shards.filter((shard) => !names.has(shard));
    if (missing.length > 0) {
      throw new FormatError(
        "format.missing",
        `${directory}: ${missing.length} of ${shards.length} shards named by ${index} are missing, first ${missing[0]}`,
        { missing },
      );
    }
    return shards;
  }
  return all;
}

async function readSourceFile(path: string, name: string): Promise<SourceFile> {
  const source = await openFileSource(path);
  try {
    const { tensors } = await openSafetensors(source);
    const prefix = await source.read(0, PREFIX_BYTES);
    const headerBytes = Number(new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true));
    return { name, path, bytes: source.size, header: await source.read(0, PREFIX_BYTES + headerBytes), tensors: [...tensors.values()] };
  } finally {
    await source.close();
  }
}

/** Files that are no weights, below the root; hidden ones and what is too large for a carried file stay behind. */
async function listOthers(root: string, prefix: string, depth: number, notes: string[]): Promise<readonly string[]> {
  const found: string[] = [];
  for (const name of (await readdir(join(root, prefix))).toSorted()) {
    if (name.startsWith(".")) continue;
    const facts = await stat(join(root, prefix, name)).catch(() => undefined);
    if (facts?.isDirectory() === true && depth < MAX_DEPTH) found.push(...(await listOthers(root, `${prefix}${name}/`, depth + 1, notes)));
    if (facts?.isFile() !== true || name.endsWith(".partial")) continue;
    if (FOREIGN_WEIGHTS.test(name)) continue;
    if (facts.size > MAX_OTHER_BYTES)
      notes.push(`${prefix}${name} (${facts.size} bytes) is left behind: larger than ${MAX_OTHER_BYTES} bytes`);
    else found.push(prefix + name);
  }
  return found;
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
