/**
 * A recipe with every default filled in and every conflict refused.
 * @module
 */
import type { DType } from "../core/dtype.ts";
import { blockScheme, parseBlockFormat, type BlockFormat } from "../core/blocks/format.ts";
import { InputError } from "../core/errors.ts";
import type { DialectName, Granularity, QuantScheme, ScaleRule, ScaleType } from "../core/scheme.ts";
import { parseBits, type BitsChoice } from "./bits.ts";
import { parseKv } from "./kv/spec.ts";
import type { Method, Transform } from "./method.ts";
import { resolveMethods } from "./recipe.ts";
import { checkScheme, ONNX_ONLY_KEYS, type SchemeKeyName } from "./scheme-keys.ts";
import type { Recipe } from "./types.ts";

/** How numbers are worked out: in f32, or each step rounded to bf16 as the official library does on bf16 models. */
export type Arithmetic = "f32" | "bf16";

/** Weights per scale as asked for; `auto` = 128, or the largest power of two below it that divides the columns. */
export type GroupSize = number | "auto" | "channel" | "tensor";

/** Schemes of a site before its shape is known. */
export interface SiteSettings {
  readonly bits: BitsChoice;
  readonly groupSize: GroupSize;
}

/** @throws {InputError} `input.option` when `--bits` names another family than a method that is a format (nvfp4, mxfp4, bfp). */
function checkedBits(given: string | undefined, method: Method): BitsChoice {
  const bits = parseBits(given ?? method.defaultBits);
  if (method.family === undefined || bits.name.startsWith(method.family)) return bits;
  throw new InputError(
    "input.option",
    `--method ${method.name} and --bits ${bits.name} contradict each other; use --method rtn --bits ${bits.name}`,
    {
      option: "bits",
      given: bits.name,
      method: method.name,
    },
  );
}

/** What the `reorder` transform is asked for. */
export interface ReorderSettings {
  /** "k": keys. "all": keys and inputs of sites. Else a site pattern: inputs of these sites, and keys where one of them makes keys. */
  readonly sites: string;
  readonly order: "norm" | "absmax" | "score";
  /** Channels a block; undefined = that of the weights' format, else 32. */
  readonly block: number | undefined;
  readonly rope: "free" | "interleaved";
}

/** What the whole run needs to know. */
export interface Settings {
  readonly recipe: Recipe;
  readonly transforms: readonly Transform[];
  readonly method: Method;
  readonly site: SiteSettings;
  readonly overrides: readonly (SiteSettings & { readonly match: string })[];
  readonly preset: DialectName;
  readonly symmetric: boolean;
  readonly activation: "token" | "tensor" | "static";
  readonly qkvOutputs: boolean;
  readonly arithmetic: Arithmetic;
  readonly scale: ScaleType;
  /** Scale rule of block formats; undefined = the format's own. */
  readonly scaleRule: ScaleRule | undefined;
  readonly reorder: ReorderSettings;
  /** No number is rounded: a transform alone whose result is a float model. */
  readonly isFloat: boolean;
  readonly alpha: number | "auto";
  readonly pairs: "norm" | "all";
  readonly smoothExperts: boolean;
  readonly ignore: readonly string[];
  readonly protect: "none" | "auto" | readonly string[];
  readonly seed: number;
}

/** Presets whose weights have zero points unless `symmetric=true`. */
const ASYMMETRIC_PRESETS: ReadonlySet<DialectName> = new Set(["awq"]);
/** Presets that never have zero points. */
const SYMMETRIC_PRESETS: ReadonlySet<DialectName> = new Set(["sq-fake", "torch-int", "quarot"]);
const LEVELS = { O1: "token", O2: "tensor", O3: "static" } as const;
const DEFAULT_ALPHA = 0.5;
/** What a group is when nothing is said: the size every int4 kernel in the field takes. */
export const DEFAULT_GROUP_SIZE = 128;

/**
 * Fill in defaults.
 *
 * @throws {InputError} `input.option` for unknown names and settings that contradict each other, naming both.
 */
