/**
 * Source and options → everything known before any work: model, settings, sites, layouts of the outputs.
 * @module
 */
import { elementCount, type DType } from "../core/dtype.ts";
import { blockFormatOf } from "../core/blocks/format.ts";
import { InputError, UnsupportedError } from "../core/errors.ts";
import { openModel } from "../model/sources/open.ts";
import type { Model } from "../model/model.ts";
import { neededStatistics, needsSearch, usablePairs, widenedTensors } from "./decide.ts";
import type { Export } from "./exports/export.ts";
import { findExport } from "./exports/index.ts";
import { exportSites, layoutOutput, type OutputLayout } from "./output-layout.ts";
import { resolveSettings, scaleDType, type Settings } from "./settings.ts";
import { chooseSites, type SiteChoice } from "./sites.ts";
import { ordersKeys } from "./transforms/reorder/decide-orders.ts";
import { findKeyRows } from "./transforms/reorder/key-rows.ts";
import { checkKernelRecipe } from "./kernels/artifact.ts";
import { openTensorModel } from "./tensor-model.ts";
import type { QuantizeOptions } from "./types.ts";

/** One artifact to write. */
export interface Target {
  readonly export: Export;
  /** Directory, absolute or as given. */
  readonly directory: string;
  readonly layout: OutputLayout;
}

/** Everything that follows from source and options alone. */
export interface Prepared {
  /** As given, for messages. */
  readonly path: string;
  readonly model: Model;
  readonly settings: Settings;
  readonly choices: readonly SiteChoice[];
  readonly scaleDType: DType;
  readonly statistics: readonly string[];
  readonly needsSearch: boolean;
  readonly pairs: readonly string[];
  /** Tensors stored as F32 whatever they are in the source. */
  readonly widened: ReadonlySet<string>;
  readonly targets: readonly Target[];
  readonly sourceBytes: number;
  readonly parameters: number;
  readonly notes: readonly string[];
}

const DEFAULT_TARGET = "compressed-tensors";
/** Holds what the default cannot. */
const FALLBACK_TARGET = "bitwright";

/**
 * Open the source and apply the recipe.
 *
 * @throws {InputError}, {FormatError}, {UnsupportedError} for sources, recipes and targets that do not go together.
 */
export async function prepare(source: string | Model, options: QuantizeOptions): Promise<Prepared> {
  const settings = resolveSettings(options.recipe);
  if (options.to?.length === 0) throw new InputError("input.option", "--to names no target", { option: "to" });
  const dataFree = isDataFree(settings);
  const weightOnly = dataFree && settings.site.bits.activation === undefined;
  const model = typeof source === "string" ? await openSource(source, dataFree, weightOnly) : source;
  const path = typeof source === "string" ? source : (source.directory ?? source.facts.className);
  const wanted = chooseSites(model, settings);
  const targets = [...new Set(options.to ?? [defaultTarget(model, wanted, settings)])].map(findExport);
  refuseKeyOrders(model, targets, settings);
  const choices = leaveUnheld(wanted, targets, settings);
  if (!settings.isFloat && !choices.some(({ plan }) => plan.weight !== undefined)) {
    throw new InputError("input.option", `${path}: the recipe leaves every one of its ${choices.length} linear sites float`, { path });
  }
  const { kernels } = options.recipe;
  if (kernels !== undefined) {
    const weights = choices.flatMap(({ plan: { weight } }) => (weight === undefined ? [] : [weight]));
    checkKernelRecipe(kernels, weights);
  }
  const scales = scaleDType(settings.scale, model.facts.dtype);
  const widened = widenedTensors(model, settings);
  const isAlone = targets.length === 1;
  return {
    path,
    model,
    settings,
    choices,
    scaleDType: scales,
    statistics: neededStatistics(settings, choices),
    needsSearch: needsSearch(settings, choices),
    pairs: model.blocks.flatMap((block) => usablePairs(model, block, settings).map(({ name }) => `${block.name}.${name}`)),
    widened,
    targets: targets.map((target) => {
      const layout = layoutOutput(model, choices, target, scales, options.maxShardBytes, widened);
      // What the configuration cannot say is refused now, not when the weights are written.
      target.config(model.config, exportSites(choices), []);
      return { export: target, directory: isAlone ? options.out : `${options.out}/${target.name}`, layout };
    }),
    sourceBytes: [...model.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0),
    parameters: [...model.tensors.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0),
    notes: notesOf(model, settings, choices),
  };
}

