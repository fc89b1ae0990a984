// Exponents and the other bits of patterns, together again. AssemblyScript, not TypeScript.
//
// Decoders keep exponents turned by one bit, the lowest one highest: a pattern's bytes are then two selections between them and the sign-and-mantissa
// byte.

/** An exponent, turned. */
// @ts-ignore: decorator
@inline
export function turn(exponent: u32): u32 {
  return ((exponent & 0xff) >> 1) | ((exponent & 1) << 7);
}

/** Patterns from `count` turned exponents at `e` and sign-and-mantissa bytes at `sm`, to `out`; whole vectors of 16. */
export function mergePatterns(e: usize, sm: usize, count: i32, out: usize): void {
  const top = i8x16.splat(-128);
  for (const end = e + count; e < end; e += 16) {
    const exponents = v128.load(e);
    const rest = v128.load(sm);
    const swap = v128.and(v128.xor(exponents, rest), top);
    const low = v128.xor(rest, swap);
    const high = v128.xor(exponents, swap);
    v128.store(out, i8x16.shuffle(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    v128.store(out, i8x16.shuffle(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), 16);
    sm += 16;
    out += 32;
  }
}
