// WASM SIMD twin of abs-max.ts. AssemblyScript, not TypeScript.
// Magnitudes of IEEE numbers order like their bits without the sign, and NaN and infinity lie above all of them, so
// one integer maximum finds both the answer and whether anything was not finite.

/** bf16 patterns, rows × cols, one result per run of `group` columns. Returns the largest pattern met, as f32 bits. */
export function absMaxBf16(x: usize, rows: i32, cols: i32, group: i32, out: usize): u32 {
  const mask = i16x8.splat(0x7fff);
  let top: u32 = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += group) {
      const n = min(group, cols - c);
      let best = i16x8.splat(0);
      let i = 0;
      for (; i + 8 <= n; i += 8) {
        best = i16x8.max_s(best, v128.and(v128.load(x), mask));
        x += 16;
      }
      best = i16x8.max_s(best, v128.shuffle<u64>(best, best, 1, 1));
      best = i16x8.max_s(best, v128.shuffle<u32>(best, best, 1, 1, 1, 1));
      let most: u32 = max(<u32>i16x8.extract_lane_u(best, 0), <u32>i16x8.extract_lane_u(best, 1));
      for (; i < n; i++) {
        most = max(most, (<u32>load<u16>(x)) & 0x7fff);
        x += 2;
      }
      top = max(top, most);
      store<u32>(out, most << 16);
      out += 4;
    }
  }
  return top << 16;
}

/** The same over f32. */
export function absMaxF32(x: usize, rows: i32, cols: i32, group: i32, out: usize): u32 {
  const mask = i32x4.splat(0x7fffffff);
  let top: u32 = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += group) {
      const n = min(group, cols - c);
      let best = i32x4.splat(0);
      let i = 0;
      for (; i + 4 <= n; i += 4) {
        best = i32x4.max_s(best, v128.and(v128.load(x), mask));
        x += 16;
      }
      best = i32x4.max_s(best, v128.shuffle<u64>(best, best, 1, 1));
      let most: u32 = max(<u32>i32x4.extract_lane(best, 0), <u32>i32x4.extract_lane(best, 1));
      for (; i < n; i++) {
        most = max(most, load<u32>(x) & 0x7fffffff);
        x += 4;
      }
      top = max(top, most);
      store<u32>(out, most);
      out += 4;
    }
  }
  return top;
}

/** f32, rows × cols: raises each of `cols` maxima at `out` to the magnitudes of its column. Returns the largest bits met. */
export function absMaxColumns(x: usize, rows: i32, cols: i32, out: usize): u32 {
  const mask = i32x4.splat(0x7fffffff);
  let all = i32x4.splat(0);
  let top: u32 = 0;
  for (let r = 0; r < rows; r++) {
    let c = 0;
    for (; c + 4 <= cols; c += 4) {
      const at = out + (<usize>c << 2);
      const best = i32x4.max_s(v128.load(at), v128.and(v128.load(x), mask));
      all = i32x4.max_s(all, best);
      v128.store(at, best);
      x += 16;
    }
    for (; c < cols; c++) {
      const at = out + (<usize>c << 2);
      const best = max(load<u32>(at), load<u32>(x) & 0x7fffffff);
      top = max(top, best);
      store<u32>(at, best);
      x += 4;
    }
  }
  all = i32x4.max_s(all, v128.shuffle<u64>(all, all, 1, 1));
  return max(top, max(<u32>i32x4.extract_lane(all, 0), <u32>i32x4.extract_lane(all, 1)));
}