/** What is written when `--to` says nothing: the official format where it holds every site that is to be quantized, else our own. */
function defaultTarget(model: Model, choices: readonly SiteChoice[], settings: Settings): string {
  const official = findExport(DEFAULT_TARGET);
  if (ordersRotatedKeys(model, settings)) return FALLBACK_TARGET;
  const quantized = choices.filter(({ plan }) => plan.weight !== undefined);
  const isBlocks = quantized.some(({ plan }) => blockFormatOf(plan.weight!) !== undefined);
  return isBlocks && !quantized.every((choice) => official.canHold(exportSites([choice])[0]!).ok) ? FALLBACK_TARGET : DEFAULT_TARGET;
}

/** Whether the recipe gives key heads orders of their own under rotary positions. */
function ordersRotatedKeys(model: Model, settings: Settings): boolean {
  return (
    settings.transforms.some(({ name }) => name === "reorder") &&
    model.blocks.some((block) => {
      const rows = findKeyRows(block);
      return rows?.k.rotated === true && ordersKeys(settings.reorder.sites, rows);
    })
  );
}

/** @throws {UnsupportedError} `unsupported.scheme` for a target whose loaders have one rotary table for all heads. */
function refuseKeyOrders(model: Model, targets: readonly Export[], settings: Settings): void {
  if (settings.reorder.sites === "all" || !ordersRotatedKeys(model, settings)) return;
  const refusing = targets.find(({ keyOrderRefusal }) => keyOrderRefusal !== undefined);
  if (refusing === undefined) return;
  throw new UnsupportedError(
    "unsupported.scheme",
    `${refusing.name} cannot hold reorder with sites=${settings.reorder.sites} on ${model.facts.className}: ${refusing.keyOrderRefusal}; use --to bitwright, or sites=all, which leaves the keys there`,
    { target: refusing.name, sites: settings.reorder.sites, nearest: "bitwright" },
  );
}

/**
 * Sites that a target cannot hold stay float, with the reason, as long as others are left and the recipe has no word on single sites;
 * else the layout refuses them.
 */
function leaveUnheld(choices: readonly SiteChoice[], targets: readonly Export[], { overrides }: Settings): readonly SiteChoice[] {
  const left = choices.map((choice): SiteChoice => {
    if (choice.plan.weight === undefined) return choice;
    const { site, plan } = choice;
    const [held] = targets
      .map((target) => ({ target, holding: target.canHold(exportSites([choice])[0]!) }))
      .filter((one) => !one.holding.ok);
    if (held === undefined || held.holding.ok) return choice;
    return {
      site,
      plan: { name: plan.name, shape: plan.shape, reason: `float: ${held.target.name} cannot hold it: ${held.holding.reason}` },
    };
  });
  return overrides.length === 0 && left.some(({ plan }) => plan.weight !== undefined) ? left : choices;
}

/** Whether a recipe never looks at activations: such a recipe takes bare files. */
function isDataFree(settings: Settings): boolean {
  const { bits } = settings.site;
  const isStatic = bits.activation !== undefined && (settings.activation === "static" || bits.block?.family === "nvfp4");
  return settings.transforms.length === 0 && settings.method.needs(settings).length === 0 && settings.protect !== "auto" && !isStatic;
}

async function openSource(path: string, dataFree: boolean, weightOnly: boolean): Promise<Model> {
  if (!dataFree) return openModel(path);
  if (path.endsWith(".safetensors")) return openTensorModel(path);
  try {
    return await openModel(path);
  } catch (error) {
    // Weights can be rounded whatever the architecture; only activations need a graph.
    if (weightOnly && error instanceof UnsupportedError && error.code === "unsupported.architecture") return openTensorModel(path);
    throw error;
  }
}

function notesOf(model: Model, settings: Settings, choices: readonly SiteChoice[]): readonly string[] {
  const notes: string[] = [];
  const hasActivations = choices.some(({ plan }) => plan.input !== undefined);
  if (settings.protect === "auto" && !hasActivations) notes.push("--protect auto has nothing to do: activations stay float");
  if (model.facts.family === "tensors" && model.directory !== undefined) {
    notes.push("the architecture is not known: weights were taken by their names, and the result cannot be evaluated");
  }
  if (Object.hasOwn(model.config, "quantization_config")) {
    notes.push("the source is quantized already, so its errors add to the new ones; start from the float model where there is one");
  }
  if (settings.transforms.length === 0) {
    const idle = ["alpha", "pairs", "moe"].filter((key) => Object.hasOwn(settings.recipe.scheme ?? {}, key));
    if (idle.length > 0) notes.push(`--scheme ${idle.join(", ")} has no effect without smoothquant`);
  }
  if (model.facts.tiedHead) notes.push("the head shares the embedding matrix; both stay float");
  const odd = choices.filter(
    ({ plan }) => plan.weight?.granularity.kind === "group" && settings.site.groupSize === "auto" && plan.weight.granularity.size !== 128,
  );
  if (odd.length > 0)
    notes.push(`${odd.length} sites have groups smaller than 128, because 128 does not divide their columns (first: ${odd[0]!.site.name})`);
  return notes;
}
