/**
 * Samples for any model: text where it reads token ids, else named arrays and images.
 * @module
 */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { InputError } from "../../core/errors.ts";
import { tensorOf, type Tensor } from "../../core/tensor.ts";
import { completeInputs, takesTokenIds, TOKEN_IDS } from "../../model/complete-inputs.ts";
import { bytesOf, concatenate } from "../../model/host-tensor.ts";
import { tokenSample } from "../../model/inputs.ts";
import { batchAxisOf, describeInput, matchInputs } from "../../model/match-inputs.ts";
import type { Model } from "../../model/model.ts";
import type { Samples } from "../../model/sample-list.ts";
import { ONNX_FAMILY } from "../../model/sources/onnx.ts";
import { loadTokenizer } from "../../model/tokenizer.ts";
import type { Sample } from "../../model/walk-types.ts";
import { DEFAULT_SAMPLES, loadSequences, type SequenceOptions } from "../samples.ts";
import { readPreprocessor, type ImageSteps } from "./image/preprocessor.ts";
import { listSamples, type ListOptions } from "./list.ts";
import { inputEnding, listFiles, listItems } from "./sources.ts";
import type { SourceContext } from "./source.ts";
import { isNamedRecords } from "./text-or-arrays.ts";

export type OpenSamplesOptions = Pick<SequenceOptions, "samples" | "sequenceLength" | "packing" | "shuffle" | "seed" | "signal"> &
  Pick<ListOptions, "roundInputs">;

/**
 * @param paths - files and folders, or `name=path.npy`.
 * @returns up to 128 samples, or as many as asked for; arrays and images are read when it is their turn.
 * @throws {InputError} `input.no-data` without paths; `input.data`, `input.path`; what the sources of text, arrays and images throw.
 */
export async function openSamples(model: Model, paths: readonly string[], options: OpenSamplesOptions = {}): Promise<Samples> {
  if (paths.length === 0) throw new InputError("input.no-data", `no data was given; the model takes ${describeInputs(model)}`);
  if (takesTokenIds(model.inputs) && (await isText(paths, model))) return textSamples(model, paths, options);
  const items = await listItems(paths, contextOf(model));
  return listSamples(
    items,
    model.inputs,
    { ...options, defaultSamples: DEFAULT_SAMPLES },
    paths.length === 1 ? paths[0]! : `${paths.length} paths`,
  );
}

/**
 * Inputs for one run: all samples of a file or folder, joined along the batch axis.
 *
 * @throws {InputError} as {@link openSamples}; `input.shape` for several samples where the model has no batch axis or their shapes differ.
 */
export async function readInputs(
  model: Model,
  paths: readonly string[],
  options: Pick<ListOptions, "roundInputs"> = {},
): Promise<Map<string, Tensor>> {
  const where = paths.join(", ");
  const list = listSamples(await listItems(paths, contextOf(model)), model.inputs, options, where);
  if (list.length > 1 && batchAxisOf(model.inputs) === undefined) {
    throw new InputError("input.shape", `${where} holds ${list.length} samples; the model takes one at a time: ${describeInputs(model)}`, {
      samples: list.length,
    });
  }
  const samples: Sample[] = [];
  for (let i = 0; i < list.length; i++) samples.push(await list.read(i));
  return new Map(
    model.inputs.map(({ name }) => {
      const parts = samples.map(({ inputs }) => inputs[name]!);
      const other = parts.find(({ shape }) => shape.slice(1).join() !== parts[0]!.shape.slice(1).join());
      if (other !== undefined) {
        throw new InputError(
          "input.shape",
          `${where}: ${name} is [${parts[0]!.shape.join(", ")}] in one sample and [${other.shape.join(", ")}] in another; run them one by one`,
          { name },
        );
      }
      const joined = concatenate(parts);
      return [name, { dtype: joined.dtype, shape: joined.shape, bytes: bytesOf(joined) }];
    }),
  );
}

