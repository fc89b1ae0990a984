/**
 * A recipe for ONNX files with every default filled in.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { parseBits } from "../bits.ts";
import { resolveMethods } from "../recipe.ts";
import { checkScheme, ONNX_KEYS, type SchemeKeyName } from "../scheme-keys.ts";
import type { Recipe } from "../types.ts";

/** How static activation ranges are chosen. */
export type Calibrator = "minmax" | "percentile" | "mse" | "entropy";

/** What a float model becomes. */
export interface OnnxSettings {
  readonly recipe: Recipe;
  /** Float formats rewrite every tensor; the rest goes site by site. */
  readonly target: "float16" | "bnb4" | "sites";
  readonly weightBits: 2 | 4 | 8;
  /** 16 with `static` means 16-bit codes; `float`: activations stay as they are. */
  readonly activation: "float" | "tensor" | "token" | "static";
  readonly activationBits: 8 | 16;
  readonly form: "nbits" | "dq";
  /** Weights a scale. */
  readonly block: number | "channel" | "tensor";
  /** Undefined: what the form is best with. */
  readonly symmetric: boolean | undefined;
  readonly search: boolean;
  readonly unsignedWeights: boolean;
  readonly embedding: 8 | 4 | "float";
  readonly calibrator: Calibrator;
  /** Percent of values a percentile range holds. */
  readonly percentile: number;
  /** Which outputs get codes as well. */
  readonly outputs: "float" | "conv" | "all";
  readonly external: "auto" | "always" | "never";
  /** Constants behind a Conv, ConvTranspose or Gemm go into its weight. */
  readonly fold: boolean;
  /** With data: biases of convolutions make up for the rounding of their weights. */
  readonly correct: boolean;
  readonly smooth: boolean;
  readonly alpha: number | "auto";
  /** SQ-b: move each channel's middle to zero before it is scaled. */
  readonly shift: boolean;
  /** Two scales for values behind a GELU. */
  readonly twin: boolean;
  readonly protect: "none" | "auto" | readonly string[];
  readonly ignore: readonly string[];
}

const DEFAULT_BLOCK = 32;
const DEFAULT_PERCENTILE = 99.999;
const DEFAULT_ALPHA = 0.5;

/**
 * Fill in defaults: without bits, w8a8 with one activation scale a token, taken when the model runs.
 *
 * @throws {InputError} `input.option` for unknown names and settings that contradict each other.
 */
export function resolveOnnxSettings(recipe: Recipe): OnnxSettings {
  const { transforms } = resolveMethods(recipe.method);
  const smooth = transforms.some(({ name }) => name === "smoothquant");
  const scheme = checkScheme(recipe.scheme ?? {});
  for (const key of scheme.keys()) {
    if (!ONNX_KEYS.has(key))
      throw new InputError("input.option", `--scheme ${key} has no meaning for an .onnx source; keys there: ${[...ONNX_KEYS].join(", ")}`, {
        option: "scheme",
        given: key,
        known: [...ONNX_KEYS],
      });
  }
  const name = recipe.bits ?? "w8a8";
  const floatTarget = name === "fp16" ? "float16" : name === "bnb4" || name === "nf4" ? "bnb4" : undefined;
  const bits = floatTarget === undefined ? intBits(name) : { weight: 8 as const, activation: undefined };
  const activation = activationOf(scheme, bits.activation);
  const groupSize = recipe.groupSize ?? (bits.weight < 8 ? DEFAULT_BLOCK : "channel");
  const embedding = scheme.get("embedding") ?? "8";
  return {
    recipe,
    target: floatTarget ?? "sites",
    weightBits: bits.weight,
    activation,
    activationBits: bits.activation === undefined ? 16 : 8,
    form: (scheme.get("form") ?? (bits.weight < 8 || (bits.activation === undefined && typeof groupSize === "number") ? "nbits" : "dq")) as
      "nbits" | "dq",
    block: groupSize,
    symmetric: scheme.has("symmetric") ? scheme.get("symmetric") === "true" : undefined,
    search: (scheme.get("search") ?? (bits.weight < 8 ? "mse" : "none")) === "mse",
    unsignedWeights: (scheme.get("weights") ?? (activation === "static" ? "int8" : "uint8")) === "uint8",
    embedding: embedding === "float" ? "float" : embedding === "4" ? 4 : 8,
    calibrator: (scheme.get("calibrator") ?? "minmax") as Calibrator,
    percentile: Number(scheme.get("percentile") ?? DEFAULT_PERCENTILE),
    outputs: (scheme.get("outputs") ?? "float") as OnnxSettings["outputs"],
    external: (scheme.get("external") ?? "auto") as OnnxSettings["external"],
    correct: scheme.get("correct") !== "false",
    fold: scheme.get("fold") !== "false",
    smooth,
    alpha: scheme.get("alpha") === "auto" ? "auto" : Number(scheme.get("alpha") ?? DEFAULT_ALPHA),
    shift: scheme.get("shift") === "true",
    twin: scheme.get("twin") === "true",
    protect: recipe.protect ?? "none",
    ignore: recipe.ignore ?? [],
  };
}

function intBits(name: string): { readonly weight: 2 | 4 | 8; readonly activation: 8 | undefined } {
  // 16-bit activations are codes where a static scale is asked for; `activationOf` decides.
  const { weight, activation } = parseBits(name);
  const known = (value: number, allowed: readonly number[]): boolean => allowed.includes(value);
  if (
    weight.kind !== "int" ||
    !known(weight.bits, [2, 4, 8]) ||
    (activation !== undefined && (activation.kind !== "int" || activation.bits !== 8))
  ) {
    throw new InputError(
      "input.option",
      `--bits ${name}: ONNX graphs hold w8a8, w8a16, w4a8, w4a16, w2a16, fp16 and bnb4 (a16 with --scheme act=static: 16-bit codes)`,
      { option: "bits", given: name, known: ["w8a8", "w8a16", "w4a8", "w4a16", "w2a16", "fp16", "bnb4"] },
    );
  }
  return { weight: weight.bits as 2 | 4 | 8, activation: activation === undefined ? undefined : 8 };
}

function activationOf(scheme: ReadonlyMap<SchemeKeyName, string>, bits: 8 | undefined): OnnxSettings["activation"] {
  const asked = scheme.get("act");
  if (bits === undefined) return asked === "static" ? "static" : "float";
  return asked === "static" || asked === "tensor" ? asked : "token";
}

/** Whether the recipe looks at activations. */
export function needsSamples(settings: OnnxSettings): boolean {
  return settings.target === "sites" && (settings.activation === "static" || settings.smooth || settings.protect === "auto");
}
