// WASM SIMD twin of hadamard.ts. AssemblyScript, not TypeScript.

/** In place over `rows` × `size` f32; `size` is a power of two. */
export function hadamard(x: usize, rows: i32, size: i32, norm: f32): void {
  const bytes = <usize>size << 2;
  const norm4 = f32x4.splat(norm);
  for (let r = 0; r < rows; r++) {
    if (size < 4) small(x, size, norm);
    else {
      // Spans 1 and 2 stay inside one vector.
      for (let at = x; at < x + bytes; at += 16) {
        const v = v128.load(at);
        const a = pairs(v128.shuffle<u32>(v, v, 0, 0, 2, 2), v128.shuffle<u32>(v, v, 1, 1, 3, 3), i32x4(0, 0x80000000, 0, 0x80000000));
        v128.store(at, pairs(v128.shuffle<u64>(a, a, 0, 0), v128.shuffle<u64>(a, a, 1, 1), i32x4(0, 0, 0x80000000, 0x80000000)));
      }
      for (let span: usize = 16; span < bytes; span <<= 1) {
        for (let block = x; block < x + bytes; block += span << 1) {
          for (let at = block; at < block + span; at += 16) {
            const a = v128.load(at);
            const b = v128.load(at + span);
            v128.store(at, f32x4.add(a, b));
            v128.store(at + span, f32x4.sub(a, b));
          }
        }
      }
      for (let at = x; at < x + bytes; at += 16) v128.store(at, f32x4.mul(v128.load(at), norm4));
    }
    x += bytes;
  }
}

/** a + b where `sign` is 0 and a − b where it is the sign bit: subtracting is adding the negated number. */
// @ts-ignore: decorator
@inline
function pairs(a: v128, b: v128, sign: v128): v128 {
  return f32x4.add(a, v128.xor(b, sign));
}

function small(x: usize, size: i32, norm: f32): void {
  if (size == 2) {
    const a = load<f32>(x);
    const b = load<f32>(x, 4);
    store<f32>(x, (a + b) * norm);
    store<f32>(x, (a - b) * norm, 4);
  } else store<f32>(x, load<f32>(x) * norm);
}
