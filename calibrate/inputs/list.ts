/**
 * Items → the samples of a run: how many, in which order, matched to the model when they are read.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { createRandom, shuffled } from "../../core/random.ts";
import type { Tensor } from "../../core/tensor.ts";
import { completeInputs } from "../../model/complete-inputs.ts";
import type { ValueType } from "../../model/graph/graph.ts";
import { matchInputs } from "../../model/match-inputs.ts";
import type { SampleList } from "../../model/sample-list.ts";
import { rowOf } from "./rows.ts";
import type { InputItem } from "./source.ts";

export interface ListOptions {
  /** Samples wanted: exactly so many. Left out: at most `defaultSamples`. */
  readonly samples?: number;
  /** Default: all. */
  readonly defaultSamples?: number;
  /** Draw at random instead of taking the first ones. */
  readonly shuffle?: boolean;
  /** For `shuffle`. Default 0. */
  readonly seed?: number;
  /** As `MatchOptions.roundInputs`. */
  readonly roundInputs?: boolean;
}

/**
 * One file is in memory at a time: the rows of one are read together, also when they were drawn.
 *
 * @throws {InputError} `input.data` when there are fewer samples than wanted; reading a sample throws what its source and `matchInputs` throw.
 */
export function listSamples(items: readonly InputItem[], inputs: readonly ValueType[], options: ListOptions, source: string): SampleList {
  const places = items.flatMap((item) => Array.from({ length: item.rows }, (_, row) => ({ item, row })));
  const wanted = options.samples ?? Math.min(options.defaultSamples ?? Infinity, places.length);
  if (places.length === 0 || places.length < wanted) {
    throw new InputError(
      "input.data",
      `${source}: ${places.length} samples are there, ${wanted} are needed` +
        (places.length > 0 ? ` (--samples ${places.length} takes what is there)` : ""),
      { samples: places.length, needed: wanted },
    );
  }
  const drawn =
    options.shuffle === true ? byItem(shuffled(places, createRandom(options.seed ?? 0)).slice(0, wanted)) : places.slice(0, wanted);
  let open: { readonly item: InputItem; readonly arrays: Promise<ReadonlyMap<string, Tensor>> } | undefined;
  return {
    length: drawn.length,
    async read(index) {
      const { item, row } = drawn[index]!;
      if (open?.item !== item) open = { item, arrays: item.read() };
      const arrays = await open.arrays;
      if (item.rows === 1) open = undefined;
      const where = item.rows === 1 ? item.where : `${item.where}, row ${row}`;
      const given = completeInputs(rowOf(arrays, row, item.rows), inputs);
      return {
        inputs: matchInputs(given, inputs, { where, ...(options.roundInputs !== undefined && { roundInputs: options.roundInputs }) }),
      };
    },
  };
}

/** Places of one item follow one another, where the first of them stood. */
function byItem<T extends { readonly item: InputItem }>(places: readonly T[]): T[] {
  const groups = new Map<InputItem, T[]>();
  for (const place of places) {
    const group = groups.get(place.item);
    if (group === undefined) groups.set(place.item, [place]);
    else group.push(place);
  }
  return [...groups.values()].flat();
}
