/**
 * Quantizer dialects: how a range of values becomes a scale, a zero point and
 * codes, in the ways the field's implementations do it.
 *
 * Each dialect is one row of numbers (`IntRule`), so that one formula, and one
 * kernel, serves all of them; the formula is this file. Sources, row by row:
 * the reference repositories of SmoothQuant, torch-int, AWQ, GPTQ, QuaRot,
 * OmniQuant, HQQ and SpQR, and compressed-tensors 0.19 (`calculate_qparams`).
 * @module
 */
import type { DType } from "./dtype.ts";
import { InputError, UnsupportedError } from "./errors.ts";
import { FLOAT_FORMATS, encodeFloat, roundBf16, type FloatFormat, type FloatName } from "./float.ts";
import { clamp, roundHalfEven } from "./round.ts";
import type { DialectName } from "./scheme.ts";
import { roundToDType } from "./tensor.ts";

/** The precision every step is rounded to: `f32`, or `bf16` to repeat llm-compressor on a bf16 model to the byte. */
export type Arithmetic = "f32" | "bf16";

/** One rounding step of an arithmetic. */
export function roundStep(arithmetic: Arithmetic): (x: number) => number {
  return arithmetic === "bf16" ? roundBf16 : Math.fround;
}

/**
 * A dialect at one width, as numbers.
 *
 * With `low`, `high` the range, `S` rounding to the arithmetic after each step
 * and `T` rounding to the dtype scales are stored in:
 *
 *   low, high = min(low, 0), max(high, 0)                       when includesZero
 *   low, high = -emptySpan, emptySpan                           when both are 0 and emptySpan > 0
 *   span  = max(|low|, |high|)  symmetric;  S(high - low)       asymmetric
 *   span  = S(span / 2)                                         when oneSided and low ≥ 0
 *   scale = T(clamp(S(max(span, spanFloor) / divisor), scaleMin, scaleMax)), the dtype's epsilon when that is 0
 *   scale = 1                                                   when span ≤ unitSpan
 *   zero  = 0                                                   symmetric
 *   zero  = clamp(S(codeMin - S(low / scale)), zeroMin, zeroMax), rounded half to even when zeroIsCode
 *   code  = clamp(rne(S(S(x / scale) + zero)), codeMin, codeMax)       when addsBeforeRounding
 *   code  = clamp(rne(S(x / scale)) + zero, codeMin, codeMax)          otherwise
 *   x̂     = (code - zero) · scale
 *
 * Clamping before rounding and after it give the same code, the bounds being integers.
 */
export interface IntRule {
  readonly symmetric: boolean;
  readonly includesZero: boolean;
  readonly emptySpan: number;
  readonly oneSided: boolean;
  readonly spanFloor: number;
  /** Negative where the dialect has no such case. */
  readonly unitSpan: number;
  readonly divisor: number;
  readonly scaleMin: number;
  readonly scaleMax: number;
  readonly zeroMin: number;
  readonly zeroMax: number;
  readonly zeroIsCode: boolean;
  readonly addsBeforeRounding: boolean;
  /** Code range of the dialect; storage as two's complement subtracts `codeMin + 2^(bits-1)` from codes and zeros. */
  readonly codeMin: number;
  readonly codeMax: number;
}

/** Two's complement codes around 0, no floor, no zero point: what the symmetric dialects share. */
function symmetricRule(bits: number, divisor: number, spanFloor: number): IntRule {
  return {
    symmetric: true,
    includesZero: true,
    emptySpan: 0,
    oneSided: false,
    spanFloor: Math.fround(spanFloor),
    unitSpan: -1,
    divisor: Math.fround(divisor),
    scaleMin: 0,
    scaleMax: Infinity,
    zeroMin: 0,
    zeroMax: 0,
    zeroIsCode: true,
    addsBeforeRounding: false,
    codeMin: -(2 ** (bits - 1)),
    codeMax: 2 ** (bits - 1) - 1,
  };
}

/** Codes 0 to 2^bits - 1, zero point an integer code in that range: what the asymmetric dialects share. */
function affineRule(bits: number): IntRule {
  const codeMax = 2 ** bits - 1;
  return { ...symmetricRule(bits, codeMax, 0), symmetric: false, zeroMax: codeMax, codeMin: 0, codeMax };
}

