// What values read as under a scale, and the error of a block. AssemblyScript, not TypeScript.
import { load4 } from "../lanes.as";
import { scaleValue } from "./e4m3.as";
import { EXPONENT, FLOAT, INT, MAGIC, MAGNITUDE, NVFP4, divisor, fraction, kind, least, powerOf2, topCode, topValue } from "./state.as";

/** The scale's reciprocal, at its code: 2^(fraction − s) as the product of two f32. The first is 1 unless s is tiny. */
// @ts-ignore: decorator
@inline
export function firstFactor(s: i32): f32 {
  return fraction - s > 127 ? powerOf2(64) : 1;
}

// @ts-ignore: decorator
@inline
export function secondFactor(s: i32): f32 {
  return powerOf2(fraction - s > 127 ? fraction - s - 64 : fraction - s);
}

/** Values of four scaled magnitudes, rounded. */
// @ts-ignore: decorator
@inline
function rounded4(y: v128, least4: v128, shift4: v128, exponent4: v128, high4: v128): v128 {
  const c = i32x4.add(i32x4.max_s(v128.and(y, exponent4), least4), shift4);
  return f32x4.pmin(f32x4.sub(f32x4.add(y, c), c), high4);
}

/** Scaled magnitudes: x · factor for powers of two, x / factor for nvfp4, where huge quotients are cut before they overflow. */
// @ts-ignore: decorator
@inline
export function scaled4(v: v128, factor: v128, divide: bool): v128 {
  const magnitude = v128.and(v, i32x4.splat(MAGNITUDE));
  return divide ? f32x4.pmin(f32x4.div(magnitude, factor), f32x4.splat(8)) : f32x4.mul(magnitude, factor);
}

/** What four values read as under a scale. `factor`: as `scaled4` and for integers the second factor; `unit`: value of one. */
// @ts-ignore: decorator
@inline
export function values4(v: v128, first: v128, factor: v128, unit: v128, high: v128): v128 {
  if (kind == INT) {
    const magic = f32x4.splat(MAGIC);
    const q = f32x4.sub(f32x4.add(f32x4.mul(f32x4.mul(v, first), factor), magic), magic);
    return f32x4.mul(f32x4.pmax(f32x4.pmin(q, high), f32x4.neg(high)), unit);
  }
  const y = scaled4(v, factor, kind == NVFP4);
  const r = rounded4(y, i32x4.splat(least), i32x4.splat((23 - fraction) << 23), i32x4.splat(EXPONENT), high);
  return v128.or(f32x4.mul(r, unit), v128.and(v, i32x4.splat(0x80000000)));
}

/** Numbers that `values4` takes for a scale: exponent, or e4m3 code for nvfp4. */
// @ts-ignore: decorator
@inline
export function factorOf(scale: i32): f32 {
  return kind == INT ? secondFactor(scale) : kind == FLOAT ? powerOf2(-scale) : scaleValue(scale) / divisor;
}

// @ts-ignore: decorator
@inline
export function unitOf(scale: i32): f32 {
  return kind == INT ? powerOf2(scale - fraction) : kind == FLOAT ? powerOf2(scale) : scaleValue(scale) / divisor;
}

/** Squared error of a block, in the order of core/blocks/scale.ts. */
export function blockError<T>(x: usize, n: i32, scale: i32): f64 {
  const first = f32x4.splat(kind == INT ? firstFactor(scale) : 1);
  const factor = f32x4.splat(factorOf(scale));
  const unit = f32x4.splat(unitOf(scale));
  const high = f32x4.splat(kind == INT ? <f32>topCode : topValue);
  let low2 = f64x2.splat(0);
  let high2 = f64x2.splat(0);
  for (let i = 0; i < n; i += 4) {
    let v = load4<T>(x);
    // Past the end of the block: zeros, which have no error.
    if (i + 4 > n) v = v128.and(v, i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(n - i)));
    const e = f32x4.sub(v, values4(v, first, factor, unit, high));
    const a = f64x2.promote_low_f32x4(e);
    const b = f64x2.promote_low_f32x4(v128.shuffle<u64>(e, e, 1, 1));
    low2 = f64x2.add(low2, f64x2.mul(a, a));
    high2 = f64x2.add(high2, f64x2.mul(b, b));
    x += 4 * sizeof<T>();
  }
  const sum = f64x2.add(low2, high2);
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}
