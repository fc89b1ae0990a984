/**
 * f32 → float16, whole arrays: what `encodeFloat` of core defines, in integer steps.
 * @module
 */

const INFINITY_BITS = 0x7f800000;
/** 65520: from here on values round to infinity. */
const OVERFLOW_BITS = 0x477ff000;
/** 2^-14: below it the result is subnormal. */
const NORMAL_BITS = 0x38800000;
/** The difference of the exponents' biases, 112, in place. */
const BIAS_BITS = 0x38000000;
const MANTISSA_DROP = 13;

/** Bits of float16, half to even; values beyond it become infinity. @returns 2 bytes a value. */
export function toHalfBits(values: Float32Array): Uint8Array {
  const words = new Int32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    const sign = (word >>> 16) & 0x8000;
    const size = word & 0x7fffffff;
    let half: number;
    if (size >= OVERFLOW_BITS) half = size > INFINITY_BITS ? 0x7e00 : 0x7c00;
    else if (size >= NORMAL_BITS) {
      const rebased = size - BIAS_BITS;
      half = (rebased + 0xfff + ((rebased >> MANTISSA_DROP) & 1)) >> MANTISSA_DROP;
    } else half = halfEven(Math.abs(values[i]!) * 2 ** 24);
    out[i] = sign | half;
  }
  return new Uint8Array(out.buffer);
}

/** @param x - 0 to 1024. */
function halfEven(x: number): number {
  const whole = Math.floor(x);
  const rest = x - whole;
  return whole + (rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? 1 : 0);
}
