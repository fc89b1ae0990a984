// Stores with the most significant byte first. AssemblyScript, not TypeScript.

// @ts-ignore: decorator
@inline
export function storeBigEndian64(at: usize, value: u64): void {
  v128.store64_lane(at, v128.swizzle(i64x2.splat(value), i8x16(7, 6, 5, 4, 3, 2, 1, 0, 8, 8, 8, 8, 8, 8, 8, 8)), 0);
}

// @ts-ignore: decorator
@inline
export function storeBigEndian32(at: usize, value: u32): void {
  store<u32>(at, (rotl<u32>(value, 8) & 0x00ff00ff) | (rotr<u32>(value, 8) & 0xff00ff00));
}