export function resolveSettings(recipe: Recipe): Settings {
  const { transforms, method } = resolveMethods(recipe.method);
  const scheme = checkScheme(recipe.scheme ?? {});
  if (recipe.kv !== undefined) parseKv(recipe.kv);
  const bits = checkedBits(recipe.bits, method);
  const preset = (scheme.get("preset") ?? "compressed-tensors") as DialectName;
  const arithmetic = (scheme.get("arithmetic") ?? "f32") as Arithmetic;
  const level = scheme.get("level") as keyof typeof LEVELS | undefined;
  checkConflicts(recipe, scheme, bits);
  const activation = level === undefined ? dynamicOr(scheme.get("act")) : LEVELS[level];
  // FP8 with a static scale is the field's "FP8" preset, which has one scale per weight tensor as well.
  const perTensor = level !== undefined || (bits.weight.kind === "float" && activation === "static");
  const alpha = scheme.get("alpha");
  const withAlphaAuto = alpha === "auto";
  return {
    recipe,
    transforms,
    method,
    site: { bits, groupSize: perTensor ? (recipe.groupSize ?? "tensor") : (recipe.groupSize ?? defaultGroup(bits)) },
    overrides: (recipe.overrides ?? []).map((entry) => {
      const overridden = entry.bits === undefined ? bits : parseBits(entry.bits);
      return { match: entry.match, bits: overridden, groupSize: entry.groupSize ?? recipe.groupSize ?? defaultGroup(overridden) };
    }),
    preset,
    symmetric: scheme.has("symmetric") ? scheme.get("symmetric") === "true" : !ASYMMETRIC_PRESETS.has(preset),
    activation,
    qkvOutputs: scheme.get("qkv-outputs") === "true",
    arithmetic,
    scale: (scheme.get("scale-dtype") ?? (preset === "compressed-tensors" ? "model" : "f32")) as ScaleType,
    isFloat:
      recipe.bits === undefined && recipe.method.length > 0 && recipe.method.every((name) => name.trim().toLowerCase() === "reorder"),
    scaleRule: scheme.get("scale") as ScaleRule | undefined,
    reorder: {
      sites: scheme.get("sites") ?? "k",
      order: (scheme.get("order") ?? "score") as ReorderSettings["order"],
      block: wholeBlock(scheme.get("block")),
      rope: (scheme.get("rope") ?? "free") as ReorderSettings["rope"],
    },
    alpha: alpha === undefined ? DEFAULT_ALPHA : withAlphaAuto ? "auto" : Number(alpha),
    pairs: (scheme.get("pairs") ?? (withAlphaAuto ? "all" : "norm")) as Settings["pairs"],
    smoothExperts: scheme.get("moe") !== "skip",
    ignore: recipe.ignore ?? [],
    protect: recipe.protect ?? "none",
    seed: recipe.seed ?? 0,
  };
}

function wholeBlock(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const block = Number(text);
  if (Number.isInteger(block)) return block;
  throw new InputError("input.option", `--scheme block=${text}: must be a whole number of channels`, { option: "scheme", given: text });
}

function defaultGroup({ weight, activation, block }: BitsChoice): GroupSize {
  if (block !== undefined) return block.block;
  return weight.kind === "int" && weight.bits < 8 && activation === undefined ? "auto" : "channel";
}

/** `dynamic` is short for a scale a token. */
function dynamicOr(act: string | undefined): Settings["activation"] {
  return act === "tensor" || act === "static" ? act : "token";
}

function checkConflicts(recipe: Recipe, scheme: ReadonlyMap<SchemeKeyName, string>, bits: BitsChoice): void {
  const refuse = (a: string, b: string, why: string): never => {
    throw new InputError("input.option", `${a} and ${b} contradict each other: ${why}`, { option: "scheme", first: a, second: b });
  };
  const preset = scheme.get("preset") ?? "compressed-tensors";
  const foreign = [...scheme.keys()].find((key) => ONNX_ONLY_KEYS.has(key));
  if (foreign !== undefined) {
    throw new InputError("input.option", `--scheme ${foreign} belongs to .onnx sources and targets; this one has no use for it`, {
      option: "scheme",
      given: foreign,
    });
  }
  for (const key of ["act", "level", "qkv-outputs"] as const) {
    if (scheme.has(key) && scheme.get(key) !== "false" && bits.activation === undefined)
      refuse(`--scheme ${key}=${scheme.get(key)}`, `--bits ${bits.name}`, `${bits.name} leaves activations float`);
  }
  if (bits.block !== undefined) {
    for (const key of ["preset", "act", "level", "symmetric", "scale-dtype"] as const) {
      if (scheme.has(key))
        refuse(`--scheme ${key}=${scheme.get(key)}`, `--bits ${bits.name}`, "a block format fixes how its scales are made and stored");
    }
  } else if (scheme.has("scale")) {
    refuse(`--scheme scale=${scheme.get("scale")}`, `--bits ${bits.name}`, "scale rules belong to block formats (bfp, mx, nvfp4)");
  }
  if (scheme.has("level") && scheme.has("act"))
    refuse(`--scheme level=${scheme.get("level")}`, `act=${scheme.get("act")}`, "a level sets the activations' scales");
  if (scheme.has("level") && recipe.groupSize !== undefined && recipe.groupSize !== "tensor")
    refuse(`--scheme level=${scheme.get("level")}`, `--group-size ${recipe.groupSize}`, "the levels have one scale per weight tensor");
  if (bits.weight.kind === "float" && preset !== "compressed-tensors")
    refuse(`--bits ${bits.name}`, `--scheme preset=${preset}`, "the presets are for integers");
  if (bits.weight.kind === "float" && scheme.get("symmetric") === "false")
    refuse(`--bits ${bits.name}`, "--scheme symmetric=false", "floats have no zero point");
  if (scheme.get("arithmetic") === "bf16" && preset !== "compressed-tensors")
    refuse("--scheme arithmetic=bf16", `preset=${preset}`, "bf16 arithmetic repeats the compressed-tensors library");
  if (scheme.get("symmetric") === "false" && SYMMETRIC_PRESETS.has(preset as DialectName))
    refuse("--scheme symmetric=false", `preset=${preset}`, `${preset} has no zero points`);
  if (scheme.get("symmetric") === "false" && bits.activation !== undefined)
    refuse("--scheme symmetric=false", `--bits ${bits.name}`, "integer kernels for quantized activations want weights without zero points");
}