type RuleMaker = (bits: number) => IntRule;

/** The table of `IntRule`s. An absent column means the dialect has no such form. */
const INT_RULES: Partial<Record<DialectName, { readonly symmetric?: RuleMaker; readonly asymmetric?: RuleMaker }>> = {
  "compressed-tensors": {
    symmetric: (bits) => ({ ...symmetricRule(bits, (2 ** bits - 1) / 2, 0), addsBeforeRounding: true }),
    asymmetric: (bits) => {
      const [codeMin, codeMax] = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
      return { ...affineRule(bits), codeMin, codeMax, zeroMin: codeMin, zeroMax: codeMax, addsBeforeRounding: true };
    },
  },
  "sq-fake": { symmetric: (bits) => symmetricRule(bits, 2 ** (bits - 1) - 1, 1e-5) },
  "torch-int": { symmetric: (bits) => symmetricRule(bits, 2 ** (bits - 1) - 1, 1e-8) },
  awq: {
    symmetric: (bits) => symmetricRule(bits, 2 ** (bits - 1) - 1, 1e-5),
    asymmetric: (bits) => ({ ...affineRule(bits), includesZero: false, spanFloor: Math.fround(1e-5) }),
  },
  gptq: {
    // GPTQ counts codes from 0 with the zero at 2^(bits-1); two's complement codes are those less 2^(bits-1).
    symmetric: (bits) => ({ ...symmetricRule(bits, (2 ** bits - 1) / 2, 0), emptySpan: 1, oneSided: true }),
    asymmetric: (bits) => ({ ...affineRule(bits), emptySpan: 1 }),
  },
  quarot: {
    symmetric: (bits) => symmetricRule(bits, 2 ** (bits - 1) - 1, 1e-5),
    asymmetric: (bits) => ({ ...affineRule(bits), emptySpan: 1, spanFloor: Math.fround(1e-5) }),
  },
  omniquant: {
    asymmetric: (bits) => ({
      ...affineRule(bits),
      includesZero: false,
      scaleMin: Math.fround(1e-5),
      scaleMax: 1e4,
      zeroMin: -1e4,
      zeroMax: 1e4,
    }),
  },
  // HQQ caps inverse scales at 2e4.
  hqq: {
    asymmetric: (bits) => ({
      ...affineRule(bits),
      includesZero: false,
      scaleMin: Math.fround(1 / 2e4),
      unitSpan: Math.fround(1e-4),
      zeroMin: -Infinity,
      zeroMax: Infinity,
      zeroIsCode: false,
      addsBeforeRounding: true,
    }),
  },
  spqr: {
    asymmetric: (bits) => ({
      ...affineRule(bits),
      includesZero: false,
      zeroMin: -Infinity,
      zeroMax: Infinity,
      zeroIsCode: false,
      addsBeforeRounding: true,
    }),
  },
};

/**
 * The numbers of a dialect.
 *
 * @param bits - 2 to 8 for weights; up to 16 for activations.
 * @throws {UnsupportedError} `unsupported.scheme` when the dialect has no such form; the message names one that has.
 * @throws {InputError} `input.option` for another width.
 */
export function intRule(dialect: DialectName, bits: number, symmetric: boolean): IntRule {
  if (!Number.isInteger(bits) || bits < 2 || bits > 16) {
    throw new InputError("input.option", `integer codes must have 2 to 16 bits, not ${bits}`, { bits });
  }
  const maker = INT_RULES[dialect]?.[symmetric ? "symmetric" : "asymmetric"];
  if (maker === undefined) {
    const form = symmetric ? "symmetric" : "asymmetric";
    throw new UnsupportedError(
      "unsupported.scheme",
      `dialect ${dialect} has no ${form} integer form; "compressed-tensors" and "awq" have both`,
      { dialect, bits, symmetric },
    );
  }
  return maker(bits);
}

