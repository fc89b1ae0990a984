/**
 * `--data` and how samples are cut from it.
 * @module
 */
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import { collect, parseInteger } from "../options.ts";

export interface DataOptions {
  readonly data?: readonly string[];
  readonly samples?: string;
  readonly seqLen?: string;
  readonly seed?: string;
  readonly shuffle?: boolean;
  readonly packing?: string;
  readonly roundInputs?: boolean;
}

/** What an error about missing data offers. */
export const NO_DATA_HINT =
  "a sample comes with the repository and the package: fixtures/data/calib.txt (public domain English); better is text like what the model will see";

export function addDataOptions(command: Command): void {
  command
    .option(
      "--data <file|dir>",
      "text, jsonl, parquet or token ids (.json); for other models arrays (.npz, .npy, name=x.npy, .json, .jsonl) or images (.png, .jpg); repeatable",
      collect,
    )
    .option("--samples <n>", "sequences, arrays' rows or images to use (default 128)")
    .option("--seq-len <n>", "tokens a sequence (default 512, at most the model's positions)")
    .option(
      "--packing <how>",
      "pack: documents joined and cut (default for text); truncate: one sequence a document (default for lists of ids)",
    )
    .option("--round-inputs", "round arrays to the model's narrower floats (float64 to float32) where that changes values")
    .option("--shuffle", "draw sequences in an order given by --seed instead of from the start")
    .option("--seed <n>", "seed of everything random (default 0)");
}

export interface SampleOptions {
  /** Left out: up to 128, as many as the data gives. */
  readonly samples?: number;
  /** Left out: 512, or the model's positions where those are fewer. */
  readonly sequenceLength?: number;
  /** Left out: as fits the kind of file. */
  readonly packing?: "pack" | "truncate";
  readonly shuffle: boolean;
  readonly seed: number;
  /** Left out: arrays are converted only where that changes no value. */
  readonly roundInputs?: true;
}

/** @throws {InputError} `input.option` */
export function sampleOptions(options: DataOptions): SampleOptions {
  const { packing } = options;
  if (packing !== undefined && packing !== "pack" && packing !== "truncate") {
    throw new InputError("input.option", `--packing "${packing}" must be pack or truncate`, { word: packing, known: ["pack", "truncate"] });
  }
  return {
    ...(options.samples === undefined ? {} : { samples: parseInteger("--samples", options.samples, 1, 2 ** 24) }),
    ...(options.seqLen === undefined ? {} : { sequenceLength: parseInteger("--seq-len", options.seqLen, 1, 2 ** 24) }),
    ...(packing === undefined ? {} : { packing }),
    shuffle: options.shuffle === true,
    ...(options.roundInputs === true ? { roundInputs: true } : {}),
    seed: parseInteger("--seed", options.seed ?? "0", 0, 2 ** 32 - 1),
  };
}