/** The scale rule asked for; with bf16 arithmetic, which repeats the official library, MX blocks take the library's unless told otherwise. */
function ruleOf({ scaleRule, arithmetic }: Settings, { family }: BlockFormat): ScaleRule | undefined {
  return scaleRule ?? (family === "mx" && arithmetic === "bf16" ? "even" : undefined);
}

/**
 * The weight scheme of one site.
 *
 * @param cols - input channels of the site; of the experts of one layer, a common divisor.
 * @throws {InputError} `input.option` when a group size that was asked for does not divide the columns, naming both and the nearest that does.
 */
export function weightScheme(settings: Settings, { bits, groupSize }: SiteSettings, site: string, cols: number): QuantScheme {
  const block = blockOf(bits, groupSize);
  if (block !== undefined) return blockScheme(block, "static", ruleOf(settings, block));
  const format = bits.weight.kind === "int" ? { ...bits.weight, symmetric: settings.symmetric } : bits.weight;
  return {
    format,
    granularity: weightGranularity(groupSize, site, cols),
    timing: "static",
    scale: settings.scale,
    dialect: settings.preset,
  };
}

/** The block format of a choice with the group size that was asked for. @throws {InputError} for a group it does not have. */
function blockOf({ block, name }: BitsChoice, groupSize: GroupSize): BlockFormat | undefined {
  if (block === undefined) return undefined;
  if (typeof groupSize === "number") return parseBlockFormat(block.name, groupSize);
  if (groupSize === "auto") return block;
  throw new InputError("input.option", `--group-size ${groupSize}: ${name} has one scale a block of channels; give a number`, {
    option: "group-size",
    given: groupSize,
  });
}

function weightGranularity(groupSize: GroupSize, site: string, cols: number): Granularity {
  if (groupSize === "channel" || groupSize === "tensor") return { kind: groupSize };
  if (groupSize === "auto") return { kind: "group", size: largestGroup(cols) };
  if (cols % groupSize !== 0) {
    const nearest = nearestDivisor(cols, groupSize);
    throw new InputError(
      "input.option",
      `--group-size ${groupSize} does not divide the ${cols} columns of ${site}; the nearest that does is ${nearest}`,
      {
        option: "group-size",
        given: groupSize,
        site,
        cols,
        nearest,
      },
    );
  }
  return { kind: "group", size: groupSize };
}

/** The largest group of at most 128 that divides `cols`: a power of two where one of 16 or more does. */
function largestGroup(cols: number): number {
  for (let size = DEFAULT_GROUP_SIZE; size >= 16; size /= 2) if (cols % size === 0) return size;
  return nearestDivisor(cols, DEFAULT_GROUP_SIZE);
}

function nearestDivisor(cols: number, wanted: number): number {
  let best = 1;
  for (let low = 1; low * low <= cols; low++) {
    if (cols % low !== 0) continue;
    for (const divisor of [low, cols / low]) if (Math.abs(divisor - wanted) < Math.abs(best - wanted)) best = divisor;
  }
  return best;
}

/** How activations are quantized at a site of this width, if they are. */
export function activationScheme(settings: Settings, { bits, groupSize }: SiteSettings): QuantScheme | undefined {
  if (bits.activation === undefined) return undefined;
  const block = blockOf(bits, groupSize);
  if (block !== undefined) return blockScheme(block, "dynamic", ruleOf(settings, block));
  const timing = settings.activation === "static" ? "static" : "dynamic";
  return {
    format: bits.activation,
    granularity: { kind: settings.activation === "token" ? "token" : "tensor" },
    timing,
    scale: settings.scale,
    dialect: SYMMETRIC_PRESETS.has(settings.preset) ? settings.preset : "compressed-tensors",
  };
}

/** Dtype that scales are stored in, for weights of `model` dtype. */
export function scaleDType(scale: ScaleType, model: DType): DType {
  switch (scale) {
    case "f32":
      return "F32";
    case "bf16":
      return "BF16";
    case "f16":
      return "F16";
    case "model":
      return model === "BF16" || model === "F16" ? model : "F32";
    case "e4m3":
    case "e8m0":
      throw new InputError("input.option", `scales of type ${scale} belong to block formats`, { scale });
    default:
      return scale satisfies never;
  }
}