/** What turns values into codes and back. `zero` is in the dialect's own code range. */
export interface IntParameters {
  /** Unit: value per code; > 0; already rounded as stored. */
  readonly scale: number;
  readonly zero: number;
  readonly codeMin: number;
  readonly codeMax: number;
}

/** How parameters are computed and kept; f32 all the way when left out. */
export interface ParameterPrecision {
  readonly arithmetic?: Arithmetic;
  /** The dtype scales will be stored in: F32, BF16 or F16. Codes are computed with the rounded scale. */
  readonly storage?: DType;
}

/** 2^-23, 2^-10 and 2^-7: the gap above 1, which compressed-tensors puts in the place of a zero scale. */
export function storageEpsilon(storage: DType): number {
  return roundToDType(1, storage) * (storage === "BF16" ? 2 ** -7 : storage === "F16" ? 2 ** -10 : 2 ** -23);
}

/** Scale and zero point of a range under a rule: the formula of `IntRule`. @param low - finite, at most `high`. */
export function parametersOf(rule: IntRule, low: number, high: number, precision: ParameterPrecision = {}): IntParameters {
  const step = roundStep(precision.arithmetic ?? "f32");
  const storage = precision.storage ?? "F32";
  if (rule.includesZero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  if (low === 0 && high === 0 && rule.emptySpan > 0) [low, high] = [-rule.emptySpan, rule.emptySpan];
  let span = rule.symmetric ? Math.max(Math.abs(low), Math.abs(high)) : step(high - low);
  if (rule.oneSided && low >= 0) span = step(span / 2);
  const exact = clamp(step(Math.max(span, rule.spanFloor) / rule.divisor), rule.scaleMin, rule.scaleMax);
  const scale = span <= rule.unitSpan ? 1 : roundToDType(exact, storage) || storageEpsilon(storage);
  let zero = rule.symmetric ? 0 : clamp(step(rule.codeMin - step(low / scale)), rule.zeroMin, rule.zeroMax);
  if (rule.zeroIsCode) zero = roundHalfEven(zero) + 0;
  return { scale, zero, codeMin: rule.codeMin, codeMax: rule.codeMax };
}

/**
 * Scale, zero point and code range of a range of values in a dialect.
 *
 * @param min - smallest value; for a symmetric rule −absmax serves as well.
 * @param max - largest value, at least `min`; both finite.
 * @throws {UnsupportedError} `unsupported.scheme` as `intRule`.
 */
export function intParameters(
  dialect: DialectName,
  bits: number,
  symmetric: boolean,
  min: number,
  max: number,
  precision: ParameterPrecision = {},
): IntParameters {
  return parametersOf(intRule(dialect, bits, symmetric), min, max, precision);
}

/** Code of one value, in the dialect's own range. @param x - finite. */
export function codeOf(rule: IntRule, x: number, scale: number, zero: number, arithmetic: Arithmetic = "f32"): number {
  const step = roundStep(arithmetic);
  const quotient = step(x / scale);
  const shifted = rule.addsBeforeRounding ? roundHalfEven(step(quotient + zero)) : roundHalfEven(quotient) + zero;
  return clamp(shifted, rule.codeMin, rule.codeMax) + 0;
}

/** What codes and zeros lose to become two's complement: 0, or 2^(bits-1) for dialects that count from 0. */
export function storageShift(rule: IntRule, bits: number): number {
  return rule.codeMin + 2 ** (bits - 1);
}

/**
 * Scale of a small-float format: T(S(absmax / largest finite value)), the dtype's epsilon when that is 0.
 *
 * @param absMax - largest magnitude, finite, ≥ 0.
 */
export function floatScale(format: FloatName, absMax: number, precision: ParameterPrecision = {}): number {
  const storage = precision.storage ?? "F32";
  const exact = roundStep(precision.arithmetic ?? "f32")(absMax / FLOAT_FORMATS[format].max);
  return roundToDType(exact, storage) || storageEpsilon(storage);
}

/** Bit pattern of `x / scale` in a small-float format, saturating. @param x - finite. */
export function floatCodeOf(format: FloatFormat, x: number, scale: number, arithmetic: Arithmetic = "f32"): number {
  return encodeFloat(format, roundStep(arithmetic)(x / scale), true);
}
