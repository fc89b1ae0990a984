/**
 * What happens to each site: recipe and graph → one action a site, before anything is read.
 * @module
 */
import { elementCount } from "../../core/dtype.ts";
import type { QuantScheme } from "../../core/scheme.ts";
import type { OnnxSite } from "../../model/onnx/site.ts";
import { compilePatterns, requireMatches } from "../patterns.ts";
import type { SitePlan } from "../types.ts";
import {
  NBITS_BLOCKS,
  rewriteDequantize,
  rewriteEmbedding,
  rewriteHalf,
  rewriteNBits,
  type EmbeddingScheme,
  type NBitsScheme,
} from "./rewrites/weight-only.ts";
import { rewriteDynamic, type DynamicScheme } from "./rewrites/dynamic.ts";
import { rewriteStatic, type StaticScheme } from "./rewrites/static.ts";
import type { AxisWeightScheme, BlockScheme } from "./rewrites/stored-weight.ts";
import { matrixProblem, type RewriteContext, type RewriteOutcome } from "./rewrites/context.ts";
import type { OnnxSettings } from "./settings.ts";
import { InputError } from "../../core/errors.ts";

/** One site's fate. */
export type SiteAction =
  | { readonly kind: "float"; readonly reason: string }
  | { readonly kind: "half"; readonly reason: string }
  | { readonly kind: "nbits"; readonly scheme: NBitsScheme; readonly reason?: string }
  | { readonly kind: "dequantize"; readonly scheme: AxisWeightScheme | BlockScheme; readonly reason?: string }
  | { readonly kind: "embedding"; readonly scheme: EmbeddingScheme; readonly reason?: string }
  | { readonly kind: "dynamic"; readonly scheme: DynamicScheme; readonly reason?: string }
  | { readonly kind: "static"; readonly scheme: StaticScheme; readonly reason?: string };

export interface ChosenSite {
  readonly site: OnnxSite;
  readonly action: SiteAction;
}

/** Convolutions with less than this share of the model's weights become 16-bit floats: they save nothing, and first and depthwise ones are delicate. */
const SMALL_SHARE = 2.5e-3;
/** First opset whose operators can round with a scale a token. */
const TOKEN_OPSET = 11;
/**
 * What two neighbouring codes of a signed weight add up to at most: processors without VNNI add pairs of u8·s8 products in 16 signed bits.
 * 128 would hold for activation codes up to 255, at six times the rounding error of free codes; 160 holds up to 204, at 1.25 times.
 */
const PAIR_SUM = 160;
/** Weights below this many values cost more in nodes and scales than they save. */
const SMALL_WEIGHT = 16;

/**
 * Choose actions.
 *
 * @param floors - values of the main graph that never go below a number of at most 0.
 * @param protect - sites that keep float activations, with the reason, beside those the recipe names.
 * @throws {InputError} `input.option` for patterns that match nothing and block sizes no operator takes.
 */
export function chooseActions(
  sites: readonly OnnxSite[],
  settings: OnnxSettings,
  opsets: (path: string) => number,
  floors: ReadonlyMap<string, number> = new Map(),
  protect: ReadonlyMap<string, string> = new Map(),
): readonly ChosenSite[] {
  const names = sites.map(({ name }) => name);
  const patterns = [settings.ignore, settings.protect === "auto" || settings.protect === "none" ? [] : settings.protect];
  for (const [i, list] of patterns.entries()) requireMatches(i === 0 ? "ignore" : "protect", list, names);
  const [ignored, named] = patterns.map((list) => compilePatterns(list)) as [(name: string) => boolean, (name: string) => boolean];
  checkBlock(settings);
  const total = sites.reduce((sum, { weight }) => sum + elementCount(weight.tensor.shape), 0);
  return sites.map((site): ChosenSite => {
    if (ignored(site.name)) return { site, action: { kind: "float", reason: "float: --ignore" } };
    const reason = protect.get(site.name) ?? (named(site.name) ? "weight-only: --protect" : undefined);
    const count = elementCount(site.weight.tensor.shape);
    if (site.kind === "conv" && count < SMALL_SHARE * total) {
      return { site, action: smallConv(site, count) };
    }
    return { site, action: actionOf(site, settings, opsets(site.path), reason, floors) };
  });
}

function smallConv({ weight }: OnnxSite, count: number): SiteAction {
  const why = `its ${count} weights are less than 0.25 % of the model's`;
  return weight.tensor.dtype === "F32" && count >= SMALL_WEIGHT
    ? { kind: "half", reason: `16-bit float: ${why}` }
    : { kind: "float", reason: `float: ${why}` };
}

