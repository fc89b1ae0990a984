// Sums of squares and of squared errors. AssemblyScript, not TypeScript.
import { load4 } from "../lanes.as";

/**
 * Adds Σx² and Σ(x − x̂)² of a matrix to the two f64 at `sums`: squares in f64, four sums a row by column modulo 4,
 * joined as (s0 + s2) + (s1 + s3), rows one after another.
 */
// @ts-ignore: decorator
@inline
function sumErrors<T>(x: usize, read: usize, rows: i32, cols: i32, sums: usize): void {
  for (let r = 0; r < rows; r++) {
    let w0 = f64x2.splat(0);
    let w1 = f64x2.splat(0);
    let e0 = f64x2.splat(0);
    let e1 = f64x2.splat(0);
    for (let c = 0; c < cols; c += 4) {
      let v = load4<T>(x + <usize>c * sizeof<T>());
      let e = f32x4.sub(v, v128.load(read + (<usize>c << 2)));
      if (c + 4 > cols) {
        const inside = i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(cols - c));
        v = v128.and(v, inside);
        e = v128.and(e, inside);
      }
      const va = f64x2.promote_low_f32x4(v);
      const vb = f64x2.promote_low_f32x4(v128.shuffle<u64>(v, v, 1, 1));
      const ea = f64x2.promote_low_f32x4(e);
      const eb = f64x2.promote_low_f32x4(v128.shuffle<u64>(e, e, 1, 1));
      w0 = f64x2.add(w0, f64x2.mul(va, va));
      w1 = f64x2.add(w1, f64x2.mul(vb, vb));
      e0 = f64x2.add(e0, f64x2.mul(ea, ea));
      e1 = f64x2.add(e1, f64x2.mul(eb, eb));
    }
    const w = f64x2.add(w0, w1);
    const e = f64x2.add(e0, e1);
    store<f64>(sums, load<f64>(sums) + (f64x2.extract_lane(w, 0) + f64x2.extract_lane(w, 1)));
    store<f64>(sums, load<f64>(sums, 8) + (f64x2.extract_lane(e, 0) + f64x2.extract_lane(e, 1)), 8);
    x += <usize>cols * sizeof<T>();
    read += <usize>cols * 4;
  }
}

export function sumErrorsBf16(x: usize, read: usize, rows: i32, cols: i32, sums: usize): void {
  sumErrors<u16>(x, read, rows, cols, sums);
}

export function sumErrorsF32(x: usize, read: usize, rows: i32, cols: i32, sums: usize): void {
  sumErrors<f32>(x, read, rows, cols, sums);
}
