/**
 * The decide phase: statistics → folds, static scales, protected sites.
 * @module
 */
import { nvfp4GlobalScale } from "../core/blocks/quantize.ts";
import { floatScale, intParameters } from "../core/dialect.ts";
import { InputError, NumericError, throwIfAborted } from "../core/errors.ts";
import { roundBf16 } from "../core/float.ts";
import type { ActivationScheme, QuantScheme } from "../core/scheme.ts";
import { toFloat32, type Tensor } from "../core/tensor.ts";
import { observeKeys, type KeyStatistics } from "../calibrate/keys.ts";
import type { DType } from "../core/dtype.ts";
import type { Calibration } from "../calibrate/calibrate.ts";
import type { Engine, HostTensor } from "../model/engines/engine.ts";
import { findPairs, type FoldPair } from "../model/graph/pairs.ts";
import type { Block, LinearSite, Model } from "../model/model.ts";
import { walk } from "../model/walk.ts";
import type { BlockContext, Sample } from "../model/walk-types.ts";
import { BlockTrials, TrialCache, type TrialRules } from "./block-trial.ts";
import { dequantize } from "./dequantize.ts";
import type { Decisions, TensorOrder } from "./decisions.ts";
import { reorderedFolds, reorderedReplacements } from "./reordered.ts";
import { decideOrders, ordersKeys } from "./transforms/reorder/decide-orders.ts";
import { findKeyRows, type KeyRows } from "./transforms/reorder/key-rows.ts";
import { FoldState, tensorName, widen } from "./fold-state.ts";
import type { TransformContext } from "./method.ts";
import { chooseProtected, createProtectionRace, enterSites, measuredBy } from "./protect.ts";
import type { Settings } from "./settings.ts";
import type { SiteChoice } from "./sites.ts";
import { smoothedMaximum } from "./transforms/smoothquant/scales.ts";
import type { ProgressEvent } from "./types.ts";

/** Tokens that trials run on: enough for a stable order of candidates, few enough for dozens of them a block. */
const TRIAL_TOKENS = 512;
/**
 * Tokens of one sequence in a trial. What hurts most sits at the first token of a sequence (massive activations, which every later
 * token attends to), so many short sequences tell more than a few long ones.
 */
const TRIAL_SEQUENCE = 64;
/** Tokens a run of the search: errors are followed to the model's end on one such batch. */
const TRIAL_BATCH = 256;

