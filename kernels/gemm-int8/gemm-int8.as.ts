// WASM SIMD twin of gemm-int8.ts. AssemblyScript, not TypeScript.
//
// Panels of 5 rows of A and 8 rows of B, as i16 pairs of neighbouring columns: one i32x4.dot_i16x8_s makes four sums of two
// products. 10 sums, 2 vectors of B and one of A fit the 16 registers there are; unrolling would not.

const TILE_ROWS = 5;
const TILE_COLS = 8;

/** i8 rows to panels of `tile` rows: per block, per pair of columns, `tile` pairs. Rows and columns that are missing are 0. */
// @ts-ignore: decorator
@inline
function pack(x: usize, rows: i32, cols: i32, block: i32, out: usize, tile: i32): void {
  for (let first = 0; first < rows; first += tile) {
    const count = min(tile, rows - first);
    for (let begin = 0; begin < cols; begin += block) {
      const n = min(block, cols - begin);
      for (let k = 0; k < n; k += 2) {
        for (let r = 0; r < tile; r++) {
          let pair: u32 = 0;
          if (r < count) {
            const at = x + <usize>(first + r) * cols + begin + k;
            pair = <u32>(<i32>load<i8>(at) & 0xffff);
            if (k + 1 < n) pair |= <u32>load<i8>(at, 1) << 16;
          }
          store<u32>(out, pair);
          out += 4;
        }
      }
    }
  }
}

export function packA(x: usize, rows: i32, cols: i32, block: i32, out: usize): void {
  pack(x, rows, cols, block, out, TILE_ROWS);
}

export function packB(x: usize, rows: i32, cols: i32, block: i32, out: usize): void {
  pack(x, rows, cols, block, out, TILE_COLS);
}

