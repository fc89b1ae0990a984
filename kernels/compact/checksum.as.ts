// The checksum of checksum.ts, and copies. AssemblyScript, not TypeScript.

const P1: i32 = 0x9e3779b1;

// @ts-ignore: decorator
@inline
function mix(lane: v128, x: v128): v128 {
  const y = i32x4.mul(i32x4.add(lane, x), i32x4.splat(P1));
  return v128.or(i32x4.shl(y, 13), i32x4.shr_u(y, 19));
}

/** The sixteen lanes of the checksum of `bytes` bytes at `x`, to `lanes`. */
export function checksumLanes(x: usize, bytes: i32, lanes: usize): void {
  let a = i32x4(0, 1, 2, 3), b = i32x4(4, 5, 6, 7), c = i32x4(8, 9, 10, 11), d = i32x4(12, 13, 14, 15);
  const rest = bytes & 63;
  const end = x + bytes - rest;
  while (x < end) {
    a = mix(a, v128.load(x));
    b = mix(b, v128.load(x, 16));
    c = mix(c, v128.load(x, 32));
    d = mix(d, v128.load(x, 48));
    x += 64;
  }
  if (rest > 0) {
    memory.fill(lanes, 0, 64);
    memory.copy(lanes, x, rest);
    a = mix(a, v128.load(lanes));
    b = mix(b, v128.load(lanes, 16));
    c = mix(c, v128.load(lanes, 32));
    d = mix(d, v128.load(lanes, 48));
  }
  v128.store(lanes, a);
  v128.store(lanes, b, 16);
  v128.store(lanes, c, 32);
  v128.store(lanes, d, 48);
}

/** Copies between any two addresses; the two may overlap. */
export function copyBytes(to: usize, from: usize, bytes: usize): void {
  memory.copy(to, from, bytes);
}
