// WASM SIMD twin of scale-matrix.ts. AssemblyScript, not TypeScript.

// @ts-ignore: decorator
@inline
function apply4(v: v128, f: v128, divide: i32): v128 {
  return divide ? f32x4.div(v, f) : f32x4.mul(v, f);
}

// @ts-ignore: decorator
@inline
function apply1(x: f32, f: f32, divide: i32): f32 {
  return divide ? x / f : x * f;
}

/** In place over f32, rows × cols. `columns` and `rowFactors` are 0 when absent; flags: 1 divide by columns, 2 divide by rows. */
export function scaleMatrix(x: usize, rows: i32, cols: i32, columns: usize, rowFactors: usize, flags: i32, offset: f32): void {
  const divideColumns = flags & 1;
  const divideRows = flags & 2;
  const offset4 = f32x4.splat(offset);
  for (let r: usize = 0; r < <usize>rows; r++) {
    const row = rowFactors ? load<f32>(rowFactors + (r << 2)) : 1;
    const row4 = f32x4.splat(row);
    let c = 0;
    for (; c + 4 <= cols; c += 4) {
      let v = f32x4.add(v128.load(x), offset4);
      if (columns) v = apply4(v, v128.load(columns + (<usize>c << 2)), divideColumns);
      if (rowFactors) v = apply4(v, row4, divideRows);
      v128.store(x, f32x4.sub(v, offset4));
      x += 16;
    }
    for (; c < cols; c++) {
      let v = load<f32>(x) + offset;
      if (columns) v = apply1(v, load<f32>(columns + (<usize>c << 2)), divideColumns);
      if (rowFactors) v = apply1(v, row, divideRows);
      store<f32>(x, v - offset);
      x += 4;
    }
  }
}
