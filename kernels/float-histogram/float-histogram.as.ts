// WASM SIMD twin of float-histogram.ts. AssemblyScript, not TypeScript.

/**
 * Counts `count` f32 at `x` in `tables`, which has four u32 for each of `2 * side + 1` bins: equal values in a row go to different
 * places, so no count waits for the one before it. Folds their orders into four least and four largest i32 at `orders`.
 */
export function countFloats(x: usize, count: i32, dropped: i32, first: i32, side: i32, tables: usize, orders: usize): void {
  const magnitude = i32x4.splat(0x7fffffff);
  const start = i32x4.splat(first - 1);
  const most = i32x4.splat(side);
  const zero = i32x4.splat(0);
  // Where lane l of the middle bin is counted; bins are 16 bytes apart.
  const middle = i32x4.add(i32x4.splat(<i32>tables + (side << 4)), i32x4(0, 4, 8, 12));
  let least = v128.load(orders);
  let largest = v128.load(orders, 16);
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const bits = v128.load(x);
    const step = i32x4.sub(i32x4.shr_s(v128.and(bits, magnitude), dropped), start);
    const k = i32x4.max_s(i32x4.min_s(step, most), zero);
    const sign = i32x4.shr_s(bits, 31);
    // Flipping the magnitude bits of negative numbers makes IEEE patterns order as signed integers.
    const order = v128.xor(bits, v128.and(sign, magnitude));
    least = i32x4.min_s(least, order);
    largest = i32x4.max_s(largest, order);
    const at = i32x4.add(middle, i32x4.shl(i32x4.sub(v128.xor(k, sign), sign), 4));
    bump(<usize>i32x4.extract_lane(at, 0));
    bump(<usize>i32x4.extract_lane(at, 1));
    bump(<usize>i32x4.extract_lane(at, 2));
    bump(<usize>i32x4.extract_lane(at, 3));
    x += 16;
  }
  v128.store(orders, least);
  v128.store(orders, largest, 16);
  for (; i < count; i++) {
    const bits = load<i32>(x);
    const order = bits ^ ((bits >> 31) & 0x7fffffff);
    store<i32>(orders, min(load<i32>(orders), order));
    store<i32>(orders, max(load<i32>(orders, 16), order), 16);
    const k = max(min(((bits & 0x7fffffff) >> dropped) - (first - 1), side), 0);
    bump(tables + (<usize>(side + (bits < 0 ? -k : k)) << 4));
    x += 4;
  }
}

/** Adds the four counts of each bin to its f64 at `counts`, and clears them. */
export function addCounts(tables: usize, bins: i32, counts: usize): void {
  const end = tables + (<usize>bins << 4);
  for (let at = tables; at < end; at += 16) {
    const sum = load<u32>(at) + load<u32>(at, 4) + load<u32>(at, 8) + load<u32>(at, 12);
    store<f64>(counts, load<f64>(counts) + <f64>sum);
    counts += 8;
  }
  memory.fill(tables, 0, end - tables);
}

// @ts-ignore: decorator
@inline
function bump(at: usize): void {
  store<u32>(at, load<u32>(at) + 1);
}
