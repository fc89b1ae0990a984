/**
 * Samples for models: token ids as the inputs a model asks for.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { HostTensor, Values } from "./engines/engine.ts";
import type { Model } from "./model.ts";
import type { Sample } from "./walk-types.ts";

export interface TokenOptions {
  /** Segment of each token, for encoders; all 0 by default. */
  readonly tokenTypes?: readonly number[];
  /** 1 for tokens, 0 for padding, for encoders; all 1 by default. */
  readonly attentionMask?: readonly number[];
}

/**
 * One sequence of ids, positions from 0, every value I64 [1, ids.length].
 *
 * @throws {InputError} `input.value` for an id outside the vocabulary; `input.shape` for lists of another length;
 *   `input.option` for a list the model has no input for.
 */
export function tokenSample(model: Model, ids: readonly number[], options: TokenOptions = {}): Sample {
  const { vocabularySize, maxPositions } = model.facts;
  if (ids.length === 0) throw new InputError("input.value", "a sample needs at least one token id");
  const outside = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabularySize);
  if (outside !== undefined) {
    throw new InputError("input.value", `token id ${outside} is outside the vocabulary of ${vocabularySize} ids`, {
      id: outside,
      vocabularySize,
    });
  }
  if (hasPositionTable(model) && ids.length > maxPositions) {
    throw new InputError("input.shape", `${ids.length} tokens, but the model has positions for ${maxPositions}`, {
      tokens: ids.length,
      maxPositions,
    });
  }
  const lists = new Map<string, readonly number[]>([
    ["input_ids", ids],
    ["position_ids", ids.map((_, position) => position)],
    ["token_type_ids", options.tokenTypes ?? ids.map(() => 0)],
    ["attention_mask", options.attentionMask ?? ids.map(() => 1)],
  ]);
  const names = new Set(model.inputs.map(({ name }) => name));
  if (options.tokenTypes !== undefined && !names.has("token_type_ids")) throw unwanted("tokenTypes", model);
  if (options.attentionMask !== undefined && !names.has("attention_mask")) throw unwanted("attentionMask", model);
  const inputs: Record<string, HostTensor> = {};
  for (const { name } of model.inputs) {
    const list = lists.get(name);
    if (list === undefined) throw new InputError("input.option", `model input ${name} is not made of token ids`, { name });
    if (list.length !== ids.length) {
      throw new InputError("input.shape", `${name} has ${list.length} entries for ${ids.length} tokens`, { name });
    }
    inputs[name] = { dtype: "I64", shape: [1, ids.length], data: BigInt64Array.from(list, BigInt) };
  }
  return { inputs: inputs satisfies Values };
}

/** Whether positions are rows of a table, so that a longer sequence has none; rotary positions go on for ever. */
function hasPositionTable({ blocks }: Model): boolean {
  const graph = blocks[0]?.graph;
  if (graph === undefined) return false;
  const places = new Set(["position_ids"]);
  for (const { op, inputs, outputs } of graph.nodes) if (op === "Add" && places.has(inputs[0]!)) places.add(outputs[0]!);
  return graph.nodes.some(({ op, inputs }) => op === "Gather" && places.has(inputs[1]!));
}

function unwanted(option: string, model: Model): InputError {
  return new InputError("input.option", `${model.facts.className} takes no ${option}`, { option });
}