/** f32 units [rows, blocks] to [panel of `tile` rows][block][row]; 0 for rows that are missing. */
export function packUnits(x: usize, rows: i32, blocks: i32, tile: i32, out: usize): void {
  for (let first = 0; first < rows; first += tile) {
    for (let b = 0; b < blocks; b++) {
      for (let r = 0; r < tile; r++) {
        store<f32>(out, first + r < rows ? load<f32>(x + ((<usize>(first + r) * blocks + b) << 2)) : 0);
        out += 4;
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function addInt(at: usize, sum: v128): void {
  v128.store(at, i32x4.add(v128.load(at), sum));
}

// @ts-ignore: decorator
@inline
function addScaled(at: usize, sum: v128, a: v128, b: v128): void {
  v128.store(at, f32x4.add(v128.load(at), f32x4.mul(f32x4.convert_i32x4_s(sum), f32x4.mul(a, b))));
}

/** One block of one tile, added to 5 rows of 8 sums `stride` bytes apart. `T`: i32 for plain sums, f32 for scaled ones. */
// @ts-ignore: decorator
@inline
function tile<T>(a: usize, b: usize, pairs: i32, c: usize, stride: usize, ua: usize, ub: usize): void {
  let c00 = i32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00, c40 = c00, c41 = c00;
  for (let k = 0; k < pairs; k++) {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let s = v128.load32_splat(a);
    c00 = i32x4.add(c00, i32x4.dot_i16x8_s(s, b0));
    c01 = i32x4.add(c01, i32x4.dot_i16x8_s(s, b1));
    s = v128.load32_splat(a, 4);
    c10 = i32x4.add(c10, i32x4.dot_i16x8_s(s, b0));
    c11 = i32x4.add(c11, i32x4.dot_i16x8_s(s, b1));
    s = v128.load32_splat(a, 8);
    c20 = i32x4.add(c20, i32x4.dot_i16x8_s(s, b0));
    c21 = i32x4.add(c21, i32x4.dot_i16x8_s(s, b1));
    s = v128.load32_splat(a, 12);
    c30 = i32x4.add(c30, i32x4.dot_i16x8_s(s, b0));
    c31 = i32x4.add(c31, i32x4.dot_i16x8_s(s, b1));
    s = v128.load32_splat(a, 16);
    c40 = i32x4.add(c40, i32x4.dot_i16x8_s(s, b0));
    c41 = i32x4.add(c41, i32x4.dot_i16x8_s(s, b1));
    a += 20;
    b += 32;
  }
  if (isInteger<T>()) {
    addInt(c, c00);
    addInt(c + 16, c01);
    c += stride;
    addInt(c, c10);
    addInt(c + 16, c11);
    c += stride;
    addInt(c, c20);
    addInt(c + 16, c21);
    c += stride;
    addInt(c, c30);
    addInt(c + 16, c31);
    c += stride;
    addInt(c, c40);
    addInt(c + 16, c41);
  } else {
    const u0 = v128.load(ub);
    const u1 = v128.load(ub, 16);
    let s = v128.load32_splat(ua);
    addScaled(c, c00, s, u0);
    addScaled(c + 16, c01, s, u1);
    s = v128.load32_splat(ua, 4);
    c += stride;
    addScaled(c, c10, s, u0);
    addScaled(c + 16, c11, s, u1);
    s = v128.load32_splat(ua, 8);
    c += stride;
    addScaled(c, c20, s, u0);
    addScaled(c + 16, c21, s, u1);
    s = v128.load32_splat(ua, 12);
    c += stride;
    addScaled(c, c30, s, u0);
    addScaled(c + 16, c31, s, u1);
    s = v128.load32_splat(ua, 16);
    c += stride;
    addScaled(c, c40, s, u0);
    addScaled(c + 16, c41, s, u1);
  }
}

/** Blocks of B that stay in the first-level cache while all of A passes. */
const CACHED_PAIRS = 512;

/**
 * All tiles. `c`: [ceil(m / 5) · 5, ceil(n / 8) · 8], zeroed by the caller. Sums of an element are added block by block,
 * in ascending order.
 */
// @ts-ignore: decorator
@inline
function multiply<T>(a: usize, b: usize, m: i32, n: i32, cols: i32, block: i32, c: usize, ua: usize, ub: usize): void {
  const panelsA = (m + TILE_ROWS - 1) / TILE_ROWS;
  const panelsB = (n + TILE_COLS - 1) / TILE_COLS;
  const stride = <usize>panelsB * (TILE_COLS * 4);
  const blocks = (cols + block - 1) / block;
  const pairsOf = (block + 1) / 2;
  const lastPairs = (cols - (blocks - 1) * block + 1) / 2;
  const rowPairs = <usize>((blocks - 1) * pairsOf + lastPairs);
  const group = max(1, CACHED_PAIRS / pairsOf);
  for (let start = 0; start < blocks; start += group) {
    const end = min(start + group, blocks);
    for (let j = 0; j < panelsB; j++) {
      for (let i = 0; i < panelsA; i++) {
        let at = <usize>start * pairsOf;
        const pa = a + <usize>i * rowPairs * 20;
        const pb = b + <usize>j * rowPairs * 32;
        const out = c + <usize>i * TILE_ROWS * stride + <usize>j * (TILE_COLS * 4);
        for (let k = start; k < end; k++) {
          const pairs = k == blocks - 1 ? lastPairs : pairsOf;
          tile<T>(pa + at * 20, pb + at * 32, pairs, out, stride, ua + (<usize>i * blocks + k) * 20, ub + (<usize>j * blocks + k) * 32);
          at += pairs;
        }
      }
    }
  }
}

export function gemm(a: usize, b: usize, m: i32, n: i32, cols: i32, c: usize): void {
  multiply<i32>(a, b, m, n, cols, 1024, c, 0, 0);
}

export function gemmScaled(a: usize, b: usize, m: i32, n: i32, cols: i32, block: i32, c: usize, ua: usize, ub: usize): void {
  multiply<f32>(a, b, m, n, cols, block, c, ua, ub);
}

/** Rows of `from` bytes to rows of `to` bytes, `to` ≤ `from`. */
export function trim(c: usize, rows: i32, from: i32, to: i32, out: usize): void {
  for (let r = 0; r < rows; r++) memory.copy(out + <usize>r * to, c + <usize>r * from, to);
}

/** f32 rows times f32 rows: four sums by column modulo 4, joined as (s0 + s2) + (s1 + s3). */
export function gemmFloat(a: usize, b: usize, m: i32, n: i32, cols: i32, c: usize): void {
  const lanes = i32x4(0, 1, 2, 3);
  const rest = v128.not(i32x4.ge_s(lanes, i32x4.splat(cols & 3)));
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let x = a + <usize>i * cols * 4;
      let y = b + <usize>j * cols * 4;
      let s = f32x4.splat(0);
      let k = 0;
      for (; k + 4 <= cols; k += 4) {
        s = f32x4.add(s, f32x4.mul(v128.load(x), v128.load(y)));
        x += 16;
        y += 16;
      }
      if (k < cols) s = f32x4.add(s, f32x4.mul(v128.and(v128.load(x), rest), v128.and(v128.load(y), rest)));
      const t = f32x4.add(s, v128.shuffle<u64>(s, s, 1, 1));
      store<f32>(c, f32x4.extract_lane(t, 0) + f32x4.extract_lane(t, 1));
      c += 4;
    }
  }
}
