/**
 * QuantScheme: how numbers are represented, as data. No file format, no
 * method: methods produce codes for a scheme, encodings store them, exports
 * say which schemes they can hold.
 * @module
 */
import type { FloatName } from "./float.ts";

/** What one code means. */
export type NumberFormat =
  /** Two's complement (symmetric: zero point 0) or affine with a zero point. `bits` 2 to 16. */
  | { readonly kind: "int"; readonly bits: number; readonly symmetric: boolean }
  /** A small float, e.g. e4m3, e2m1. */
  | { readonly kind: "float"; readonly format: FloatName }
  /** Signed mantissas of `mantissaBits` (sign included) under one shared 8-bit exponent a block. */
  | { readonly kind: "bfp"; readonly mantissaBits: number }
  /** Codes index a table of 2^bits values. */
  | { readonly kind: "codebook"; readonly bits: number; readonly name: string };

/** Which numbers share one scale. `axis` conventions: a weight is [out, in], an activation [..., tokens, channels]. */
export type Granularity =
  | { readonly kind: "tensor" }
  /** One scale per output channel of a weight. */
  | { readonly kind: "channel" }
  /** One scale per run of `size` consecutive input channels of one row. */
  | { readonly kind: "group"; readonly size: number }
  /** One scale per token of an activation. */
  | { readonly kind: "token" }
  /** One scale per tile of `rows` × `cols`. */
  | { readonly kind: "block"; readonly rows: number; readonly cols: number };

/** How scales themselves are stored. `second` = a per-tensor f32 scale above them (NVFP4). */
export type ScaleType = "f32" | "bf16" | "f16" | "e4m3" | "e8m0" | "model";

/**
 * How a range becomes a scale and zero point: the named dialects of the field
 * (`Dialect` in quantize/dialects.ts holds their formulas).
 */
export type DialectName =
  "compressed-tensors" | "sq-fake" | "torch-int" | "awq" | "gptq" | "quarot" | "omniquant" | "hqq" | "spqr" | "mx" | "nvfp4";

/** How the largest magnitude of a block becomes its scale (`core/blocks/scale.ts` holds the formulas). */
export type ScaleRule = "floor" | "even" | "ceil" | "rceil" | "mse";
export const SCALE_RULES: readonly ScaleRule[] = ["floor", "even", "ceil", "rceil", "mse"];

/** A complete description of one quantized tensor or activation. */
export interface QuantScheme {
  readonly format: NumberFormat;
  readonly granularity: Granularity;
  /** `static`: scales are stored. `dynamic`: computed from each input at run time (activations only). */
  readonly timing: "static" | "dynamic";
  readonly scale: ScaleType;
  readonly dialect: DialectName;
  /** Block formats only (scales e8m0, or e4m3 for NVFP4); left out, the format's own rule. */
  readonly scaleRule?: ScaleRule;
}

/** How activations are quantized at one site when the model runs. */
export interface SiteActivations {
  readonly input?: ActivationScheme;
  readonly output?: ActivationScheme;
}

/** A scheme, with its stored numbers when it is static. */
export interface ActivationScheme {
  readonly scheme: QuantScheme;
  /** Static schemes: unit activation per code. */
  readonly scale?: number;
  /** Static asymmetric schemes: code that means 0. */
  readonly zero?: number;
  /** NVFP4: the calibrated divisor above the scales of the blocks; without it, each input has its own. */
  readonly globalScale?: number;
}

/** Smallest and largest integer code of an int format: two's complement for symmetric, unsigned otherwise is up to the dialect. */
export function intRange(bits: number): { readonly min: number; readonly max: number } {
  return { min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 };
}

/** Bits of one code, scales left out. */
export function codeBits(format: NumberFormat): number {
  switch (format.kind) {
    case "int":
    case "codebook":
      return format.bits;
    case "bfp":
      return format.mantissaBits;
    case "float":
      return FLOAT_BITS[format.format];
    default:
      return format satisfies never;
  }
}

const FLOAT_BITS: Record<FloatName, number> = { f16: 16, bf16: 16, e4m3: 8, e5m2: 8, e3m2: 6, e2m3: 6, e2m1: 4 };

/** Scales a weight of [rows, cols] has under `granularity`, as a shape: [1], [rows, 1], [rows, groups] or tiles. */
export function scaleShape(granularity: Granularity, rows: number, cols: number): readonly number[] {
  switch (granularity.kind) {
    case "tensor":
      return [1];
    case "channel":
    case "token":
      return [rows, 1];
    case "group":
      return [rows, Math.ceil(cols / granularity.size)];
    case "block":
      return [Math.ceil(rows / granularity.rows), Math.ceil(cols / granularity.cols)];
    default:
      return granularity satisfies never;
  }
}

/** Short name for tables and messages, e.g. `int8 channel static`, `int4 asym group 128`, `e4m3 token dynamic`, `mx-e2m1 group 32`, `nv-e2m1 group 16`, `bfp12 group 32`. */
export function schemeName({ format, granularity, timing, scale }: QuantScheme): string {
  const family = format.kind === "bfp" ? "" : scale === "e8m0" ? "mx-" : scale === "e4m3" ? "nv-" : "";
  const name =
    format.kind === "int"
      ? `int${format.bits}${format.symmetric ? "" : " asym"}`
      : format.kind === "float"
        ? format.format
        : format.kind === "bfp"
          ? `bfp${format.mantissaBits + 8}`
          : format.name;
  const number = family + name;
  const share =
    granularity.kind === "group"
      ? `group ${granularity.size}`
      : granularity.kind === "block"
        ? `block ${granularity.rows}x${granularity.cols}`
        : granularity.kind;
  return `${number} ${share}${timing === "dynamic" ? " dynamic" : ""}`;
}
