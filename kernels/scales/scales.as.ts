// WASM twin of scales.ts. AssemblyScript, not TypeScript. One run in a hundred weights: scalar code is fast enough.
import { roundBf16 } from "../lanes.as";

// @ts-ignore: decorator
@inline
function step(x: f32, bf16: i32): f32 {
  return bf16 ? roundBf16(x) : x;
}

/** A finite positive f32 rounded to the nearest f16, ties to even; above 65504 it becomes infinity. */
function roundF16(x: f32): f32 {
  // Below 2^-14 f16 has a fixed step of 2^-24: the step of f32 at 0.5.
  if (x < reinterpret<f32>((127 - 14) << 23)) return (x + 0.5) - 0.5;
  const bits = reinterpret<u32>(x);
  const rounded = reinterpret<f32>((bits + 0xfff + ((bits >> 13) & 1)) & 0xffffe000);
  return rounded > 65504 ? f32.POSITIVE_INFINITY : rounded;
}

/**
 * Scales and zeros of `runs` ranges.
 *
 * @param rule - 12 f32: emptySpan, spanFloor, unitSpan, divisor, scaleMin, scaleMax, zeroMin, zeroMax, codeMin, epsilon,
 *   two unused. Flags: 1 symmetric, 2 includesZero, 4 oneSided, 8 zeroIsCode, 16 arithmetic bf16, 32 storage bf16, 64 storage f16.
 * @param zeros - 0 when not wanted.
 * @returns number of scales that are not finite.
 */
export function scalesOf(low: usize, high: usize, runs: i32, rule: usize, flags: i32, scales: usize, zeros: usize): i32 {
  const emptySpan = load<f32>(rule);
  const spanFloor = load<f32>(rule, 4);
  const unitSpan = load<f32>(rule, 8);
  const divisor = load<f32>(rule, 12);
  const scaleMin = load<f32>(rule, 16);
  const scaleMax = load<f32>(rule, 20);
  const zeroMin = load<f32>(rule, 24);
  const zeroMax = load<f32>(rule, 28);
  const codeMin = load<f32>(rule, 32);
  const epsilon = load<f32>(rule, 36);
  const bf16 = flags & 16;
  let bad = 0;
  for (let i: usize = 0; i < <usize>runs; i++) {
    const at = i << 2;
    let a = load<f32>(low + at);
    let b = load<f32>(high + at);
    if (flags & 2) {
      a = min<f32>(a, 0);
      b = max<f32>(b, 0);
    }
    if (a == 0 && b == 0 && emptySpan > 0) {
      a = -emptySpan;
      b = emptySpan;
    }
    let span: f32 = flags & 1 ? max<f32>(abs(a), abs(b)) : step(b - a, bf16);
    if ((flags & 4) && a >= 0) span = step(span * 0.5, bf16);
    let scale: f32 = min<f32>(max<f32>(step(max<f32>(span, spanFloor) / divisor, bf16), scaleMin), scaleMax);
    if (flags & 32) scale = roundBf16(scale);
    if (flags & 64) scale = roundF16(scale);
    if (scale == 0) scale = epsilon;
    if (span <= unitSpan) scale = 1;
    if (!(scale < f32.POSITIVE_INFINITY)) bad++;
    store<f32>(scales + at, scale);
    if (zeros) {
      let zero: f32 = 0;
      if (!(flags & 1)) {
        zero = min<f32>(max<f32>(step(codeMin - step(a / scale, bf16), bf16), zeroMin), zeroMax);
        if (flags & 8) zero = nearest(zero);
        // A zero point of −0 would be one more bit pattern for the same code.
        zero += 0;
      }
      store<f32>(zeros + at, zero);
    }
  }
  return bad;
}