/** What deciding needs beside the recipe. */
export interface DecideInputs {
  readonly calibration?: Calibration;
  /** Calibration sequences and the engine to run them, for searches. */
  readonly search?: { readonly samples: readonly Sample[]; readonly engine: Engine };
  /** Whether `reorder` may order keys under rotary positions: not for targets with one rotary table. */
  readonly orderKeys?: boolean;
  readonly scaleDType: DType;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

/** Whether deciding runs blocks on data (and so needs samples and an engine). */
export function needsSearch(settings: Settings, choices: readonly SiteChoice[]): boolean {
  const hasActivations = choices.some(({ plan }) => plan.input !== undefined);
  return settings.transforms.some((transform) => transform.search(settings)) || (settings.protect === "auto" && hasActivations);
}

/** Statistics that deciding reads, by name; none = no calibration. */
export function neededStatistics(settings: Settings, choices: readonly SiteChoice[]): readonly string[] {
  const isStatic = choices.some(({ plan }) => plan.input !== undefined && wantsAbsmax(plan.input));
  const names = [
    ...settings.transforms.flatMap((transform) => transform.needs(settings)),
    ...settings.method.needs(settings),
    ...(isStatic || needsSearch(settings, choices) ? ["absmax"] : []),
  ];
  return [...new Set(names)].toSorted();
}

/**
 * Pairs of a block that the recipe lets transforms use. A pair whose tensors another block uses too (tied weights) is left out: folding
 * it here would change that block.
 */
export function usablePairs(model: Model, block: Block, settings: Settings): readonly FoldPair[] {
  if (settings.transforms.length === 0 || block.role !== "block") return [];
  const users = tensorUsers(model);
  return findPairs(block).filter((pair) => {
    const slots = [
      pair.producer.weight,
      ...(pair.producer.bias === undefined ? [] : [pair.producer.bias]),
      ...pair.consumers.map(({ weight }) => weight),
    ];
    const isShared = slots.some((slot) => (users.get(block.weights.get(slot)?.name ?? "") ?? 0) > 1);
    const isExperts = pair.consumers.some(({ kind }) => kind === "router");
    return !isShared && (pair.kind === "norm" || settings.pairs === "all") && (settings.smoothExperts || !isExperts);
  });
}

/**
 * Norms in front of folds that are stored in F32: `preset=sq-fake` repeats the authors' figures, whose factors no bf16 norm has rounded.
 * In all other presets a norm keeps its dtype, and what rounding changes in a factor, the weights behind make up for.
 */
export function widenedTensors(model: Model, settings: Settings): ReadonlySet<string> {
  if (settings.preset !== "sq-fake") return new Set();
  const names = model.blocks.flatMap((block) =>
    usablePairs(model, block, settings)
      .filter(({ kind }) => kind === "norm")
      .flatMap(({ producer: { weight, bias } }) => [weight, ...(bias === undefined ? [] : [bias])])
      .map((slot) => tensorName(block, slot)),
  );
  return new Set(names.filter((name) => model.tensors.get(name)?.dtype !== "F32"));
}

const usersByModel = new WeakMap<Model, ReadonlyMap<string, number>>();

/** How many weight slots of the model hold each tensor. */
function tensorUsers(model: Model): ReadonlyMap<string, number> {
  const known = usersByModel.get(model);
  if (known !== undefined) return known;
  const users = new Map<string, number>();
  for (const block of model.blocks) for (const { name } of block.weights.values()) users.set(name, (users.get(name) ?? 0) + 1);
  usersByModel.set(model, users);
  return users;
}

/**
 * Decide everything that depends on data.
 *
 * @throws {NumericError} `numeric.no-data` naming a site the calibration has no statistic for.
 */
export async function decide(model: Model, choices: readonly SiteChoice[], settings: Settings, inputs: DecideInputs): Promise<Decisions> {
  const { calibration, search } = inputs;
  const widened = widenedTensors(model, settings);
  const state = new FoldState(widened);
  const plans = new Map(choices.map(({ site, plan }) => [site.name, plan]));
  const absmax = (site: LinearSite): Float32Array => {
    const tensor = calibration?.get(site.name, "absmax");
    if (tensor !== undefined) return toFloat32(tensor);
    throw new NumericError("numeric.no-data", `the calibration has no absmax of ${site.name}; calibrate with --statistics absmax`, {
      site: site.name,
    });
  };
  const inputScheme = (site: LinearSite, at: FoldState): ActivationScheme | undefined => {
    const scheme = plans.get(site.name)?.input;
    if (scheme === undefined || !wantsAbsmax(scheme)) return scheme && { scheme };
    // Of NVFP4 this is the divisor; what runs takes either under this name.
    return { scheme, scale: staticScale(scheme, maximumOf(absmax(site), at.inputFactors.get(site.name)), inputs.scaleDType, settings) };
  };
  const blockOf = new Map(model.blocks.flatMap((block) => block.sites.map((site) => [site.name, block] as const)));
  const outputScheme = (site: LinearSite, at: FoldState): ActivationScheme | undefined => {
    const scheme = plans.get(site.name)?.output;
    if (scheme === undefined || scheme.timing === "dynamic") return scheme && { scheme };
    const block = blockOf.get(site.name)!;
    const tensor = calibration?.get(`${block.name}.${site.output}`, "absmax");
    if (tensor === undefined) {
      throw new NumericError(
        "numeric.no-data",
        `static qkv-outputs need the absmax of the output of ${site.name}, which a calibration file does not hold; give --data instead`,
        { site: site.name },
      );
    }
    const rows = at.folds.get(tensorName(block, site.weight))?.rows;
    const maximum = toFloat32(tensor).reduce((best, a, r) => Math.max(best, a * (rows?.[r] ?? 1)), 0);
    return { scheme, scale: staticScale(scheme, maximum, inputs.scaleDType, settings) };
  };
  const rules: TrialRules = {
    weight: (site, folded, out) => {
      const scheme = plans.get(site.name)?.weight;
      if (scheme === undefined || site.channelAxis === 1) return undefined;
      const matrix = { rows: site.rows, cols: site.cols, data: folded };
      return dequantize(settings.method.quantize(matrix, scheme, settings.arithmetic, inputs.scaleDType), out);
    },
    input: inputScheme,
    output: outputScheme,
  };
  const quantizedSites = choices.filter(({ plan }) => plan.weight !== undefined);
  const race = settings.protect === "auto" ? createProtectionRace(quantizedSites.length) : undefined;
  const cache = new TrialCache();
  const decideBlock = async (block: Block, index: number, stand?: BlockContext): Promise<void> => {
    throwIfAborted(inputs.signal);
    const trials = stand && new BlockTrials(model, stand, rules, cache, usablePairs(model, block, settings));
    for (const transform of settings.transforms) {
      const context = transformContext({
        model,
        block,
        settings,
        state,
        absmax,
        signal: inputs.signal,
        ...(trials && { trials }),
        ...(stand && { stand }),
      });
      for (const factors of await transform.decide(context)) await state.apply(block, factors);
    }
    if (stand !== undefined && trials !== undefined && race !== undefined) {
      await enterSites(race, stand, trials, state, (site) => plans.get(site.name)?.input !== undefined);
    }
    inputs.onProgress?.({ phase: "decide", done: index + 1, total: model.blocks.length, unit: "blocks", detail: block.name });
  };
  if (needsSearch(settings, choices)) {
    if (search === undefined) {
      throw new InputError("input.no-data", "alpha=auto and --protect auto run the model on data; give --data", { option: "data" });
    }
    const visitor = {
      decide: async (stand: BlockContext): Promise<undefined> => {
        await race?.pass(stand);
        if (stand.block.role === "block") await decideBlock(stand.block, stand.index, stand);
        return undefined;
      },
    };
    await walk(model, trialSamples(search.samples), {
      engine: search.engine,
      visitor,
      batchTokens: TRIAL_BATCH,
      ...(inputs.signal && { signal: inputs.signal }),
    });
  } else {
    for (const [index, block] of model.blocks.entries()) if (block.role === "block") await decideBlock(block, index);
  }
  const isProtected = race !== undefined ? chooseProtected(measuredBy(race), quantizedSites.length) : new Map<string, string>();
  const inputScales = new Map<string, number>();
  const outputScales = new Map<string, number>();
  const outliers = new Map<string, { before: number; after: number }>();
  for (const { site } of quantizedSites) {
    const scale = isProtected.has(site.name) ? undefined : inputScheme(site, state)?.scale;
    if (scale !== undefined) inputScales.set(site.name, scale);
    const outputScale = outputScheme(site, state)?.scale;
    if (outputScale !== undefined) outputScales.set(site.name, outputScale);
    if (calibration?.get(site.name, "absmax") === undefined) continue;
    const before = absmax(site);
    const factors = state.inputFactors.get(site.name);
    outliers.set(site.name, {
      before: outlierRatio(before),
      after: outlierRatio(factors === undefined ? before : before.map((a, j) => a / factors[j]!)),
    });
  }
  const { pairs, folds, replaced } = state;
  for (const name of widened) if (!replaced.has(name)) replaced.set(name, widen(await model.tensors.get(name)!.read()));
  const { orders, added, notes } = await decideAllOrders(model, settings, inputs, (site) => {
    const factors = state.inputFactors.get(site.name);
    return factors === undefined ? absmax(site) : absmax(site).map((a, j) => a / factors[j]!);
  });
  return {
    pairs,
    folds: reorderedFolds(folds, orders),
    replaced: reorderedReplacements(replaced, orders),
    orders,
    added,
    orderNotes: notes,
    inputScales,
    outputScales,
    protected: isProtected,
    outliers,
  };
}

/** Whether deciding looks at keys and queries, and so needs sequences and an engine. */
export function needsKeys({ transforms, reorder }: Settings): boolean {
  return reorder.order !== "norm" && transforms.some(({ name }) => name === "reorder");
}

const DEFAULT_ORDER_BLOCK = 32;
const DEFAULT_ORDER_BITS = 4;

/** Orders of all blocks, when the recipe asks for them. */
async function decideAllOrders(
  model: Model,
  settings: Settings,
  { search, orderKeys, signal, onProgress }: DecideInputs,
  absmax: (site: LinearSite) => Float32Array,
): Promise<{ readonly orders: Map<string, TensorOrder>; readonly added: Map<string, Tensor>; readonly notes: readonly string[] }> {
  const orders = new Map<string, TensorOrder>();
  const added = new Map<string, Tensor>();
  const notes: string[] = [];
  if (!settings.transforms.some(({ name }) => name === "reorder")) return { orders, added, notes };
  if (needsKeys(settings) && search === undefined) {
    throw new InputError(
      "input.no-data",
      `reorder with order=${settings.reorder.order} runs the model on data: give --data <file>, or use order=norm`,
      {
        option: "data",
      },
    );
  }
  const { sites } = settings.reorder;
  const isOrdered = (rows: KeyRows | undefined): boolean =>
    rows !== undefined && (sites === "all" || ordersKeys(sites, rows)) && (orderKeys === true || !rows.k.rotated);
  const statistics =
    needsKeys(settings) && model.blocks.some((block) => isOrdered(findKeyRows(block)))
      ? await observeKeys(model, search!.samples, {
          engine: search!.engine,
          ...(signal && { signal }),
          ...(onProgress && { onProgress: (progress) => onProgress({ phase: "decide", unit: "tokens", ...progress }) }),
        })
      : new Map<string, KeyStatistics>();
  const { block: asked } = settings.reorder;
  const { block: format } = settings.site.bits;
  const rule = {
    block: asked ?? format?.block ?? DEFAULT_ORDER_BLOCK,
    mantissaBits: format?.element.kind === "int" ? format.element.bits : DEFAULT_ORDER_BITS,
  };
  for (const block of model.blocks) {
    if (block.role !== "block") continue;
    throwIfAborted(signal);
    const keys = orderKeys === true ? true : "the target has one rotary table for all heads; --to bitwright holds ordered keys";
    const found = await decideOrders({ block, settings: settings.reorder, rule, keys, statistics: statistics.get(block.name), absmax });
    for (const [name, order] of found.orders) orders.set(name, order);
    for (const [name, tensor] of found.added) added.set(name, tensor);
    notes.push(...found.left.map((left) => `reorder left ${left}`), ...found.done.map((one) => `reordered ${one}`));
  }
  return { orders, added, notes };
}

interface ContextParts {
  readonly model: Model;
  readonly block: Block;
  readonly settings: Settings;
  readonly state: FoldState;
  readonly absmax: (site: LinearSite) => Float32Array;
  readonly trials?: BlockTrials;
  readonly stand?: BlockContext;
  readonly signal: AbortSignal | undefined;
}

function transformContext({ model, block, settings, state, absmax, trials, stand, signal }: ContextParts): TransformContext {
  const pairs = usablePairs(model, block, settings);
  const sites = new Map(block.sites.map((site) => [site.weight, site]));
  return {
    block,
    pairs,
    settings,
    absmax,
    weight: async (slot) => {
      const fed = stand?.weights.get(slot)?.data;
      const stored = fed instanceof Float32Array ? fed : toFloat32(await block.weights.get(slot)!.read());
      return state.weightOf(block, slot, stored, sites.get(slot));
    },
    ...(trials && {
      score: async (factors) => {
        throwIfAborted(signal);
        const trial = state.fork();
        for (const one of factors) await trial.apply(block, one);
        const consumers = factors.flatMap(({ pair }) => pair.consumers);
        const producers = factors.flatMap(({ pair }) => sites.get(pair.producer.weight) ?? []);
        return trials.error(trial, { weights: [...new Set([...consumers, ...producers])], activations: consumers });
      },
    }),
  };
}

/** The heads of the first samples, up to the number of tokens that trials run on; at least one. */
function trialSamples(samples: readonly Sample[]): readonly Sample[] {
  let tokens = 0;
  const heads = samples.map((sample) => headOfSample(sample, TRIAL_SEQUENCE));
  const end = heads.findIndex(({ inputs }) => {
    tokens += inputs["input_ids"]?.data.length ?? 0;
    return tokens >= TRIAL_TOKENS;
  });
  return end < 0 ? heads : heads.slice(0, end + 1);
}

/** The first tokens of a sample; samples that are not sequences of tokens stay whole. */
function headOfSample(sample: Sample, tokens: number): Sample {
  const length = sample.inputs["input_ids"]?.shape[1] ?? 0;
  if (length <= tokens) return sample;
  const cut = ([name, value]: [string, HostTensor]): [string, HostTensor] =>
    value.shape.length === 2 && value.shape[0] === 1 && value.shape[1] === length
      ? [name, { ...value, shape: [1, tokens], data: value.data.slice(0, tokens) }]
      : [name, value];
  return { inputs: Object.fromEntries(Object.entries(sample.inputs).map(cut)) };
}

function maximumOf(absmax: Float32Array, factors: Float32Array | undefined): number {
  return factors === undefined ? absmax.reduce((best, a) => Math.max(best, a), 0) : smoothedMaximum(absmax, factors);
}

/** Whether a number of the scheme comes from calibration: a static scale, or the divisor of NVFP4. */
export function wantsAbsmax({ timing, scale }: QuantScheme): boolean {
  return timing === "static" || scale === "e4m3";
}

/** Scale of a static per-tensor scheme for inputs of this largest magnitude, rounded as stored. */
function staticScale({ format, dialect, scale }: QuantScheme, maximum: number, storage: DType, { arithmetic }: Settings): number {
  if (scale === "e4m3") return nvfp4GlobalScale(maximum, arithmetic);
  const top = arithmetic === "bf16" ? roundBf16(maximum) : maximum;
  if (format.kind === "float") return floatScale(format.format, top, { arithmetic, storage });
  if (format.kind === "int") return intParameters(dialect, format.bits, true, -top, top, { arithmetic, storage }).scale;
  throw new InputError("input.option", `a static scale for ${format.kind} activations is not defined`, { format });
}

/** Largest over median channel maximum; 1 when no channel fires. */
function outlierRatio(absmax: Float32Array): number {
  const sorted = absmax.toSorted();
  const median = sorted[Math.floor(sorted.length / 2)]!;
  const top = sorted.at(-1)!;
  return top === 0 ? 1 : top / Math.max(median, Number.MIN_VALUE);
}