function checkBlock({ block, form }: OnnxSettings): void {
  if (typeof block !== "number" || form !== "nbits" || NBITS_BLOCKS.includes(block)) return;
  throw new InputError("input.option", `--group-size ${block}: MatMulNBits takes ${NBITS_BLOCKS.join(", ")}`, {
    option: "group-size",
    given: block,
    known: NBITS_BLOCKS,
  });
}

function actionOf(
  site: OnnxSite,
  settings: OnnxSettings,
  opset: number,
  protectedBy: string | undefined,
  floors: ReadonlyMap<string, number>,
): SiteAction {
  const { weight, kind } = site;
  const { dtype, shape } = weight.tensor;
  if (dtype !== "F32" && dtype !== "F16")
    return { kind: "float", reason: `float: its weight is ${dtype}, and only F32 and F16 have kernels` };
  const count = elementCount(shape);
  if (count < SMALL_WEIGHT && kind !== "linear")
    return { kind: "float", reason: `float: its ${count} weights are fewer than their scales are worth` };
  if (kind === "embedding") return embeddingAction(site, settings);
  if (kind !== "linear") {
    if (settings.activation === "static" && kind === "conv" && site.observable && protectedBy === undefined)
      return { kind: "static", scheme: staticScheme(settings) };
    // Kernels of few weights a channel often have one that is far from the rest: the range alone would be a poor scale.
    return {
      kind: "dequantize",
      scheme: { ...axisScheme(settings, 8, site), search: settings.recipe.scheme?.["search"] !== "none" },
      ...(protectedBy !== undefined && { reason: protectedBy }),
    };
  }
  const problem = matrixProblem(site);
  if (problem !== undefined) return { kind: "dequantize", scheme: axisScheme(settings, 8, site), reason: `weight-only: ${problem}` };
  if (protectedBy !== undefined && settings.activation === "float") {
    return weightOnly({ ...settings, weightBits: 8 }, site, opset, protectedBy.replace("weight-only", "8 bits"));
  }
  if (protectedBy !== undefined) return weightOnly(settings, site, opset, protectedBy);
  if (settings.activation === "static") {
    if (!site.observable)
      return weightOnly(settings, site, opset, "weight-only: its input stands inside a branch, loop or function, where no run shows it");
    if (dtype === "F32") return { kind: "static", scheme: staticScheme(settings) };
  } else if (settings.activation !== "float" && settings.weightBits === 8 && dtype === "F32") {
    return dynamicAction(settings, opset, site.path === "" ? floors.get(site.input) : undefined);
  }
  return weightOnly(settings, site, opset, dtype === "F16" && settings.activation !== "float" ? "weight-only: F16 activations" : undefined);
}

function dynamicAction(settings: OnnxSettings, opset: number, floor: number | undefined): SiteAction {
  const { activation, unsignedWeights, search, block } = settings;
  const perToken = activation === "token" && opset >= TOKEN_OPSET;
  const scheme: DynamicScheme = {
    activation: perToken ? "token-range" : "tensor",
    ...(perToken && floor !== undefined && { floor }),
    unsignedWeights,
    perChannel: block !== "tensor",
    reduced: false,
    ...(!unsignedWeights && { pairSum: PAIR_SUM }),
    // A scale that keeps pairs below the limit is found by trying.
    search: search || !unsignedWeights,
  };
  return {
    kind: "dynamic",
    scheme,
    ...(activation === "token" && !perToken && { reason: `one scale a tensor: opset ${opset} has no operators for one a token` }),
  };
}

function weightOnly(settings: OnnxSettings, site: OnnxSite, opset: number, reason: string | undefined): SiteAction {
  const why = reason === undefined ? {} : { reason };
  const { weightBits, block, form, search } = settings;
  const symmetric = settings.symmetric ?? weightBits === 8;
  const size = typeof block === "number" ? block : undefined;
  if (form === "nbits" && size !== undefined) {
    const isDynamic = settings.activation !== "float" && settings.activation !== "static";
    const accuracy = isDynamic ? { accuracyLevel: 4 } : {};
    return { kind: "nbits", scheme: { bits: weightBits, block: size, symmetric, search, ...accuracy }, ...why };
  }
  const needed = weightBits === 2 ? 25 : 21;
  if (size !== undefined && opset >= needed)
    return { kind: "dequantize", scheme: { bits: weightBits, block: size, symmetric, search }, ...why };
  if (size !== undefined && weightBits !== 8) {
    throw new InputError(
      "input.option",
      `${site.name}: DequantizeLinear of ${weightBits} bits in blocks needs opset ${needed}, the model has ${opset}; use --scheme form=nbits`,
      { option: "form", site: site.name, opset, needed },
    );
  }
  return { kind: "dequantize", scheme: axisScheme(settings, weightBits, site), ...why };
}

