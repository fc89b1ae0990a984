// The scale of a block: its maximum, the rules, the search. AssemblyScript, not TypeScript.
import { load1 } from "../lanes.as";
import { nvScale } from "./e4m3.as";
import { MAGNITUDE, NVFP4, kind, limit, search, top } from "./state.as";
import { blockError } from "./values.as";

/** f32 bits of the largest magnitude of `n` values; at least those of infinity when one is not finite. */
// @ts-ignore: decorator
@inline
export function blockMax<T>(x: usize, n: i32): u32 {
  let most: u32 = 0;
  let i = 0;
  if (sizeof<T>() == 2) {
    const mask = i16x8.splat(0x7fff);
    let m = i16x8.splat(0);
    for (; i + 8 <= n; i += 8) m = i16x8.max_s(m, v128.and(v128.load(x + (<usize>i << 1)), mask));
    m = i16x8.max_s(m, v128.shuffle<u64>(m, m, 1, 1));
    m = i16x8.max_s(m, i32x4.shr_u(m, 16));
    m = i16x8.max_s(m, i64x2.shr_u(m, 32));
    most = (<u32>i16x8.extract_lane_u(m, 0)) << 16;
  } else {
    const mask = i32x4.splat(MAGNITUDE);
    let m = i32x4.splat(0);
    for (; i + 4 <= n; i += 4) m = i32x4.max_s(m, v128.and(v128.load(x + (<usize>i << 2)), mask));
    m = i32x4.max_s(m, v128.shuffle<u64>(m, m, 1, 1));
    m = i32x4.max_s(m, i64x2.shr_u(m, 32));
    most = i32x4.extract_lane(m, 0);
  }
  for (; i < n; i++) {
    const magnitude = reinterpret<u32>(load1<T>(x + <usize>i * sizeof<T>())) & MAGNITUDE;
    most = max(most, magnitude);
  }
  return most;
}

/** floor(log2) of a finite f32 above 0. */
// @ts-ignore: decorator
@inline
function exponentOf(magnitude: u32): i32 {
  return magnitude >= 0x00800000 ? <i32>(magnitude >> 23) - 127 : -118 - <i32>clz(magnitude);
}

// @ts-ignore: decorator
@inline
function mantissaOf(magnitude: u32): i32 {
  return <i32>((magnitude >= 0x00800000 ? magnitude : magnitude << (clz(magnitude) - 8)) & 0x007fffff);
}

// @ts-ignore: decorator
@inline
export function clampScale(s: i32): i32 {
  return max(-127, min(127 - top, s));
}

/** Exponent of the scale under the rule, the search aside. */
// @ts-ignore: decorator
@inline
function scaleExponent(magnitude: u32): i32 {
  if (magnitude == 0) return -127;
  return clampScale(exponentOf(magnitude) - top + i32(mantissaOf(magnitude) > limit));
}

/** The scale of a block: an exponent, or an e4m3 code. */
export function chooseScale<T>(x: usize, n: i32, magnitude: u32): i32 {
  if (kind == NVFP4) {
    const rule = nvScale(magnitude);
    if (!search) return rule;
    let found = rule;
    let best = blockError<T>(x, n, rule);
    for (let code = max(1, rule - 8), end = min(0x7e, rule + 8); code <= end; code++) {
      const error = blockError<T>(x, n, code);
      if (error < best) {
        best = error;
        found = code;
      }
    }
    return found;
  }
  const rule = scaleExponent(magnitude);
  if (!search || magnitude == 0) return rule;
  const exact = exponentOf(magnitude) - top;
  let found = rule;
  let best = blockError<T>(x, n, rule);
  const up = clampScale(exact + 1);
  if (up != rule) {
    const error = blockError<T>(x, n, up);
    if (error < best) {
      best = error;
      found = up;
    }
  }
  const down = clampScale(exact - 1);
  if (down != rule && down != up && blockError<T>(x, n, down) < best) found = down;
  return found;
}
