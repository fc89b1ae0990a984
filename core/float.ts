/**
 * Small floating-point formats, bit exact, rounding half to even.
 *
 * A format is sign (0 or 1 bit), `exponentBits`, `mantissaBits`, IEEE-style
 * with subnormals; the finite-only OCP formats differ in their top codes.
 * Sources: IEEE 754-2019 §3.4 (f16), OCP OFP8 v1.0 §5 (e4m3, e5m2),
 * OCP MX v1.0 §5 (e2m1, e3m2, e2m3, e8m0), Google bfloat16.
 * @module
 */
import { roundHalfEven } from "./round.ts";

/** What happens above the largest finite value, and which codes are special. */
type Overflow = "infinity" | "nan" | "saturate";

export interface FloatFormat {
  readonly name: string;
  readonly exponentBits: number;
  readonly mantissaBits: number;
  readonly bias: number;
  /** Largest finite value. */
  readonly max: number;
  /** `infinity`: IEEE top codes. `nan`: only all-ones is NaN (OFP8 e4m3). `saturate`: no special codes. */
  readonly overflow: Overflow;
}

export const F16: FloatFormat = { name: "f16", exponentBits: 5, mantissaBits: 10, bias: 15, max: 65504, overflow: "infinity" };
export const BF16: FloatFormat = {
  name: "bf16",
  exponentBits: 8,
  mantissaBits: 7,
  bias: 127,
  max: 3.3895313892515355e38,
  overflow: "infinity",
};
export const E4M3: FloatFormat = { name: "e4m3", exponentBits: 4, mantissaBits: 3, bias: 7, max: 448, overflow: "nan" };
export const E5M2: FloatFormat = { name: "e5m2", exponentBits: 5, mantissaBits: 2, bias: 15, max: 57344, overflow: "infinity" };
export const E3M2: FloatFormat = { name: "e3m2", exponentBits: 3, mantissaBits: 2, bias: 3, max: 28, overflow: "saturate" };
export const E2M3: FloatFormat = { name: "e2m3", exponentBits: 2, mantissaBits: 3, bias: 1, max: 7.5, overflow: "saturate" };
export const E2M1: FloatFormat = { name: "e2m1", exponentBits: 2, mantissaBits: 1, bias: 1, max: 6, overflow: "saturate" };

/** Formats by name, for schemes written as data. */
export const FLOAT_FORMATS = { f16: F16, bf16: BF16, e4m3: E4M3, e5m2: E5M2, e3m2: E3M2, e2m3: E2M3, e2m1: E2M1 } as const;
export type FloatName = keyof typeof FLOAT_FORMATS;

const scratch = new DataView(new ArrayBuffer(8));

/** floor(log2(|x|)) for finite x ≠ 0, from the bits: `Math.log2` may be an ulp off at powers of two. */
export function exponentOf(x: number): number {
  scratch.setFloat64(0, x);
  const exponent = (scratch.getUint16(0) >> 4) & 0x7ff;
  if (exponent !== 0) return exponent - 1023;
  // A f64 subnormal: scale it into the normal range first.
  scratch.setFloat64(0, x * 2 ** 54);
  return ((scratch.getUint16(0) >> 4) & 0x7ff) - 1023 - 54;
}

/**
 * Code of the nearest representable value, ties to even.
 *
 * @param x - any number. NaN gives the format's quiet NaN; formats without NaN give 0.
 * @param saturating - clamp to ±max instead of overflowing to Inf or NaN.
 * @returns the bit pattern, sign bit highest.
 */
export function encodeFloat(format: FloatFormat, x: number, saturating = false): number {
  const { exponentBits, mantissaBits, bias, max, overflow } = format;
  const signBit = 2 ** (exponentBits + mantissaBits);
  const topExponent = 2 ** exponentBits - 1;
  const infinity = topExponent * 2 ** mantissaBits;
  const sign = x < 0 || Object.is(x, -0) ? signBit : 0;
  if (Number.isNaN(x)) {
    if (overflow === "saturate") return 0;
    return overflow === "nan" ? signBit - 1 : infinity + 2 ** (mantissaBits - 1);
  }
  const magnitude = Math.abs(x);
  if (magnitude === 0) return sign;
  const exponent = magnitude === Infinity ? topExponent : Math.max(exponentOf(magnitude), 1 - bias);
  const rounded =
    magnitude === Infinity ? Infinity : roundHalfEven(magnitude / 2 ** (exponent - mantissaBits)) * 2 ** (exponent - mantissaBits);
  if (rounded > max) {
    if (saturating || overflow === "saturate") return sign + encodeFloat(format, max);
    return sign + (overflow === "nan" ? signBit - 1 : infinity);
  }
  // `rounded` may have moved to the next binade; a subnormal one has no implicit bit.
  const e = Math.max(exponentOf(rounded === 0 ? 2 ** (1 - bias) : rounded), 1 - bias);
  const significand = rounded / 2 ** (e - mantissaBits);
  return significand < 2 ** mantissaBits ? sign + significand : sign + (e + bias) * 2 ** mantissaBits + (significand - 2 ** mantissaBits);
}

