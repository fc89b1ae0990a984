/**
 * Samples in memory, or read when it is their turn.
 * @module
 */
import type { Sample } from "./walk-types.ts";

/** Samples that are read one by one: a folder of images is never in memory as a whole. */
export interface SampleList {
  readonly length: number;
  /** @param index - 0 to length − 1. Reading in order is cheapest; reading twice gives the same sample. */
  read(index: number): Promise<Sample>;
}

export type Samples = readonly Sample[] | SampleList;

/** The samples in order, one in memory at a time where they are a list. */
export async function* eachSample(samples: Samples): AsyncGenerator<Sample> {
  if (!("read" in samples)) {
    yield* samples;
    return;
  }
  for (let index = 0; index < samples.length; index++) yield samples.read(index);
}

/** Samples in memory: all that are there already, or the first of a list, at most `limit`. */
export async function firstSamples(samples: Samples, limit: number): Promise<readonly Sample[]> {
  if (!("read" in samples)) return samples;
  const first: Sample[] = [];
  for (let index = 0; index < Math.min(limit, samples.length); index++) first.push(await samples.read(index));
  return first;
}
