/**
 * Block formats: elements of a few bits that share one scale a block, as data.
 *
 *   bfp<8+p>     p-bit two's complement mantissas under an 8-bit exponent; any block size
 *   mxint8       8-bit mantissas, blocks of 32
 *   mxfp8-e4m3, mxfp8-e5m2, mxfp6-e3m2, mxfp6-e2m3, mxfp4     small floats, blocks of 32, power-of-two scales
 *   nvfp4        e2m1, blocks of 16, e4m3 scales under one f32 divisor a tensor
 *
 * Blocks run along columns, the axis a dot product sums over. A row that a block does not divide ends in a shorter
 * one: the same numbers as padding with zeros, which never raise a block's maximum, and nothing of them is stored.
 *
 * Sources: OCP Microscaling Formats v1.0 §5, §6; arXiv 2403.20137 and d-Matrix' BFP (BFP12: mantissas of 4 bits,
 * BFP16 of 8); compressed-tensors 0.19 (NVFP4).
 * @module
 */
import { InputError, UnsupportedError } from "../errors.ts";
import { FLOAT_FORMATS, type FloatFormat } from "../float.ts";
import { schemeName, type QuantScheme, type ScaleRule } from "../scheme.ts";

/** Floats that elements of a block may be. */
export type BlockFloat = "e4m3" | "e5m2" | "e3m2" | "e2m3" | "e2m1";

export type BlockElement =
  /** Two's complement mantissas; the most negative code is read but never written. `bits` 2 to 16, sign included. */
  { readonly kind: "int"; readonly bits: number } | { readonly kind: "float"; readonly format: BlockFloat };

export interface BlockFormat {
  /** As on the command line: bfp12, mxint8, mxfp8-e5m2, mxfp4, nvfp4. */
  readonly name: string;
  readonly family: "bfp" | "mx" | "nvfp4";
  readonly element: BlockElement;
  /** Elements that share a scale. */
  readonly block: number;
}

/** OCP MX v1.0: the block of every MX format. */
export const MX_BLOCK = 32;
export const NVFP4_BLOCK = 16;
/** The block of BFP when none is asked for. */
export const BFP_BLOCK = 32;
/** Far above any useful block, far below where sums of products leave an int32. */
const MAX_BLOCK = 65536;

const mxFloat = (name: string, format: BlockFloat): BlockFormat => ({
  name,
  family: "mx",
  element: { kind: "float", format },
  block: MX_BLOCK,
});

export const NVFP4: BlockFormat = { name: "nvfp4", family: "nvfp4", element: { kind: "float", format: "e2m1" }, block: NVFP4_BLOCK };

/** Formats whose block is fixed, by name. */
const FIXED: ReadonlyMap<string, BlockFormat> = new Map(
  [
    { name: "mxint8", family: "mx", element: { kind: "int", bits: 8 }, block: MX_BLOCK } as const,
    mxFloat("mxfp8-e4m3", "e4m3"),
    mxFloat("mxfp8-e5m2", "e5m2"),
    mxFloat("mxfp6-e3m2", "e3m2"),
    mxFloat("mxfp6-e2m3", "e2m3"),
    mxFloat("mxfp4", "e2m1"),
    NVFP4,
  ].map((format) => [format.name, format]),
);

/** Short names: the variant that deployed stacks use. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ["mxfp8", "mxfp8-e4m3"],
  ["mxfp6", "mxfp6-e2m3"],
]);

/** Names worth suggesting. */
export const BLOCK_FORMAT_NAMES: readonly string[] = ["bfp12", "bfp16", "bfp24", ...ALIASES.keys(), ...FIXED.keys()];

/** BFP with `mantissaBits` (2 to 16, sign included). @throws {InputError} `input.option` naming what is out of range. */
export function bfp(mantissaBits: number, block: number = BFP_BLOCK): BlockFormat {
  if (!Number.isInteger(mantissaBits) || mantissaBits < 2 || mantissaBits > 16) {
    const given = `bfp${mantissaBits + 8}`;
    throw new InputError("input.option", `${given} would have mantissas of ${mantissaBits} bits; bfp10 to bfp24 (2 to 16 bits) exist`, {
      option: "bits",
      given,
    });
  }
  if (!Number.isInteger(block) || block < 1 || block > MAX_BLOCK) {
    throw new InputError("input.option", `a block of ${block} must be a whole number from 1 to ${MAX_BLOCK}`, {
      option: "group-size",
      given: block,
    });
  }
  return { name: `bfp${mantissaBits + 8}`, family: "bfp", element: { kind: "int", bits: mantissaBits }, block };
}

