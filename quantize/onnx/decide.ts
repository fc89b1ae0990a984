/**
 * What calibration data decides: smoothed weights, activation scales, sites that stay in float.
 * @module
 */
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import type { Engine } from "../../model/engines/engine.ts";
import type { QuantizeOptions } from "../types.ts";
import type { ChosenSite, SiteAction } from "./actions.ts";
import { findOnnxSites } from "../../model/onnx/sites.ts";
import { measureMoments, type Moments } from "./conv-moments.ts";
import { observeOnnx, type Observed, type ObserveOptions, type OnnxTap } from "./observe.ts";
import type { PreparedOnnx } from "./prepare.ts";
import { chooseOutputs, type OutputScales } from "./outputs.ts";
import { protectSites } from "./protect.ts";
import { chooseRange, needsHistogram } from "./ranges.ts";
import type { OnnxSamples } from "./samples.ts";
import { activationScale, type ActivationScale } from "./scales.ts";
import type { OnnxSettings } from "./settings.ts";
import { isTwin, twinScale, type TwinScale } from "./twin.ts";
import { inputChannels, smoothGroups, smoothModel, type SmoothedValue } from "./smooth.ts";

/** Everything the rewrite needs. */
export interface OnnxDecisions {
  /** The source with the transforms applied. */
  readonly model: OnnxModel;
  readonly choices: readonly ChosenSite[];
  /** By value of the main graph. */
  readonly scales: ReadonlyMap<string, ActivationScale>;
  /** Values with two scales. */
  readonly twins: ReadonlyMap<string, TwinScale>;
  /** What convolutions read, by site. */
  readonly moments: ReadonlyMap<string, Moments>;
  /** Values with codes beside the sites' inputs. */
  readonly outputs: OutputScales;
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
    const wanted = new Set(choices.flatMap(({ site, action }) => (isSmoothed(action) ? [site.name] : [])));
    const groups = smoothGroups(prepared.sites, ({ name }) => wanted.has(name));
    const taps = groups.map((group): OnnxTap => ({ value: group.input, channels: inputChannels(group.sites[0]!), histogram: false }));
    const seen = await observeOnnx(model, samples, taps, runs);
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
  const ranges = await staticScales(model, choices, settings, samples, runs);
  const { scales, outputs, twins } = ranges;
  if (twins.size > 0)
    notes.push(
      `two scales for ${twins.size} values behind a GELU: positive steps ${[...twins.values()].map(({ exponent }) => `2^${exponent}`).join(", ")} times the negative ones`,
    );
  const moments = settings.correct ? await measureMoments(model, choices, samples, runs) : new Map<string, Moments>();
  if (moments.size > 0)
    notes.push(`${moments.size} convolutions: biases make up for what rounding the weights does to the means on the data`);
  const decided: OnnxDecisions = { model, choices, scales, twins, moments, outputs, smoothed, notes };
  if (settings.protect !== "auto") return decided;
  return protectSites(decided, settings, samples, runs);
}

/** Codes above a fixed floor, a scale a token, stand behind an activation function: factors would move the floor, and such tokens need none. */
function isSmoothed(action: SiteAction): boolean {
  return action.kind !== "float" && !(action.kind === "dynamic" && action.scheme.floor !== undefined);
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

interface StaticScales {
  readonly scales: ReadonlyMap<string, ActivationScale>;
  readonly twins: ReadonlyMap<string, TwinScale>;
  readonly outputs: OutputScales;
}

async function staticScales(
  model: OnnxModel,
  choices: readonly ChosenSite[],
  settings: OnnxSettings,
  samples: OnnxSamples,
  runs: ObserveOptions,
): Promise<StaticScales> {
  const inputs = new Set(choices.flatMap(({ site, action }) => (action.kind === "static" ? [site.input] : [])));
  if (inputs.size === 0) return { scales: new Map(), twins: new Map(), outputs: new Map() };
  const outputs = chooseOutputs(model.graph, choices, settings.outputs, model.opsets.get("") ?? 1);
  const histogram = needsHistogram(settings.calibrator) || settings.twin;
  const taps = [...new Set([...inputs, ...outputs.keys()])].map((value): OnnxTap => ({ value, histogram }));
  const seen = await observeOnnx(model, samples, taps, runs);
  const linear = new Set(choices.flatMap(({ site, action }) => (action.kind === "static" && site.kind === "linear" ? [site.input] : [])));
  const twins = new Map(
    [...seen].flatMap(([value, found]): [string, TwinScale][] =>
      settings.twin && settings.activationBits === 8 && linear.has(value) && !outputs.has(value) && isTwin(found)
        ? [[value, twinScale(found, 8)]]
        : [],
    ),
  );
  return { scales: sharedScales(seen, outputs, settings), twins, outputs };
}

/** A scale a value; values that must share one get that of all their values together. */
function sharedScales(
  seen: ReadonlyMap<string, Observed>,
  outputs: OutputScales,
  settings: OnnxSettings,
): ReadonlyMap<string, ActivationScale> {
  const together = new Map<string, Observed>();
  for (const [value, found] of seen) {
    const root = outputs.get(value) ?? value;
    const known = together.get(root);
    together.set(root, known === undefined ? found : joinObserved(known, found));
  }
  return new Map([...seen.keys()].map((value) => [value, scaleOf(together.get(outputs.get(value) ?? value)!, settings)]));
}

function joinObserved(a: Observed, b: Observed): Observed {
  const histogram = a.histogram && b.histogram && a.histogram.map((count, i) => count + b.histogram![i]!);
  return { min: Math.min(a.min, b.min), max: Math.max(a.max, b.max), ...(histogram && { histogram }) };
}

/** Scale of a value from what was seen of it. */
export function scaleOf(seen: Observed, { calibrator, activationBits, percentile }: OnnxSettings): ActivationScale {
  return activationScale(chooseRange(seen, calibrator, activationBits, percentile), activationBits);
}
