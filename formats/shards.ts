/**
 * How a large checkpoint is cut into files (the naming of huggingface_hub's `split_state_dict_into_shards`).
 * @module
 */
import { byteLength } from "../core/dtype.ts";
import { InputError } from "../core/errors.ts";
import type { TensorSpec } from "./containers/container.ts";

/** A checkpoint in one file has this name and no index. */
export const SINGLE_FILE = "model.safetensors";
/** Which shard holds which tensor. */
export const INDEX_FILE = "model.safetensors.index.json";

/** Which tensors go into which file. */
export interface ShardPlan {
  /** In order; one file named `model.safetensors`, or `model-00001-of-0000N.safetensors` and so on. */
  readonly shards: readonly { readonly file: string; readonly specs: readonly TensorSpec[] }[];
  /** Content of `model.safetensors.index.json`; absent for a single file. */
  readonly index?: ShardIndex;
}

export interface ShardIndex {
  /** `total_size`: tensor bytes, headers not counted. */
  readonly metadata: { readonly total_size: number };
  /** Tensor name → file, sorted by name. */
  readonly weight_map: Readonly<Record<string, string>>;
}

/** Shard size of transformers: 5 GB of tensor bytes. */
export const DEFAULT_SHARD_BYTES = 5_000_000_000;

/**
 * Fill shards in the order given; a tensor is never split, so one larger than the limit has a shard for itself.
 *
 * @param maxShardBytes - tensor bytes of one shard, at least 1.
 * @throws {InputError} `input.option` for another limit, `input.value` for a name given twice.
 */
export function planShards(specs: readonly TensorSpec[], maxShardBytes: number = DEFAULT_SHARD_BYTES): ShardPlan {
  if (!Number.isSafeInteger(maxShardBytes) || maxShardBytes < 1) {
    throw new InputError("input.option", `maxShardBytes (${maxShardBytes}) must be an integer of at least 1`, { maxShardBytes });
  }
  const groups: TensorSpec[][] = [];
  let room = 0;
  let total = 0;
  for (const spec of specs) {
    const bytes = byteLength(spec.dtype, spec.shape);
    if (groups.length === 0 || bytes > room) {
      groups.push([]);
      room = maxShardBytes;
    }
    groups.at(-1)!.push(spec);
    room -= bytes;
    total += bytes;
  }
  if (groups.length <= 1) return { shards: [{ file: SINGLE_FILE, specs }] };
  const pad = (n: number): string => String(n).padStart(5, "0");
  const shards = groups.map((group, i) => ({ file: `model-${pad(i + 1)}-of-${pad(groups.length)}.safetensors`, specs: group }));
  const pairs = shards.flatMap(({ file, specs: inside }) => inside.map(({ name }) => [name, file] as const));
  pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const twice = pairs.find(([name], i) => i > 0 && pairs[i - 1]![0] === name);
  if (twice !== undefined) throw new InputError("input.value", `tensor ${JSON.stringify(twice[0])} is given twice`, { name: twice[0] });
  return { shards, index: { metadata: { total_size: total }, weight_map: Object.fromEntries(pairs) } };
}
