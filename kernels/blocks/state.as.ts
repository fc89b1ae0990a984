// The format the kernels work in: one at a time, set by `configure`. AssemblyScript, not TypeScript.

export const MAGIC: f32 = 12582912;
export const EXPONENT: i32 = 0x7f800000;
export const MAGNITUDE: i32 = 0x7fffffff;
/** Two's complement mantissas, small floats under powers of two, e2m1 under e4m3 scales. */
export const INT = 0;
export const FLOAT = 1;
export const NVFP4 = 2;
export const MX_BLOCK = 32;
export let kind: i32 = 0;
export let bits: i32 = 0;
/** Integers: bits after the point. Floats: mantissa bits. */
export let fraction: i32 = 0;
/** Floats: f32 exponent field of the smallest normal element. */
export let least: i32 = 0;
/** Largest element, as a code without sign, and as a value. */
export let topCode: i32 = 0;
export let topValue: f32 = 0;
/** Exponent of the largest power of two among the elements. */
export let top: i32 = 0;
/** A scale goes one up when the maximum's 23 mantissa bits are above this. */
export let limit: i32 = 0;
/** Whether to search for the least squared error. */
export let search: bool = false;
/** nvfp4: divisor of the tensor, whether absmax / 6 is rounded to bf16, and how scales are rounded: 0 nearest, 1 down, 2 up. */
export let divisor: f32 = 1;
export let halfStep: bool = false;
export let direction: i32 = 0;

export function configure(
  newKind: i32, newBits: i32, newFraction: i32, newLeast: i32, newTopCode: i32, newTopValue: f32, newTop: i32, newLimit: i32, newSearch: bool,
): void {
  kind = newKind;
  bits = newBits;
  fraction = newFraction;
  least = newLeast << 23;
  topCode = newTopCode;
  topValue = newTopValue;
  top = newTop;
  limit = newLimit;
  search = newSearch;
}

export function configureTensor(newDivisor: f32, newHalfStep: bool, newDirection: i32): void {
  divisor = newDivisor;
  halfStep = newHalfStep;
  direction = newDirection;
}

/** 2^e for e in −149 … 127. */
// @ts-ignore: decorator
@inline
export function powerOf2(e: i32): f32 {
  return reinterpret<f32>(e >= -126 ? (e + 127) << 23 : 1 << (e + 149));
}
