/**
 * An .onnx source and a recipe → everything known before any work.
 * @module
 */
import { basename } from "node:path";
import { InputError } from "../../core/errors.ts";
import { elementCount } from "../../core/dtype.ts";
import { onnxBits } from "../../formats/containers/onnx/dtypes.ts";
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import { openOnnx } from "../../formats/containers/onnx/read.ts";
import { bodiesOf } from "../../model/onnx/bodies.ts";
import { inlineFunctions } from "../../model/onnx/inline.ts";
import type { OnnxSite } from "../../model/onnx/site.ts";
import { findOnnxSites, findQuantizedSites } from "../../model/onnx/sites.ts";
import type { Model } from "../../model/model.ts";
import { findOnnxFile, onnxToModel } from "../../model/sources/onnx.ts";
import type { Plan, QuantizeOptions } from "../types.ts";
import { chooseActions, sitePlanOf, type ChosenSite } from "./actions.ts";
import { foldAffine } from "./fold-affine.ts";
import { LowerBounds } from "./lower-bound.ts";
import { foldWeights } from "./fold-weights.ts";
import { mergeConstants } from "./merge-constants.ts";
import { isConvolution } from "./protect.ts";
import { needsSamples, resolveOnnxSettings, type OnnxSettings } from "./settings.ts";
import { tensorBytes } from "./tensor-bytes.ts";
import { dropTraces } from "./traces.ts";

export interface PreparedOnnx {
  readonly model: OnnxModel;
  readonly settings: OnnxSettings;
  readonly sites: readonly OnnxSite[];
  readonly choices: readonly ChosenSite[];
  /** As given, for messages; the file where there is one. */
  readonly path: string;
  readonly file?: string;
  /** Name of the file to write. */
  readonly fileName: string;
  /** What a run of the source feeds and gives. */
  readonly source: Model;
  readonly sourceBytes: number;
  readonly notes: readonly string[];
}

/** The .onnx model that a source is, if it is one. */
export async function onnxSource(source: string | Model): Promise<string | OnnxModel | undefined> {
  if (typeof source === "string") return findOnnxFile(source);
  return source.blocks[0]?.graph.whole?.model;
}

/** @throws {InputError}, {FormatError}, {UnsupportedError} for files and recipes that do not go together. */
export async function prepareOnnx(source: string | OnnxModel, options: QuantizeOptions): Promise<PreparedOnnx> {
  const settings = resolveOnnxSettings(options.recipe);
  checkTargets(options);
  const opened = typeof source === "string" ? await openClosed(source) : source;
  // Values inside functions cannot be looked at; inlined they can.
  const inlined = dropTraces(needsSamples(settings) ? inlineFunctions(opened) : opened);
  const moved = settings.target === "float16" ? inlineFunctions(inlined) : foldWeights(inlined);
  const { model: whole, folded } = settings.fold ? foldAffine(moved) : { model: moved, folded: new Map<string, number>() };
  const model = mergeConstants(whole);
  const sites = findOnnxSites(model);
  const opsets = new Map(bodiesOf(model).map(({ path, opsets: known }) => [path, known.get("") ?? 1]));
  const choices =
    settings.target === "sites"
      ? chooseActions(sites, settings, (path) => opsets.get(path) ?? 1, await floorsOf(model, sites, settings))
      : [];
  const path = typeof source === "string" ? source : source.graph.name;
  if (settings.target === "sites" && choices.every(({ action }) => action.kind === "float")) {
    const reasons = [...new Set(choices.map(({ action }) => action.reason))].slice(0, 3);
    throw new InputError(
      "input.option",
      sites.length === 0
        ? `${path} has no operator with a constant float weight: nothing can be quantized`
        : `${path}: the recipe leaves every one of its ${sites.length} sites float (${reasons.join("; ")})`,
      { path, sites: sites.length },
    );
  }
  return {
    model,
    settings,
    sites,
    choices,
    path,
    ...(typeof source === "string" && { file: source }),
    fileName: typeof source === "string" ? basename(source) : "model.onnx",
    source: onnxToModel(opened, typeof source === "string" ? source : undefined),
    sourceBytes: tensorBytes(opened),
    notes: notesOf(model, settings, folded, choices),
  };
}

/** Lower bounds of the sites' inputs where they are of use: what SQ-b centres has none. */
async function floorsOf(model: OnnxModel, sites: readonly OnnxSite[], settings: OnnxSettings): Promise<ReadonlyMap<string, number>> {
  const { activation, smooth, shift } = settings;
  const floors = new Map<string, number>();
  if (activation !== "token" || (smooth && shift)) return floors;
  const bounds = new LowerBounds(model);
  for (const { input, kind, path } of sites) {
    const floor = kind === "linear" && path === "" ? await bounds.of(input) : undefined;
    if (floor !== undefined) floors.set(input, floor);
  }
  return floors;
}

