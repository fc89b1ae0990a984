/**
 * Greedy mixed precision: what quantizing the sites of one input alone does to the outputs is measured, and the worst get more bits,
 * with the reason.
 * @module
 */
import { throwIfAborted } from "../../core/errors.ts";
import { elementCount } from "../../core/dtype.ts";
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import type { Engine, HostTensor } from "../../model/engines/engine.ts";
import { withCompiled } from "../../model/onnx/run.ts";
import { onnxToModel } from "../../model/sources/onnx.ts";
import { chooseProtected, type MeasuredSites } from "../protect.ts";
import type { ChosenSite, SiteAction } from "./actions.ts";
import { applyActions } from "./apply.ts";
import type { OnnxDecisions } from "./decide.ts";
import type { ObserveOptions } from "./observe.ts";
import type { OnnxSamples } from "./samples.ts";
import { activationScale } from "./scales.ts";
import type { OnnxSettings } from "./settings.ts";

/** Share of the model's weights that convolutions may make 16-bit floats of. */
const HALF_SHARE = 0.05;

/** Runs that errors are measured on. */
const TRIAL_RUNS = 8;

/**
 * Give the most sensitive sites a finer form: 16-bit activation codes where they are static, float activations where they are dynamic, 8 bits
 * where weights have fewer, 16-bit floats for convolutions behind integers. At most a tenth of the sites, each at least twice as bad as the median.
 *
 * @throws {InterruptedError} when the signal is aborted; what the engine throws.
 */
export async function protectSites(
  decisions: OnnxDecisions,
  settings: OnnxSettings,
  samples: OnnxSamples,
  { engine, signal, onProgress }: ObserveOptions,
): Promise<OnnxDecisions> {
  const groups = groupsOf(decisions.choices);
  const quantized = groups.reduce((sum, group) => sum + group.length, 0);
  const reference = await outputsOf(decisions.model, samples, engine);
  const measured: MeasuredSites[] = [];
  for (const [i, group] of groups.entries()) {
    throwIfAborted(signal);
    const inGroup = new Set(group.map(({ site }) => site.name));
    const choices = decisions.choices.map((choice): ChosenSite =>
      inGroup.has(choice.site.name) ? choice : { site: choice.site, action: { kind: "float", reason: "float: not on trial" } },
    );
    const { model } = applyActions({ ...decisions, choices, outputs: new Map() });
    measured.push({ sites: [...inGroup], error: relativeError(reference, await outputsOf(model, samples, engine)) });
    onProgress?.({ phase: "decide", done: i + 1, total: groups.length, unit: "blocks", detail: "sensitivity of sites" });
  }
  const chosen = withinBudget(chooseProtected(measured, quantized), measured, decisions.choices);
  const finer = new Set<string>();
  const choices = decisions.choices.map((choice): ChosenSite => {
    const why = chosen.get(choice.site.name);
    if (why === undefined) return choice;
    if (choice.action.kind === "static") finer.add(choice.site.input);
    return {
      site: choice.site,
      action: finerAction(choice, why.replace(/^weight-only: /, "").replace("last hidden states", "outputs")),
    };
  });
  // Sites of one input are protected together, so its scale can change with them.
  const scales = new Map(
    [...decisions.scales].map(([value, scale]) => {
      if (!finer.has(value)) return [value, scale];
      const levels = 2 ** scale.bits - 1;
      return [value, activationScale({ min: -scale.zero * scale.scale, max: (levels - scale.zero) * scale.scale }, 16)];
    }),
  );
  const twins = new Map([...decisions.twins].filter(([value]) => !finer.has(value)));
  const notes = [
    ...decisions.notes,
    `${chosen.size} of ${quantized} sites get a finer form, because quantizing them alone moves the outputs most`,
  ];
  return { ...decisions, choices, scales, twins, notes };
}

