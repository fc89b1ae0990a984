// Streams as the decoders read them, and codes by the rows of `luts`. AssemblyScript, not TypeScript.
//
// The bits of every byte are reversed before decoding, so that the next bit of the stream is the lowest one of a word.

// @ts-ignore: decorator
@inline
function reverseBytes(bytes: v128): v128 {
  const nibble = i8x16.splat(15);
  const low = v128.swizzle(i8x16(0, -128, 64, -64, 32, -96, 96, -32, 16, -112, 80, -48, 48, -80, 112, -16), v128.and(bytes, nibble));
  const high = v128.swizzle(i8x16(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15), v128.and(i16x8.shr_u(bytes, 4), nibble));
  return v128.or(low, high);
}

/** Makes `count` bytes of a stream what the decoders read, in place; whole vectors of 16. */
export function turnStream(stream: usize, count: i32): void {
  for (const end = stream + count; stream < end; stream += 16) v128.store(stream, reverseBytes(v128.load(stream)));
}

// 57 bits of the turned stream and more from bit `at`, the first one highest.
// @ts-ignore: decorator
@inline
export function loadBits(stream: usize, at: u32): u64 {
  const turned = v128.swizzle(v128.load64_zero(stream + (at >> 3)), i8x16(7, 6, 5, 4, 3, 2, 1, 0, 8, 8, 8, 8, 8, 8, 8, 8));
  return (<u64>i64x2.extract_lane(reverseBytes(turned), 0)) << (at & 7);
}

/**
 * One code by the rows, for codes longer than the window and for tails. `at` must lie in the stream; bytes after it are zero or padding.
 * @returns exponent | length << 8; a length of 0 means that the rows do not resolve.
 */
// @ts-ignore: decorator
@inline
export function decodeSlow(bits: u64, luts: usize, rows: i32): u32 {
  let value: u32 = load<u8>(luts + <usize>(bits >> 56));
  let shift: u64 = 48;
  while (value >= 240) {
    const row = 256 - value;
    if (<i32>row >= rows || shift < 32) return 0;
    value = load<u8>(luts + (row << 8) + <usize>((bits >> shift) & 0xff));
    shift -= 8;
  }
  return value | (<u32>load<u8>(luts + (rows << 8) + value) << 8);
}
