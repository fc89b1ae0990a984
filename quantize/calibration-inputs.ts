/**
 * Calibration data as the decide phase takes it.
 * @module
 */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { InputError } from "../core/errors.ts";
import { calibrate, type Calibration, type Tap } from "../calibrate/calibrate.ts";
import { readCalibration, writeCalibration } from "../calibrate/file.ts";
import { openSamples } from "../calibrate/inputs/open.ts";
import type { Engine } from "../model/engines/engine.ts";
import { tokenSample } from "../model/inputs.ts";
import type { Samples } from "../model/sample-list.ts";
import type { Prepared } from "./prepare.ts";
import type { QuantizeOptions } from "./types.ts";

/** Where the bundled sample text lies in the package, for messages. */
const BUNDLED_SAMPLE = "fixtures/data/calib.txt";

/**
 * Samples of the options' data: sequences, arrays or images, as the model takes them.
 *
 * @throws {InputError} `input.no-data` naming the bundled sample when neither data nor sequences are given.
 */
export async function loadSamples({ model }: Pick<Prepared, "model">, options: QuantizeOptions): Promise<Samples> {
  if (options.sequences !== undefined) return options.sequences.map((ids) => tokenSample(model, ids));
  const { data } = options;
  if (data === undefined || data.length === 0) {
    throw new InputError(
      "input.no-data",
      `--method ${options.recipe.method.join("+")} looks at activations: give --data <text, jsonl, parquet or ids; arrays or images for other models> or --calibration <file>; ` +
        `a small text to try it with is bundled as ${BUNDLED_SAMPLE}`,
      { option: "data", sample: BUNDLED_SAMPLE },
    );
  }
  return openSamples(model, data, {
    ...(options.samples !== undefined && { samples: options.samples }),
    ...(options.sequenceLength !== undefined && { sequenceLength: options.sequenceLength }),
    ...(options.packing !== undefined && { packing: options.packing }),
    ...(options.shuffle !== undefined && { shuffle: options.shuffle }),
    ...(options.roundInputs !== undefined && { roundInputs: options.roundInputs }),
    seed: options.recipe.seed ?? 0,
    ...(options.signal !== undefined && { signal: options.signal }),
  });
}

/**
 * The statistics the run needs: from the file or object given, else by running the samples.
 *
 * @param kept - file beside the journal that holds them once they are complete: an interrupted search goes on without another pass.
 * @throws {InputError} `input.data` when a calibration lacks a statistic.
 */
export async function loadCalibration(
  prepared: Prepared,
  options: QuantizeOptions,
  samples: () => Promise<Samples>,
  engine: () => Promise<Engine>,
  kept: string,
): Promise<Calibration> {
  const { statistics, model } = prepared;
  const given = options.calibration;
  if (given !== undefined) {
    const calibration = typeof given === "string" ? await readCalibration(given, { model, force: options.force === true }) : given;
    const missing = statistics.filter((name) => !calibration.statistics.includes(name));
    if (missing.length === 0) return calibration;
    throw new InputError(
      "input.data",
      `the calibration has ${calibration.statistics.join(", ")}; ${missing.join(", ")} missing: calibrate with --statistics ${statistics.join(",")}`,
      { missing, statistics: calibration.statistics },
    );
  }
  if (await isThere(kept)) return readCalibration(kept, { model });
  const { onProgress } = options;
  const calibration = await calibrate(model, await samples(), {
    statistics,
    engine: await engine(),
    taps: outputTaps(prepared),
    ...(options.signal && { signal: options.signal }),
    ...(options.maxMemory !== undefined && { maxMemory: carriedBudget(options.maxMemory) }),
    ...(onProgress && {
      onProgress: ({ tokens, totalTokens, blockName }) =>
        onProgress({ phase: "calibrate", done: tokens, total: totalTokens, unit: "tokens", detail: blockName }),
    }),
    ...(options.data && { data: { paths: options.data.map((path) => resolve(path)) } }),
  });
  await writeCalibration(kept, calibration);
  return calibration;
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Outputs of sites that want a static scale; the same value has the same name in all blocks of a structure. */
function outputTaps({ choices }: Prepared): readonly Tap[] {
  const taps = new Map<string, Tap>();
  for (const { site, plan } of choices)
    if (plan.output?.timing === "static") taps.set(site.output, { value: site.output, channels: site.rows, name: site.output });
  return [...taps.values()];
}

/** Half of the memory allowed goes to hidden states; beyond it they lie in a scratch file. */
export function carriedBudget(maxMemory: number): number {
  return Math.floor(maxMemory / 2);
}