function embeddingAction({ weight }: OnnxSite, { embedding, search }: OnnxSettings): SiteAction {
  const cols = weight.tensor.shape[1]!;
  if (embedding === "float") return { kind: "float", reason: "float: --scheme embedding=float" };
  if (cols < 8) return { kind: "float", reason: `float: rows of ${cols} values are shorter than their scales are worth` };
  const block = 32;
  if (embedding === 4 && cols % block === 0) return { kind: "embedding", scheme: { bits: 4, symmetric: true, block, search: true } };
  const reason = embedding === 4 ? { reason: `8 bits: blocks of ${block} do not divide its rows of ${cols}` } : {};
  return { kind: "embedding", scheme: { bits: 8, symmetric: true, block, search }, ...reason };
}

/** Codes in the weight's own layout; of float32 weights in the form that runtimes fold, unless DequantizeLinear was asked for. */
function axisScheme(settings: OnnxSettings, bits: 2 | 4 | 8, { weight }: OnnxSite): AxisWeightScheme {
  const { block, search, recipe } = settings;
  const symmetric = settings.symmetric ?? true;
  const asProduct = bits === 8 && symmetric && weight.tensor.dtype === "F32" && recipe.scheme?.["form"] !== "dq";
  return { bits, unsigned: false, symmetric, perChannel: block !== "tensor", search, ...(asProduct && { asProduct }) };
}

function staticScheme(settings: OnnxSettings): StaticScheme {
  const { weightBits, block, search, unsignedWeights, activationBits } = settings;
  const isBlocked = weightBits === 4 && typeof block === "number";
  return {
    activationBits,
    weight: isBlocked
      ? { kind: "nbits", scheme: { bits: 4, block, symmetric: settings.symmetric ?? false, search } }
      : { kind: "axis", scheme: { bits: 8, unsigned: unsignedWeights, symmetric: true, perChannel: block !== "tensor", search } },
  };
}

/** Do it. */
export function rewriteSite(context: RewriteContext, { site, action }: ChosenSite): RewriteOutcome {
  switch (action.kind) {
    case "float":
      return { done: false, reason: action.reason };
    case "half":
      return rewriteHalf(context, site);
    case "nbits":
      return rewriteNBits(context, site, action.scheme);
    case "dequantize":
      return rewriteDequantize(context, site, action.scheme);
    case "embedding":
      return rewriteEmbedding(context, site, action.scheme);
    case "dynamic":
      return rewriteDynamic(context, site, action.scheme);
    case "static":
      return rewriteStatic(context, site, action.scheme);
    default:
      return action satisfies never;
  }
}

/** The action as the plan shows it. */
export function sitePlanOf({ site, action }: ChosenSite): SitePlan {
  const base = { name: site.name, shape: site.weight.tensor.shape };
  const reason = action.reason === undefined ? {} : { reason: action.reason };
  const int = (bits: number, symmetric: boolean): QuantScheme["format"] => ({ kind: "int", bits, symmetric });
  const weight = (bits: number, symmetric: boolean, granularity: QuantScheme["granularity"]): QuantScheme => ({
    format: int(bits, symmetric),
    granularity,
    timing: "static",
    scale: "f32",
    dialect: "compressed-tensors",
  });
  const axis = ({ bits, symmetric, perChannel }: AxisWeightScheme): QuantScheme =>
    weight(bits, symmetric, { kind: perChannel ? "channel" : "tensor" });
  const blocks = ({ bits, symmetric, block }: BlockScheme): QuantScheme => weight(bits, symmetric, { kind: "group", size: block });
  switch (action.kind) {
    case "float":
      return { ...base, ...reason };
    case "half": {
      const half: QuantScheme = { ...weight(8, true, { kind: "tensor" }), format: { kind: "float", format: "f16" } };
      return { ...base, weight: half, ...reason };
    }
    case "nbits":
      return { ...base, weight: blocks(action.scheme), ...reason };
    case "dequantize":
      return { ...base, weight: "block" in action.scheme ? blocks(action.scheme) : axis(action.scheme), ...reason };
    case "embedding": {
      const { bits, symmetric, block } = action.scheme;
      return { ...base, weight: weight(bits, symmetric, bits === 8 ? { kind: "channel" } : { kind: "group", size: block }), ...reason };
    }
    case "dynamic": {
      const { activation, perChannel } = action.scheme;
      return {
        ...base,
        weight: weight(8, true, { kind: perChannel ? "channel" : "tensor" }),
        input: { ...weight(8, activation === "token", { kind: activation === "tensor" ? "tensor" : "token" }), timing: "dynamic" },
        ...reason,
      };
    }
    case "static":
      return {
        ...base,
        weight: action.scheme.weight.kind === "nbits" ? blocks(action.scheme.weight.scheme) : axis(action.scheme.weight.scheme),
        input: weight(action.scheme.activationBits, false, { kind: "tensor" }),
        ...reason,
      };
    default:
      return action satisfies never;
  }
}
