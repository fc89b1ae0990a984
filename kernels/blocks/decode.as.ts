// Codes to values, and values replaced by what their codes read as. AssemblyScript, not TypeScript.
import { scaleValue } from "./e4m3.as";
import { blockMax, chooseScale } from "./scales.as";
import { EXPONENT, INT, NVFP4, bits, divisor, fraction, kind, powerOf2, topCode, topValue } from "./state.as";
import { factorOf, firstFactor, unitOf, values4 } from "./values.as";

/** What one stands for under a stored scale byte: integers per code. NaN for the NaN scale. */
// @ts-ignore: decorator
@inline
function unitOfByte(byte: i32): f32 {
  if (kind == NVFP4) return (byte & 0x7f) == 0x7f ? NaN : byte & 0x80 ? -scaleValue(byte & 0x7f) / divisor : scaleValue(byte) / divisor;
  if (byte == 0xff) return NaN;
  return powerOf2(byte - 127 - (kind == INT ? fraction : 0));
}

/** Values of codes, one a byte or two bytes each. `table`: f32 values of all float codes. */
export function decode(codes: usize, rows: i32, cols: i32, block: i32, scales: usize, table: usize, out: usize): void {
  // e2m1 twice: whole numbers, which 8-bit lanes hold.
  const doubled = i8x16(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
  const half = f32x4.splat(0.5);
  const minus = i32x4.splat(8);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += block) {
      const n = min(block, cols - c);
      const scale = unitOfByte(load<u8>(scales++));
      const unit = f32x4.splat(scale);
      let i = 0;
      if (kind == INT) {
        if (bits > 8) {
          for (; i + 4 <= n; i += 4) {
            v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(v128.load_ext<i16>(codes)), unit));
            codes += 8;
            out += 16;
          }
          for (; i < n; i++) {
            store<f32>(out, <f32>load<i16>(codes) * scale);
            codes += 2;
            out += 4;
          }
        } else {
          for (; i + 8 <= n; i += 8) {
            const v = v128.load_ext<i8>(codes);
            v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(v)), unit));
            v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(v)), unit), 16);
            codes += 8;
            out += 32;
          }
          for (; i < n; i++) {
            store<f32>(out, <f32>load<i8>(codes++) * scale);
            out += 4;
          }
        }
      } else if (bits == 4) {
        for (; i + 8 <= n; i += 8) {
          const v = v128.load_ext<u8>(codes);
          const raw = v128.load64_zero(codes);
          const twice = i16x8.extend_low_i8x16_s(i8x16.swizzle(doubled, raw));
          const signs = v128.and(v, i16x8.splat(8));
          // The sign comes from the code: −0 is a value too.
          const a = f32x4.mul(f32x4.mul(f32x4.abs(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(twice))), half), unit);
          const b = f32x4.mul(f32x4.mul(f32x4.abs(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(twice))), half), unit);
          v128.store(out, v128.xor(a, i32x4.shl(v128.and(i32x4.extend_low_i16x8_u(signs), minus), 28)));
          v128.store(out, v128.xor(b, i32x4.shl(v128.and(i32x4.extend_high_i16x8_u(signs), minus), 28)), 16);
          codes += 8;
          out += 32;
        }
      }
      if (kind != INT) {
        for (; i < n; i++) {
          store<f32>(out, load<f32>(table + (<usize>load<u8>(codes++) << 2)) * scale);
          out += 4;
        }
      }
    }
  }
}

/** f32 values replaced by what their codes read as. */
export function fakeQuantize(x: usize, rows: i32, cols: i32, block: i32): void {
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += block) {
      const n = min(block, cols - c);
      const magnitude = blockMax<f32>(x, n);
      if (magnitude >= <u32>EXPONENT) {
        for (let i = 0; i < n; i++) {
          store<f32>(x, NaN);
          x += 4;
        }
        continue;
      }
      const scale = chooseScale<f32>(x, n, magnitude);
      const first = f32x4.splat(kind == INT ? firstFactor(scale) : 1);
      const factor = f32x4.splat(factorOf(scale));
      const unit = f32x4.splat(unitOf(scale));
      const high = f32x4.splat(kind == INT ? <f32>topCode : topValue);
      let i = 0;
      for (; i + 4 <= n; i += 4) {
        v128.store(x, values4(v128.load(x), first, factor, unit, high));
        x += 16;
      }
      if (i < n) {
        const v = values4(v128.load(x), first, factor, unit, high);
        store<f32>(x, f32x4.extract_lane(v, 0));
        if (i + 1 < n) store<f32>(x + 4, f32x4.extract_lane(v, 1));
        if (i + 2 < n) store<f32>(x + 8, f32x4.extract_lane(v, 2));
        x += <usize>(n - i) * 4;
      }
    }
  }
}
