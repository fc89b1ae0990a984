// WASM SIMD twin of min-max.ts. AssemblyScript, not TypeScript.
// Flipping the magnitude bits of negative numbers makes IEEE patterns order as signed integers; flipping again undoes it.

// @ts-ignore: decorator
@inline
function order16(v: v128): v128 {
  return v128.xor(v, v128.and(i16x8.shr_s(v, 15), i16x8.splat(0x7fff)));
}

// @ts-ignore: decorator
@inline
function order32(v: v128): v128 {
  return v128.xor(v, v128.and(i32x4.shr_s(v, 31), i32x4.splat(0x7fffffff)));
}

/** Order of an f32 pattern and back. */
// @ts-ignore: decorator
@inline
function order(bits: i32): i32 {
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

/** f32 bits of an order, −0 made +0. */
// @ts-ignore: decorator
@inline
function bitsOf(key: i32): u32 {
  const bits = <u32>order(key);
  return (bits & 0x7fffffff) == 0 ? 0 : bits;
}

/** bf16 patterns, rows × cols, two results per run of `group` columns. Returns the largest magnitude met, as f32 bits. */
export function minMaxBf16(x: usize, rows: i32, cols: i32, group: i32, low: usize, high: usize): u32 {
  let top: u32 = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += group) {
      const n = min(group, cols - c);
      let least = i16x8.splat(0x7fff);
      let most = i16x8.splat(-0x8000);
      let i = 0;
      for (; i + 8 <= n; i += 8) {
        const key = order16(v128.load(x));
        least = i16x8.min_s(least, key);
        most = i16x8.max_s(most, key);
        x += 16;
      }
      least = i16x8.min_s(least, v128.shuffle<u64>(least, least, 1, 1));
      least = i16x8.min_s(least, v128.shuffle<u32>(least, least, 1, 1, 1, 1));
      most = i16x8.max_s(most, v128.shuffle<u64>(most, most, 1, 1));
      most = i16x8.max_s(most, v128.shuffle<u32>(most, most, 1, 1, 1, 1));
      let a: i32 = min(<i32>i16x8.extract_lane_s(least, 0), <i32>i16x8.extract_lane_s(least, 1)) << 16;
      let b: i32 = max(<i32>i16x8.extract_lane_s(most, 0), <i32>i16x8.extract_lane_s(most, 1)) << 16;
      for (; i < n; i++) {
        // Only the upper half counts: both orders agree there.
        const key = order((<i32>load<u16>(x)) << 16) & 0xffff0000;
        a = min(a, key);
        b = max(b, key);
        x += 2;
      }
      const lowest = bitsOf16(a);
      const highest = bitsOf16(b);
      top = max(top, max(lowest & 0x7fffffff, highest & 0x7fffffff));
      store<u32>(low, lowest);
      store<u32>(high, highest);
      low += 4;
      high += 4;
    }
  }
  return top;
}

/** f32 bits of a bf16 order kept in the upper half. */
// @ts-ignore: decorator
@inline
function bitsOf16(key: i32): u32 {
  const bits = <u32>(key ^ ((key >> 31) & 0x7fff0000));
  return (bits & 0x7fffffff) == 0 ? 0 : bits;
}

/** The same over f32. */
export function minMaxF32(x: usize, rows: i32, cols: i32, group: i32, low: usize, high: usize): u32 {
  let top: u32 = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += group) {
      const n = min(group, cols - c);
      let least = i32x4.splat(0x7fffffff);
      let most = i32x4.splat(0x80000000);
      let i = 0;
      for (; i + 4 <= n; i += 4) {
        const key = order32(v128.load(x));
        least = i32x4.min_s(least, key);
        most = i32x4.max_s(most, key);
        x += 16;
      }
      least = i32x4.min_s(least, v128.shuffle<u64>(least, least, 1, 1));
      most = i32x4.max_s(most, v128.shuffle<u64>(most, most, 1, 1));
      let a = min(i32x4.extract_lane(least, 0), i32x4.extract_lane(least, 1));
      let b = max(i32x4.extract_lane(most, 0), i32x4.extract_lane(most, 1));
      for (; i < n; i++) {
        const key = order(load<i32>(x));
        a = min(a, key);
        b = max(b, key);
        x += 4;
      }
      const lowest = bitsOf(a);
      const highest = bitsOf(b);
      top = max(top, max(lowest & 0x7fffffff, highest & 0x7fffffff));
      store<u32>(low, lowest);
      store<u32>(high, highest);
      low += 4;
      high += 4;
    }
  }
  return top;
}
