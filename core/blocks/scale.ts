/**
 * Scale rules: how the largest magnitude of a block becomes its scale.
 *
 * Power-of-two scales 2^s, with E the exponent of the element's largest power of two and M its largest value:
 *
 *   floor   s = floor(log2 amax) − E           OCP MX v1.0 §6.3; a maximum above M · 2^s saturates
 *   ceil    s = ceil(log2 amax) − E            no element saturates, half of the range may lie idle
 *   rceil   s = ceil(log2(amax / M))           the smallest scale at which nothing saturates
 *   even    floor, of amax rounded to the element's precision first: one up from (2 − 2^-(m+1)) · 2^k on
 *   mse     of floor, one up and one down, in this order, the first with the least squared error
 *
 * s is kept in −127 … 127 − E, so that no element leaves f32; a block of zeros has −127.
 *
 * NVFP4 scales v = f32(g · amax / 6) are e4m3 numbers: `even` rounds to nearest, ties to even, `floor` down, `ceil` and
 * `rceil` up; `mse` tries every e4m3 number within an octave of the nearest. 0 becomes 2^-3 (compressed-tensors' epsilon).
 * @module
 */
import { decodeFloat, E4M3, encodeFloat, exponentOf } from "../float.ts";
import type { ScaleRule } from "../scheme.ts";
import type { ElementFacts } from "./format.ts";

/** Largest |s| of an E8M0 scale. */
const MAX_SCALE_EXPONENT = 127;

/**
 * Exponents to try, the first being the rule's own; more than one only for `mse`.
 *
 * @param absMax - finite, ≥ 0.
 */
export function scaleExponents(facts: ElementFacts, rule: ScaleRule, absMax: number): readonly number[] {
  if (absMax === 0) return [-MAX_SCALE_EXPONENT];
  const top = exponentOf(absMax);
  const floor = top - facts.maxExponent;
  const clampExponent = (s: number): number => Math.max(-MAX_SCALE_EXPONENT, Math.min(MAX_SCALE_EXPONENT - facts.maxExponent, s));
  switch (rule) {
    case "floor":
      return [clampExponent(floor)];
    case "ceil":
      return [clampExponent(absMax === 2 ** top ? floor : floor + 1)];
    case "rceil":
      return [clampExponent(absMax > facts.max * 2 ** floor ? floor + 1 : floor)];
    case "even":
      return [clampExponent(absMax >= (2 - 2 ** -(facts.roundBits + 1)) * 2 ** top ? floor + 1 : floor)];
    case "mse":
      return [...new Set([floor, floor + 1, floor - 1].map(clampExponent))];
    default:
      return rule satisfies never;
  }
}

/** 2^-3: what stands in the place of a zero e4m3 scale. */
const ZERO_SCALE_CODE = encodeFloat(E4M3, 0.125);
/** 448. */
const MAX_SCALE_CODE = 0x7e;
/** Codes of an octave of e4m3. */
const OCTAVE = 8;

/**
 * e4m3 codes of scales to try, the first being the rule's own.
 *
 * @param exact - f32(g · amax / 6), finite, ≥ 0.
 */
export function scaleCodes(rule: ScaleRule, exact: number): readonly number[] {
  const nearest = encodeFloat(E4M3, exact, true);
  const value = decodeFloat(E4M3, nearest);
  switch (rule) {
    case "even":
      return [nearest || ZERO_SCALE_CODE];
    case "floor":
      return [(value > exact ? nearest - 1 : nearest) || ZERO_SCALE_CODE];
    case "ceil":
    case "rceil":
      return [Math.min(value < exact ? nearest + 1 : nearest, MAX_SCALE_CODE) || ZERO_SCALE_CODE];
    case "mse": {
      const first = nearest || ZERO_SCALE_CODE;
      const codes = [first];
      for (let code = Math.max(1, first - OCTAVE); code <= Math.min(MAX_SCALE_CODE, first + OCTAVE); code++) {
        if (code !== first) codes.push(code);
      }
      return codes;
    }
    default:
      return rule satisfies never;
  }
}

/** The squared error of a block in its fixed order: f32 differences, squares into four f64 sums by index modulo 4. */
export function squaredError(values: Float32Array, start: number, end: number, decoded: (x: number) => number): number {
  const sums = [0, 0, 0, 0];
  for (let i = start; i < end; i++) {
    const error = Math.fround(values[i]! - decoded(values[i]!));
    sums[(i - start) % 4]! += error * error;
  }
  return sums[0]! + sums[2]! + (sums[1]! + sums[3]!);
}
