/**
 * `--scheme key=value,...`: every key, in one table.
 * @module
 */
import { InputError } from "../core/errors.ts";

/** How one key is checked and explained. */
export interface SchemeKey {
  readonly summary: string;
  /** Allowed words. */
  readonly values?: readonly string[];
  /** Also a number in this range. */
  readonly range?: readonly [low: number, high: number];
  /** Also any text of this kind, checked where it is used. */
  readonly other?: string;
}

const BOOLEAN = ["true", "false"] as const;

/** To add a key: a line here and its use in `settings.ts`. */
export const SCHEME_KEYS = {
  preset: {
    summary: "how a range becomes a scale, for weights and dynamic activations",
    values: ["compressed-tensors", "sq-fake", "torch-int", "awq", "gptq", "quarot"],
  },
  arithmetic: { summary: "f32, or bf16 to repeat the official library to the byte", values: ["f32", "bf16"] },
  act: {
    summary: "activation scales: one a token, one a tensor, or a calibrated constant",
    values: ["token", "tensor", "static", "dynamic"],
  },
  level: { summary: "SmoothQuant's levels: per-tensor weights, activations per token, per tensor, static", values: ["O1", "O2", "O3"] },
  "qkv-outputs": { summary: "quantize the outputs of q, k and v as well", values: BOOLEAN },
  alpha: { summary: "migration strength of SmoothQuant, or a search per pair", values: ["auto"], range: [0, 1] },
  pairs: { summary: "which exact folds SmoothQuant uses: behind norms only, or v-o and up-down too", values: ["norm", "all"] },
  moe: { summary: "whether a norm in front of experts is smoothed", values: ["fold", "skip"] },
  "scale-dtype": { summary: "dtype of stored weight scales; model = that of the weights", values: ["f32", "bf16", "f16", "model"] },
  tied: {
    summary: "lossless, embedding that is the head as well: plain (the official loader cannot tie a compressed one), or compress",
    values: ["plain", "compress"],
  },
  scale: {
    summary: "how the largest number of a block becomes its scale (BFP, MX, NVFP4)",
    values: ["floor", "even", "ceil", "rceil", "mse"],
  },
  sites: {
    summary: "what reorder sorts: the channels of keys, all inputs that something in front can be ordered for, or those of sites by name",
    values: ["k", "all"],
    other: "a site pattern",
  },
  order: {
    summary: "what reorder sorts by: norm of W_k rows, calibrated absmax, or least expected error",
    values: ["norm", "absmax", "score"],
  },
  block: { summary: "channels a block that reorder sorts for", range: [1, 65536] },
  rope: { summary: "reorder of rotated keys: any order, or whole pairs side by side", values: ["free", "interleaved"] },
  symmetric: { summary: "integer weights without or with zero points", values: BOOLEAN },
  form: {
    summary:
      "ONNX, weight-only: MatMulNBits, or DequantizeLinear in front of the operator (default for whole channels of 8 bits: Cast and Mul, which runtimes fold)",
    values: ["nbits", "dq"],
  },
  calibrator: { summary: "ONNX, static: how a range is chosen", values: ["minmax", "percentile", "mse", "entropy"] },
  percentile: { summary: "ONNX, calibrator=percentile: percent of values inside the range (default 99.999)", range: [50, 100] },
  weights: { summary: "ONNX, w8a8: type of weight codes (default uint8 when dynamic, int8 when static)", values: ["int8", "uint8"] },
  search: { summary: "ONNX: weight scales by range, or by least squared error (default below 8 bits)", values: ["none", "mse"] },
  embedding: { summary: "ONNX: bits of embedding tables", values: ["8", "4", "float"] },
  outputs: { summary: "ONNX, static: which outputs get codes too (default float)", values: ["float", "conv", "all"] },
  external: { summary: "ONNX: weights in a second file", values: ["auto", "always", "never"] },
  correct: {
    summary: "ONNX, with --data: biases of convolutions make up for what rounding does to the means (default true)",
    values: BOOLEAN,
  },
  fold: {
    summary: "ONNX: BatchNormalization, products and sums behind Conv, ConvTranspose and Gemm become part of their weights (default true)",
    values: BOOLEAN,
  },
  shift: { summary: "ONNX, smoothquant: SQ-b, channels are centred before they are scaled", values: BOOLEAN },
  twin: { summary: "ONNX, static: two scales for values behind a GELU", values: BOOLEAN },
} as const satisfies Record<string, SchemeKey>;

export type SchemeKeyName = keyof typeof SCHEME_KEYS;

/** Keys that only ONNX artifacts have a meaning for. */
export const ONNX_ONLY_KEYS: ReadonlySet<SchemeKeyName> = new Set<SchemeKeyName>([
  "form",
  "calibrator",
  "percentile",
  "weights",
  "search",
  "embedding",
  "outputs",
  "external",
  "correct",
  "fold",
  "shift",
  "twin",
]);

/** Keys for .onnx sources. */
export const ONNX_KEYS: ReadonlySet<SchemeKeyName> = new Set<SchemeKeyName>(["act", "alpha", "symmetric", ...ONNX_ONLY_KEYS]);

/**
 * Check keys and values against the table.
 *
 * @throws {InputError} `input.option` naming the key, the value and what is allowed; `details.known` lists it.
 */
export function checkScheme(scheme: Readonly<Record<string, string>>): ReadonlyMap<SchemeKeyName, string> {
  const checked = new Map<SchemeKeyName, string>();
  for (const [key, value] of Object.entries(scheme)) {
    if (!isSchemeKey(key)) {
      const known = Object.keys(SCHEME_KEYS);
      throw new InputError("input.option", `--scheme has no key "${key}"; keys: ${known.join(", ")}`, {
        option: "scheme",
        given: key,
        known,
      });
    }
    checkValue(key, value, SCHEME_KEYS[key]);
    checked.set(key, value);
  }
  return checked;
}

function isSchemeKey(key: string): key is SchemeKeyName {
  return Object.hasOwn(SCHEME_KEYS, key);
}

function checkValue(key: string, value: string, { values = [], range, other }: SchemeKey): void {
  if (values.includes(value) || other !== undefined) return;
  const number = value.trim() === "" ? NaN : Number(value);
  if (range !== undefined && number >= range[0] && number <= range[1]) return;
  const allowed = [...(range === undefined ? [] : [`a number from ${range[0]} to ${range[1]}`]), ...values];
  throw new InputError("input.option", `--scheme ${key}=${value}: must be ${allowed.join(", ")}`, {
    option: "scheme",
    key,
    given: value,
    known: values,
  });
}
