/**
 * What a language model or text encoder is fed beside its token ids: masks, positions, segments, an empty cache.
 * Names and axes are those of the graphs that Optimum and transformers.js exchange.
 * @module
 */
import { byteLength } from "../core/dtype.ts";
import { tensorOf, type Tensor } from "../core/tensor.ts";
import type { ValueType } from "./graph/graph.ts";

export const TOKEN_IDS = "input_ids";
const PAST = /^past(?:_key_values)?\./;

/** Whether the model reads token ids: text can be its data. */
export function takesTokenIds(inputs: readonly ValueType[]): boolean {
  return inputs.some(({ name, shape }) => name === TOKEN_IDS && shape.length === 2);
}

/**
 * The inputs given, and those that follow from `input_ids` where they are missing: `attention_mask` of ones over cache and
 * ids, `position_ids` after the cache, `token_type_ids` of zeros, `past_key_values.*` of length 0, `use_cache_branch` false.
 * Inputs that do not follow stay missing.
 *
 * @param given - `input_ids` [batch, tokens] or [tokens]; without them nothing is added.
 */
export function completeInputs(given: ReadonlyMap<string, Tensor>, inputs: readonly ValueType[]): ReadonlyMap<string, Tensor> {
  const ids = given.get(TOKEN_IDS);
  if (ids === undefined || ids.shape.length === 0 || ids.shape.length > 2) return given;
  const [batch, tokens] = ids.shape.length === 2 ? [ids.shape[0]!, ids.shape[1]!] : [1, ids.shape[0]!];
  const cached = [...given].find(([name, { shape }]) => PAST.test(name) && shape.length === 4)?.[1].shape[2] ?? 0;
  const rows = (length: number, value: (i: number) => number): Tensor =>
    tensorOf(
      BigInt64Array.from({ length: batch * length }, (_, i) => BigInt(value(i % length))),
      [batch, length],
    );
  const complete = new Map(given);
  for (const input of inputs) {
    if (complete.has(input.name)) continue;
    const { name, dtype, shape } = input;
    if (name === "attention_mask" && shape.length === 2)
      complete.set(
        name,
        rows(cached + tokens, () => 1),
      );
    else if (name === "position_ids" && shape.length === 2)
      complete.set(
        name,
        rows(tokens, (i) => cached + i),
      );
    else if (name === "token_type_ids" && shape.length === 2)
      complete.set(
        name,
        rows(tokens, () => 0),
      );
    else if (name === "use_cache_branch" && dtype === "BOOL") complete.set(name, { dtype, shape: [1], bytes: new Uint8Array(1) });
    else if (PAST.test(name) && shape.length === 4 && typeof shape[1] === "number" && typeof shape[3] === "number") {
      const empty = [batch, shape[1], typeof shape[2] === "number" ? shape[2] : cached, shape[3]];
      complete.set(name, { dtype, shape: empty, bytes: new Uint8Array(byteLength(dtype, empty)) });
    }
  }
  return complete;
}
