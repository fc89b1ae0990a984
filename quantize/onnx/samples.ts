/**
 * Samples for ONNX models, as runs that their graphs take.
 * @module
 */
import { CALIBRATION_BATCH_TOKENS } from "../../calibrate/calibrate.ts";
import { openSamples, type OpenSamplesOptions } from "../../calibrate/inputs/open.ts";
import { readBatches } from "../../model/batches.ts";
import type { Values } from "../../model/engines/engine.ts";
import type { Model } from "../../model/model.ts";

/** One run: some samples joined along the batch axis, or one where the graph leaves none open. */
export interface OnnxRun {
  readonly inputs: Values;
  readonly samples: number;
}

/** Samples that every pass reads anew: nothing but the run at hand is in memory. */
export interface OnnxSamples {
  readonly length: number;
  runs(): AsyncIterable<OnnxRun>;
}

/** No data was given. */
export const NO_SAMPLES: OnnxSamples = { length: 0, async *runs() {} };

/** @throws as `openSamples`; a pass throws what reading a sample does. */
export async function loadOnnxSamples(model: Model, paths: readonly string[], options: OpenSamplesOptions): Promise<OnnxSamples> {
  const samples = await openSamples(model, paths, options);
  return {
    length: samples.length,
    async *runs() {
      for await (const { batch, values } of readBatches(model.inputs, samples, CALIBRATION_BATCH_TOKENS)) {
        yield { inputs: values, samples: batch.samples.length };
      }
    },
  };
}