function contextOf(model: Model): SourceContext {
  let steps: Promise<ImageSteps> | undefined;
  return { inputs: model.inputs, imageSteps: () => (steps ??= readPreprocessor(model.directory)) };
}

function describeInputs(model: Model): string {
  return model.inputs.map(describeInput).join(", ") || "no inputs";
}

/** Whether the data is text or token ids; files of both kinds cannot be mixed. */
async function isText(paths: readonly string[], model: Model): Promise<boolean> {
  const names = model.inputs.map(({ name }) => name);
  const kinds = new Set<boolean>();
  for (const path of paths) {
    const isPair = path.includes("=") && path.toLowerCase().endsWith(".npy");
    const files = isPair ? [path] : await listFiles(path).catch(() => [path]);
    for (const file of files) {
      const ending = inputEnding(file);
      const isArrays =
        ending !== undefined && ending !== ".safetensors" && (ending.startsWith(".npy") || ending === ".npz" || isImage(ending));
      kinds.add(!(isArrays || (ending?.includes("json") === true && (await isNamedRecords(file, names)))));
    }
  }
  if (kinds.size === 2)
    throw new InputError("input.data", `${paths.join(", ")}: give either text and token ids or named arrays`, { paths });
  return kinds.has(true);
}

function isImage(ending: string): boolean {
  return ending === ".png" || ending === ".jpg" || ending === ".jpeg";
}

/** Text by the model's tokenizer, or token ids. */
async function textSamples(model: Model, paths: readonly string[], options: OpenSamplesOptions): Promise<readonly Sample[]> {
  const { roundInputs: _rounds, ...sequence } = options;
  if (model.facts.family !== ONNX_FAMILY) {
    const { directory, facts } = model;
    const sequences = await loadSequences(paths, {
      ...sequence,
      vocabularySize: facts.vocabularySize,
      maxPositions: facts.maxPositions,
      ...(directory !== undefined && { tokenizer: () => loadTokenizer(directory) }),
    });
    return sequences.map((ids) => tokenSample(model, ids));
  }
  const { directory } = model;
  const fixed = model.inputs.find(({ name }) => name === TOKEN_IDS)!.shape[1]!;
  const maxPositions = typeof fixed === "number" ? fixed : await positionsOf(directory);
  const sequences = await loadSequences(paths, {
    ...sequence,
    vocabularySize: Number.MAX_SAFE_INTEGER,
    ...(maxPositions !== undefined && { maxPositions }),
    ...(directory !== undefined && { tokenizer: () => nearestTokenizer(directory) }),
  });
  return sequences.map((ids, i) => {
    const given = new Map([[TOKEN_IDS, tensorOf(BigInt64Array.from(ids, BigInt), [1, ids.length])]]);
    return { inputs: matchInputs(completeInputs(given, model.inputs), model.inputs, { where: `sequence ${i}` }) };
  });
}

/** Beside the model, or above it where it lies in a folder `onnx`. */
async function nearestTokenizer(directory: string): ReturnType<typeof loadTokenizer> {
  try {
    return await loadTokenizer(directory);
  } catch (error) {
    if (!(error instanceof InputError && error.code === "input.path")) throw error;
    return loadTokenizer(dirname(directory));
  }
}

/** Positions that the config.json beside or above the model says it has. */
async function positionsOf(directory: string | undefined): Promise<number | undefined> {
  if (directory === undefined) return undefined;
  for (const place of [directory, dirname(directory)]) {
    const text = await readFile(join(place, "config.json"), "utf8").catch(() => undefined);
    if (text === undefined) continue;
    const config: unknown = parseOrNothing(text);
    const positions =
      typeof config === "object" && config !== null && "max_position_embeddings" in config ? config.max_position_embeddings : undefined;
    return typeof positions === "number" && Number.isSafeInteger(positions) && positions > 0 ? positions : undefined;
  }
  return undefined;
}

function parseOrNothing(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
