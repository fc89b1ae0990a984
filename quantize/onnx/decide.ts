/**
 * What calibration data decides: smoothed weights, activation scales, sites that stay in float.
 * @module
 */
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import type { Engine } from "../../model/engines/engine.ts";
import type { QuantizeOptions } from "../types.ts";
import type { ChosenSite } from "./actions.ts";
import { observeOnnx, type Observed, type OnnxTap } from "./observe.ts";
import type { PreparedOnnx } from "./prepare.ts";
import { chooseRange, needsHistogram } from "./ranges.ts";
import type { OnnxSample } from "./samples.ts";
import { activationScale, type ActivationScale } from "./scales.ts";
import type { OnnxSettings } from "./settings.ts";

/** Everything the rewrite needs. */
export interface OnnxDecisions {
  /** The source with the transforms applied. */
  readonly model: OnnxModel;
  readonly choices: readonly ChosenSite[];
  /** By value of the main graph. */
  readonly scales: ReadonlyMap<string, ActivationScale>;
  readonly notes: readonly string[];
}

/** Decide, running the samples where the recipe asks for it. @throws as `observeOnnx`. */
export async function decideOnnx(
  prepared: PreparedOnnx,
  samples: readonly OnnxSample[],
  engine: Engine,
  options: QuantizeOptions,
): Promise<OnnxDecisions> {
  const { settings, choices } = prepared;
  const { model } = prepared;
  const isStatic = choices.some(({ action }) => action.kind === "static");
  const scales = isStatic ? await staticScales(model, choices, settings, samples, engine, options) : new Map<string, ActivationScale>();
  return { model, choices, scales, notes: [] };
}

async function staticScales(
  model: OnnxModel,
  choices: readonly ChosenSite[],
  settings: OnnxSettings,
  samples: readonly OnnxSample[],
  engine: Engine,
  { signal, onProgress }: QuantizeOptions,
): Promise<ReadonlyMap<string, ActivationScale>> {
  const values = new Set(choices.flatMap(({ site, action }) => (action.kind === "static" ? [site.input] : [])));
  const taps = [...values].map((value): OnnxTap => ({ value, histogram: needsHistogram(settings.calibrator) }));
  const seen = await observeOnnx(model, samples, taps, { engine, ...(signal && { signal }), ...(onProgress && { onProgress }) });
  return new Map([...seen].map(([value, found]) => [value, scaleOf(found, settings)]));
}

/** Scale of a value from what was seen of it. */
export function scaleOf(seen: Observed, { calibrator, activationBits, percentile }: OnnxSettings): ActivationScale {
  return activationScale(chooseRange(seen, calibrator, activationBits, percentile), activationBits);
}