/** Value of a code. @param code - the bit pattern, sign bit highest; higher bits must be 0. */
export function decodeFloat(format: FloatFormat, code: number): number {
  const { exponentBits, mantissaBits, bias, overflow } = format;
  const signBit = 2 ** (exponentBits + mantissaBits);
  const sign = code >= signBit ? -1 : 1;
  const magnitude = code % signBit;
  const mantissa = magnitude % 2 ** mantissaBits;
  const exponent = (magnitude - mantissa) / 2 ** mantissaBits;
  if (overflow === "infinity" && exponent === 2 ** exponentBits - 1) return mantissa === 0 ? sign * Infinity : NaN;
  if (overflow === "nan" && magnitude === signBit - 1) return NaN;
  if (exponent === 0) return sign * mantissa * 2 ** (1 - bias - mantissaBits);
  return sign * (2 ** mantissaBits + mantissa) * 2 ** (exponent - bias - mantissaBits);
}

/** Nearest representable value, ties to even; overflow as the format says, or ±max when `saturating`. */
export function roundToFloat(format: FloatFormat, x: number, saturating = false): number {
  return decodeFloat(format, encodeFloat(format, x, saturating));
}

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** bf16 pattern of the f32 nearest `x`, ties to even; NaN stays NaN (quiet). Two roundings when `x` is not an f32. */
export function encodeBf16(x: number): number {
  f32[0] = x;
  const bits = u32[0]!;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Value of a bf16 pattern, exact. */
export function decodeBf16(code: number): number {
  u32[0] = code << 16;
  return f32[0]!;
}

/** The bf16 nearest `x`, as a number. */
export function roundBf16(x: number): number {
  return decodeBf16(encodeBf16(x));
}

/**
 * f16 pattern of the f32 nearest `x`, ties to even: what `encodeFloat(F16, x)` gives for an f32, without its generality.
 *
 * @param saturating - clamp to ±65504 instead of overflowing to infinity.
 */
export function encodeF16(x: number, saturating = false): number {
  f32[0] = x;
  const bits = u32[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7e00;
  // 65520 lies half way between the largest number and the next power of two, and rounds up.
  if (magnitude >= 0x477ff000) return sign | (saturating ? 0x7bff : 0x7c00);
  if (magnitude < 0x38800000) return sign | roundHalfEven(Math.abs(f32[0]) * 2 ** 24);
  const shifted = magnitude - 0x38000000;
  return sign | ((shifted + 0xfff + ((shifted >>> 13) & 1)) >>> 13);
}

/** Value of an f16 pattern, exact. */
export function decodeF16(code: number): number {
  const exponent = (code >>> 10) & 0x1f;
  if (exponent === 0) return (code & 0x8000 ? -1 : 1) * (code & 0x3ff) * 2 ** -24;
  const shift = exponent === 31 ? 0x70000000 : 0x38000000;
  u32[0] = ((code & 0x8000) << 16) | (((code & 0x7fff) << 13) + shift);
  return f32[0]!;
}

/** OCP MX v1.0 §5.2: exponent bias of E8M0, the scale type of every MX format. */
export const E8M0_BIAS = 127;
/** OCP MX v1.0 §5.2: the only E8M0 pattern that is not a power of two. */
export const E8M0_NAN = 0xff;

/** Value of an E8M0 byte: 2^(byte - 127), NaN for 0xFF. */
export function decodeE8M0(byte: number): number {
  return byte === E8M0_NAN ? NaN : 2 ** (byte - E8M0_BIAS);
}

/** E8M0 byte of 2^exponent, clamped to [2^-127, 2^127]. @param exponent - an integer. */
export function encodeE8M0(exponent: number): number {
  return Math.max(0, Math.min(254, exponent + E8M0_BIAS));
}