async function openClosed(path: string): Promise<OnnxModel> {
  const model = await openOnnx(path);
  await model.close();
  return model;
}

function checkTargets({ to }: QuantizeOptions): void {
  const other = to?.find((name) => name !== "onnx");
  if (other === undefined) return;
  throw new InputError("input.option", `--to ${other}: an .onnx source becomes an .onnx file (--to onnx)`, {
    option: "to",
    given: other,
    known: ["onnx"],
  });
}

function notesOf(
  model: OnnxModel,
  settings: OnnxSettings,
  folded: ReadonlyMap<string, number>,
  choices: readonly ChosenSite[],
): readonly string[] {
  const notes: string[] = [];
  if (folded.size > 0)
    notes.push(`folded into the weights in front of them: ${[...folded].map(([op, count]) => `${count} ${op}`).join(", ")}`);
  const quantized = findQuantizedSites(model).length;
  if (quantized > 0) notes.push(`${quantized} operators of the source are quantized already and stay as they are`);
  if (settings.protect === "auto" && settings.activation === "float" && settings.weightBits === 8 && !choices.some(isConvolution))
    notes.push("--protect auto has nothing to do: activations stay float");
  return notes;
}

const MIB = 2 ** 20;

/** The plan, as data. Sizes of codes are exact; nodes and small constants are not counted. */
export function planOnnxOf(prepared: PreparedOnnx, options: QuantizeOptions, choices: readonly ChosenSite[] = prepared.choices): Plan {
  const { settings, sites, fileName, sourceBytes, model } = prepared;
  const weights = sites.reduce((sum, { weight }) => sum + elementCount(weight.tensor.shape), 0);
  const before = sites.reduce((sum, { weight: { tensor } }) => sum + (elementCount(tensor.shape) * onnxBits(tensor.dtype)) / 8, 0);
  const after = settings.target === "sites" ? choices.reduce((sum, choice) => sum + actionBytes(choice), 0) : floatBytes(settings, sites);
  const outputBytes = Math.max(0, sourceBytes - before) * (settings.target === "float16" ? 0.5 : 1) + after;
  const largest = sites.reduce((most, { weight }) => Math.max(most, elementCount(weight.tensor.shape)), 0);
  const transforms = settings.smooth ? ["smoothquant"] : [];
  return {
    version: 1,
    source: { path: fileName, family: "onnx", parameters: weights, bytes: sourceBytes },
    recipe: options.recipe,
    transforms,
    method: "rtn",
    sites: choices.map(sitePlanOf),
    exports: ["onnx"],
    pairs: [],
    scaleDType: "F32",
    arithmetic: "f32",
    notes: prepared.notes,
    ...(needsSamples(settings) && {
      calibration: { samples: options.samples ?? DEFAULT_SAMPLES, sequenceLength: 0, statistics: [settings.calibrator] },
    }),
    estimate: {
      outputBytes,
      diskBytes: outputBytes + 32 * MIB,
      memoryBytes: 150 * MIB + 12 * largest + (needsSamples(settings) ? 3 * sourceBytes : 0) + model.graph.nodes.length * 1024,
      seconds: 0.5 + sourceBytes / 100e6,
      bitsPerWeight: weights === 0 ? 0 : (8 * after) / weights,
    },
  };
}

/** Samples calibrated on when nothing is said. */
export const DEFAULT_SAMPLES = 128;

function floatBytes({ target }: OnnxSettings, sites: readonly OnnxSite[]): number {
  const count = sites.reduce((sum, { weight }) => sum + elementCount(weight.tensor.shape), 0);
  return target === "float16" ? 2 * count : (4.5 * count) / 8;
}

function actionBytes(choice: ChosenSite): number {
  const { weight } = sitePlanOf(choice);
  const { shape, dtype } = choice.site.weight.tensor;
  const count = elementCount(shape);
  if (weight?.format.kind === "float") return 2 * count;
  if (weight?.format.kind !== "int") return (count * onnxBits(dtype)) / 8;
  const { granularity } = weight;
  const scales =
    granularity.kind === "group"
      ? count / granularity.size
      : granularity.kind === "channel"
        ? (shape[choice.site.weight.channelAxis] ?? 1)
        : 1;
  return (count * weight.format.bits) / 8 + 4 * scales;
}
