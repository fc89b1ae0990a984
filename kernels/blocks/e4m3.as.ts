// e4m3 scales of NVFP4. AssemblyScript, not TypeScript.
import { roundBf16 } from "../lanes.as";
import { EXPONENT, direction, divisor, halfStep } from "./state.as";

/** e4m3 code of a number ≥ 0, nearest, ties to even, at most 448. */
function scaleCode(exact: f32): i32 {
  const v = min<f32>(exact, 480);
  const e = max<i32>(reinterpret<i32>(v) & EXPONENT, 121 << 23);
  const c = e + (20 << 23);
  const rounded = reinterpret<i32>(v + reinterpret<f32>(c)) - c;
  return min(rounded + (((e >> 23) - 121) << 3), 0x7e);
}

// @ts-ignore: decorator
@inline
export function scaleValue(code: i32): f32 {
  return code < 8 ? <f32>code * 0.001953125 : reinterpret<f32>((code << 20) + (120 << 23));
}

/** e4m3 code of a block's scale under the rule, the search aside. */
export function nvScale(magnitude: u32): i32 {
  let sixth = reinterpret<f32>(magnitude) / 6;
  if (halfStep) sixth = roundBf16(sixth);
  const exact = divisor * sixth;
  let code = scaleCode(exact);
  if (direction == 1 && scaleValue(code) > exact) code--;
  if (direction == 2 && scaleValue(code) < exact) code = min(code + 1, 0x7e);
  return code == 0 ? 0x20 : code;
}