/** What is chosen, less convolutions beyond a twentieth of the model's weights, the worst first: 16-bit floats take twice the bytes. */
function withinBudget(
  chosen: ReadonlyMap<string, string>,
  measured: readonly MeasuredSites[],
  choices: readonly ChosenSite[],
): ReadonlyMap<string, string> {
  const convolutions = new Map(
    choices.flatMap((choice) => (isConvolution(choice) ? [[choice.site.name, weightsOf(choice)] as const] : [])),
  );
  let left = choices.reduce((sum, choice) => sum + weightsOf(choice), 0) * HALF_SHARE;
  const kept = new Map(chosen);
  for (const name of measured.toSorted((a, b) => b.error - a.error).flatMap(({ sites }) => sites)) {
    const count = convolutions.get(name);
    if (count === undefined || !kept.has(name)) continue;
    if (count > left) kept.delete(name);
    else left -= count;
  }
  return kept;
}

function weightsOf({ site }: ChosenSite): number {
  return elementCount(site.weight.tensor.shape);
}

/** Quantized sites of the main graph by their input, in order. */
function groupsOf(choices: readonly ChosenSite[]): readonly (readonly ChosenSite[])[] {
  const groups = new Map<string, ChosenSite[]>();
  for (const choice of choices) {
    const { kind } = choice.action;
    if (kind === "float" || kind === "half" || kind === "embedding" || !choice.site.observable) continue;
    if (kind === "dequantize" && choice.action.scheme.bits === 8 && !isConvolution(choice)) continue;
    groups.set(choice.site.input, [...(groups.get(choice.site.input) ?? []), choice]);
  }
  return [...groups.values()];
}

/** Whether weights of 8 bits can be made 16-bit floats: a kernel runs in float anyway. */
export function isConvolution({ site, action }: ChosenSite): boolean {
  return site.kind === "conv" && action.kind === "dequantize" && site.weight.tensor.dtype === "F32";
}

function finerAction(choice: ChosenSite, why: string): SiteAction {
  const { action } = choice;
  if (isConvolution(choice)) return { kind: "half", reason: `16-bit float: ${why}` };
  switch (action.kind) {
    case "static":
      return { ...action, scheme: { ...action.scheme, activationBits: 16 }, reason: `16-bit activations: ${why}` };
    case "dynamic":
      return {
        kind: "dequantize",
        scheme: {
          bits: 8,
          unsigned: false,
          symmetric: true,
          perChannel: action.scheme.perChannel,
          search: action.scheme.search,
          asProduct: true,
        },
        reason: `weight-only: ${why}`,
      };
    case "nbits":
      return { ...action, scheme: { ...action.scheme, bits: 8 }, reason: `8 bits: ${why}` };
    case "dequantize":
      return { ...action, scheme: { ...action.scheme, bits: 8 }, reason: `8 bits: ${why}` };
    default:
      return action;
  }
}

async function outputsOf(model: OnnxModel, samples: OnnxSamples, engine: Engine): Promise<readonly Float32Array[]> {
  const whole = onnxToModel(model);
  const outputs: Float32Array[] = [];
  await withCompiled(engine, [whole], async ([compiled]) => {
    let runs = 0;
    for await (const { inputs } of samples.runs()) {
      if (runs++ >= TRIAL_RUNS) break;
      const values = await compiled!.run(inputs);
      for (const name of whole.outputs) {
        const { data } = values[name] as HostTensor;
        if (data instanceof Float32Array) outputs.push(data.slice());
      }
    }
  });
  return outputs;
}

/** Mean over outputs of |y' - y|² / |y|². */
function relativeError(reference: readonly Float32Array[], found: readonly Float32Array[]): number {
  let total = 0;
  for (const [i, expected] of reference.entries()) {
    let [noise, power] = [0, 0];
    for (let k = 0; k < expected.length; k++) {
      noise += (found[i]![k]! - expected[k]!) ** 2;
      power += expected[k]! ** 2;
    }
    total += power === 0 ? 0 : noise / power;
  }
  return reference.length === 0 ? 0 : total / reference.length;
}