/**
 * The format with a name, undefined when it is no block format.
 *
 * @param block - elements a block; only BFP takes another than its own.
 * @throws {InputError} `input.option` for mantissas or blocks out of range, and for a block that MX and NVFP4 do not have.
 */
export function parseBlockFormat(name: string, block?: number): BlockFormat | undefined {
  const bits = /^bfp(\d{1,3})$/.exec(name)?.[1];
  if (bits !== undefined) return bfp(Number(bits) - 8, block);
  const format = FIXED.get(ALIASES.get(name) ?? name);
  if (format !== undefined && block !== undefined && block !== format.block) {
    throw new InputError(
      "input.option",
      `${name} has blocks of ${format.block}, not ${block}; leave the group size out, or use bfp, which takes any`,
      { option: "group-size", given: block, known: [String(format.block)] },
    );
  }
  return format;
}

/** How activations of a block format are meant: computed anew for each input. */
export type BlockTiming = QuantScheme["timing"];

/** The scheme of a block format. */
export function blockScheme({ family, element, block }: BlockFormat, timing: BlockTiming = "static", scaleRule?: ScaleRule): QuantScheme {
  return {
    format:
      element.kind === "float"
        ? element
        : family === "bfp"
          ? { kind: "bfp", mantissaBits: element.bits }
          : { kind: "int", bits: element.bits, symmetric: true },
    granularity: { kind: "group", size: block },
    timing,
    scale: family === "nvfp4" ? "e4m3" : "e8m0",
    dialect: family === "nvfp4" ? "nvfp4" : "mx",
    ...(scaleRule === undefined ? {} : { scaleRule }),
  };
}

/** The block format a scheme means; undefined for schemes whose scales are plain floats. */
export function blockFormatOf(scheme: QuantScheme): BlockFormat | undefined {
  const { format, granularity, scale } = scheme;
  if (granularity.kind !== "group" || (scale !== "e8m0" && scale !== "e4m3")) return undefined;
  if (scale === "e4m3") {
    return format.kind === "float" && format.format === "e2m1" && granularity.size === NVFP4_BLOCK ? NVFP4 : undefined;
  }
  if (format.kind === "bfp") return bfp(format.mantissaBits, granularity.size);
  if (granularity.size !== MX_BLOCK) return undefined;
  for (const known of FIXED.values()) {
    if (known.family !== "mx") continue;
    if (known.element.kind === "int" && format.kind === "int" && format.bits === known.element.bits && format.symmetric) return known;
    if (known.element.kind === "float" && format.kind === "float" && format.format === known.element.format) return known;
  }
  return undefined;
}

/** As {@link blockFormatOf}. @throws {UnsupportedError} `unsupported.scheme` when the scheme is no block format. */
export function requireBlockFormat(scheme: QuantScheme): BlockFormat {
  const format = blockFormatOf(scheme);
  if (format !== undefined) return format;
  throw new UnsupportedError(
    "unsupported.scheme",
    `${schemeName(scheme)} with ${scheme.scale} scales is no block format; known: bfp10 to bfp24, ${[...FIXED.keys()].join(", ")}`,
    { scheme: schemeName(scheme) },
  );
}

/** What the scale rules need to know of an element. Values are in units of the block's scale. */
export interface ElementFacts {
  /** Exponent of the largest power of two among the elements. */
  readonly maxExponent: number;
  /** Largest element. */
  readonly max: number;
  /** `even` moves a block up from (2 − 2^-(roundBits + 1)) · 2^k on. */
  readonly roundBits: number;
  /** Integers: element = code · 2^-fractionBits. */
  readonly fractionBits: number;
  readonly float: FloatFormat | undefined;
}

/** OCP MX v1.0 §5.3: element tables; mantissas of p bits have p − 2 bits after the point. */
export function elementFacts({ element }: BlockFormat): ElementFacts {
  if (element.kind === "int") {
    const fractionBits = element.bits - 2;
    const max = (2 ** (element.bits - 1) - 1) / 2 ** fractionBits;
    return { maxExponent: 0, max, roundBits: fractionBits, fractionBits, float: undefined };
  }
  const float = FLOAT_FORMATS[element.format];
  const { max, mantissaBits } = float;
  // The top binade of e4m3 ends at 1.75 · 2^8 (1.875 is NaN): rounding to one bit keeps the maximum below it, as compressed-tensors does.
  const roundBits = element.format === "e4m3" ? 1 : mantissaBits;
  return { maxExponent: MAX_EXPONENTS[element.format], max, roundBits, fractionBits: 0, float };
}

const MAX_EXPONENTS: Readonly<Record<BlockFloat, number>> = { e4m3: 8, e5m2: 15, e3m2: 4, e2m3: 2, e2m1: 2 };
