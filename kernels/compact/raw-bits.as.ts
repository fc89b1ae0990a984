// Raw bits, see raw-bits.ts. AssemblyScript, not TypeScript.

// @ts-ignore: decorator
@inline
function rawOf(x: usize): v128 {
  const a = v128.load(x);
  const b = v128.load(x, 16);
  const sign = i16x8.splat(0x20);
  const low = i16x8.splat(0x1f);
  return i8x16.narrow_i16x8_u(
    v128.or(v128.and(i16x8.shr_u(a, 10), sign), v128.and(a, low)),
    v128.or(v128.and(i16x8.shr_u(b, 10), sign), v128.and(b, low)),
  );
}

// @ts-ignore: decorator
@inline
function rawAt(x: usize, i: i32, count: i32): u32 {
  if (i >= count) return 0;
  const pattern = <u32>load<u16>(x + (<usize>i << 1));
  return ((pattern >> 10) & 0x20) | (pattern & 0x1f);
}

/** Raw bits of `count` patterns, see raw-bits.ts. `out` is zero before. */
export function packRawBits(x: usize, count: i32, kind: i32, out: usize): void {
  if (kind == 1) {
    const signs = out + ((count + 3) & ~3);
    let i = 0;
    for (; i + 8 <= count; i += 8) {
      const patterns = v128.load(x + (<usize>i << 1));
      const bytes = v128.and(patterns, i16x8.splat(0xff));
      v128.store64_lane(out + i, i8x16.narrow_i16x8_u(bytes, bytes), 0);
      store<u8>(signs + (i >> 3), <u8>i16x8.bitmask(patterns));
    }
    for (; i < count; i++) {
      const pattern = <u32>load<u16>(x + (<usize>i << 1));
      store<u8>(out + i, <u8>pattern);
      store<u8>(signs + (i >> 3), <u8>(load<u8>(signs + (i >> 3)) | ((pattern >> 15) << (i & 7))));
    }
    return;
  }
  const top = i8x16.splat(<i8>0xc0);
  let at = x;
  for (let left = count >> 6; left > 0; left--) {
    const last = rawOf(at + 96);
    // What shifts bring from the byte below lies under `top`.
    v128.store(out, v128.or(rawOf(at), v128.and(i16x8.shl(last, 6), top)));
    v128.store(out, v128.or(rawOf(at + 32), v128.and(i16x8.shl(last, 4), top)), 16);
    v128.store(out, v128.or(rawOf(at + 64), v128.and(i16x8.shl(last, 2), top)), 32);
    at += 128;
    out += 48;
  }
  const start = count & ~63;
  const left = count - start;
  const g = (left + 3) >> 2;
  for (let i = 0; i < g; i++) {
    const last = rawAt(x, start + 3 * g + i, count);
    for (let j = 0; j < 3; j++) store<u8>(out + j * g + i, <u8>(rawAt(x, start + j * g + i, count) | (((last >> (2 * j)) & 3) << 6)));
  }
}

/** Raw bits of bf16 back to a byte each: sign * 32 + low mantissa. Writes up to 63 bytes past the end. */
export function unpackRawBits(bits: usize, count: i32, out: usize): void {
  const low = i8x16.splat(0x3f), two = i8x16.splat(3), four = i8x16.splat(12), six = i8x16.splat(48);
  for (let left = count >> 6; left > 0; left--) {
    const a = v128.load(bits);
    const b = v128.load(bits, 16);
    const c = v128.load(bits, 32);
    v128.store(out, v128.and(a, low));
    v128.store(out, v128.and(b, low), 16);
    v128.store(out, v128.and(c, low), 32);
    // What shifts bring from the byte above lies beside these masks.
    v128.store(out, v128.or(v128.and(i16x8.shr_u(a, 6), two), v128.or(v128.and(i16x8.shr_u(b, 4), four), v128.and(i16x8.shr_u(c, 2), six))), 48);
    bits += 48;
    out += 64;
  }
  const start = count & ~63;
  const g = (count - start + 3) >> 2;
  for (let i = 0; i < g; i++) {
    let last: u32 = 0;
    for (let j = 0; j < 3; j++) {
      const byte = <u32>load<u8>(bits + j * g + i);
      store<u8>(out + j * g + i, <u8>(byte & 0x3f));
      last |= (byte >> 6) << (2 * j);
    }
    store<u8>(out + 3 * g + i, <u8>last);
  }
}
