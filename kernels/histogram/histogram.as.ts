// WASM SIMD twin of histogram.ts. AssemblyScript, not TypeScript.

/** Adds `count` f32 at `x` to `bins` u32 counts at `counts`. Values are finite: the loader checks. */
export function histogram(x: usize, count: i32, low: f32, inverseWidth: f32, bins: i32, counts: usize): void {
  const low4 = f32x4.splat(low);
  const inverse4 = f32x4.splat(inverseWidth);
  const last = i32x4.splat(bins - 1);
  const zero = i32x4.splat(0);
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    // Truncation saturates, so a position far outside is still clamped to an end bin; below zero it is clamped to bin 0.
    const position = i32x4.trunc_sat_f32x4_s(f32x4.mul(f32x4.sub(v128.load(x), low4), inverse4));
    const bin = i32x4.max_s(i32x4.min_s(position, last), zero);
    bump(counts, i32x4.extract_lane(bin, 0));
    bump(counts, i32x4.extract_lane(bin, 1));
    bump(counts, i32x4.extract_lane(bin, 2));
    bump(counts, i32x4.extract_lane(bin, 3));
    x += 16;
  }
  for (; i < count; i++) {
    const position = <i32>((load<f32>(x) - low) * inverseWidth);
    bump(counts, max(min(position, bins - 1), 0));
    x += 4;
  }
}

// @ts-ignore: decorator
@inline
function bump(counts: usize, bin: i32): void {
  const at = counts + (<usize>bin << 2);
  store<u32>(at, load<u32>(at) + 1);
}
