// WASM SIMD twin of core/blocks (quantize, dequantize, fake-quantize). AssemblyScript, not TypeScript.
//
// One format at a time: `configure` sets it, and every other call works in it. The loader pads every region.
import { encodeMatrix } from "./elements.as";
import { e2m1Rows, e2m3Rows, e3m2Rows, e4m3Rows, e5m2Rows } from "./float-rows.as";
import { intRows, wideRows } from "./int-rows.as";
import { nvfp4Rows } from "./nvfp4-rows.as";
import { blockMax } from "./scales.as";
import { INT, NVFP4, bits, direction, fraction, kind, search } from "./state.as";

export { configure, configureTensor } from "./state.as";
export { pack, unpack } from "./packing.as";
export { decode, fakeQuantize } from "./decode.as";
export { sumErrorsBf16, sumErrorsF32 } from "./errors.as";

/**
 * Codes of a matrix. Rows of codes are `stride` bytes apart: one code a byte (two for mantissas of more than 8 bits), or with
 * `pack` one little-endian bit stream, made by way of `scratch`, which has room for a row of codes.
 *
 * @returns f32 bits of the largest magnitude.
 */
export function encodeBf16(
  x: usize, rows: i32, cols: i32, block: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize,
): u32 {
  if (!search && kind == NVFP4 && direction == 0 && cols % 64 == 0) return nvfp4Rows(x, rows, cols, codes, stride, scales, pack, scratch);
  if (!search && kind != NVFP4 && block % 32 == 0 && cols % block == 0) {
    if (kind == INT && bits <= 8) return intRows(x, rows, cols, block, codes, stride, scales, pack, scratch);
    if (kind == INT) return wideRows(x, rows, cols, block, codes, stride, scales, pack, scratch);
    if (bits == 4) return e2m1Rows(x, rows, cols, codes, stride, scales, pack, scratch);
    if (bits == 8 && fraction == 3) return e4m3Rows(x, rows, cols, codes, stride, scales, pack, scratch);
    if (bits == 8) return e5m2Rows(x, rows, cols, codes, stride, scales, pack, scratch);
    if (fraction == 3) return e2m3Rows(x, rows, cols, codes, stride, scales, pack, scratch);
    return e3m2Rows(x, rows, cols, codes, stride, scales, pack, scratch);
  }
  return encodeMatrix<u16>(x, rows, cols, block, codes, stride, scales, pack, scratch);
}

export function encodeF32(
  x: usize, rows: i32, cols: i32, block: i32, codes: usize, stride: i32, scales: usize, pack: bool, scratch: usize,
): u32 {
  return encodeMatrix<f32>(x, rows, cols, block, codes, stride, scales, pack, scratch);
}

/** f32 bits of the largest magnitude of `n` values. */
export function maxBf16(x: usize, n: i32): u32 {
  return blockMax<u16>(x, n);
}

export function maxF32(x: usize, n: i32): u32 {
  return blockMax<f32>(x, n);
}
