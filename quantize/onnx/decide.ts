/**
 * What calibration data decides: smoothed weights, activation scales, sites that stay in float.
 * @module
 */
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import type { Engine } from "../../model/engines/engine.ts";
import type { QuantizeOptions } from "../types.ts";
import type { ChosenSite } from "./actions.ts";
import { findOnnxSites } from "../../model/onnx/sites.ts";
import { observeOnnx, type Observed, type ObserveOptions, type OnnxTap } from "./observe.ts";
import type { PreparedOnnx } from "./prepare.ts";
import { chooseRange, needsHistogram } from "./ranges.ts";
import type { OnnxSamples } from "./samples.ts";
import { activationScale, type ActivationScale } from "./scales.ts";
import type { OnnxSettings } from "./settings.ts";
import { smoothGroups, smoothModel, type SmoothedValue } from "./smooth.ts";

/** Everything the rewrite needs. */
export interface OnnxDecisions {
  /** The source with the transforms applied. */
  readonly model: OnnxModel;
  readonly choices: readonly ChosenSite[];
  /** By value of the main graph. */
  readonly scales: ReadonlyMap<string, ActivationScale>;
  readonly smoothed: readonly SmoothedValue[];
  readonly notes: readonly string[];
}

/** Decide, running the samples where the recipe asks for it. @throws as `observeOnnx`. */
export async function decideOnnx(
  prepared: PreparedOnnx,
  samples: OnnxSamples,
  engine: Engine,
  options: QuantizeOptions,
): Promise<OnnxDecisions> {
  const { settings } = prepared;
  const runs = { engine, ...(options.signal && { signal: options.signal }), ...(options.onProgress && { onProgress: options.onProgress }) };
  const notes: string[] = [];
  let { model, choices } = prepared;
  let smoothed: readonly SmoothedValue[] = [];
  if (settings.smooth && settings.target === "sites") {
    const quantized = new Map(choices.map(({ site, action }) => [site.name, action.kind]));
    const groups = smoothGroups(prepared.sites, ({ name }) => quantized.get(name) !== "float");
    const taps = groups.map(({ input }): OnnxTap => ({ value: input, axis: -1, histogram: false }));
    const seen = await observeOnnx(model, samples, taps, {
      ...runs,
      ...(prepared.file !== undefined && model.functions.length === 0 && { path: prepared.file }),
    });
    const result = await smoothModel(model, groups, seen, { alpha: settings.alpha, shift: settings.shift, bits: settings.weightBits });
    model = result.model;
    smoothed = result.values;
    choices = rebind(model, choices);
    const inserted = smoothed.filter(({ foldedInto }) => foldedInto === undefined).length;
    const name = settings.shift ? "SQ-b" : "SmoothQuant";
    notes.push(
      `${name}: ${smoothed.length} values smoothed, ${smoothed.length - inserted} folded into what computes them` +
        (inserted === 0 ? "" : `, ${inserted} by a Mul in front of the sites, because others read the value or no constants end it`),
    );
  }
  const isStatic = choices.some(({ action }) => action.kind === "static");
  const scales = isStatic ? await staticScales(model, choices, settings, samples, runs) : new Map<string, ActivationScale>();
  return { model, choices, scales, smoothed, notes };
}

/** The same choices for the sites of a rewritten model: a rewrite keeps their order, and they keep their names. */
function rebind(model: OnnxModel, choices: readonly ChosenSite[]): readonly ChosenSite[] {
  const found = findOnnxSites(model);
  return choices.map((choice, i): ChosenSite => {
    const site = found[i];
    if (site === undefined || site.op !== choice.site.op) throw new TypeError(`site ${choice.site.name} was lost in a rewrite`);
    return { site: { ...site, name: choice.site.name }, action: choice.action };
  });
}

async function staticScales(
  model: OnnxModel,
  choices: readonly ChosenSite[],
  settings: OnnxSettings,
  samples: OnnxSamples,
  runs: ObserveOptions,
): Promise<ReadonlyMap<string, ActivationScale>> {
  const values = new Set(choices.flatMap(({ site, action }) => (action.kind === "static" ? [site.input] : [])));
  const taps = [...values].map((value): OnnxTap => ({ value, histogram: needsHistogram(settings.calibrator) }));
  const seen = await observeOnnx(model, samples, taps, runs);
  return new Map([...seen].map(([value, found]) => [value, scaleOf(found, settings)]));
}

/** Scale of a value from what was seen of it. */
export function scaleOf(seen: Observed, { calibrator, activationBits, percentile }: OnnxSettings): ActivationScale {
  return activationScale(chooseRange(seen, calibrator, activationBits, percentile), activationBits);
}
