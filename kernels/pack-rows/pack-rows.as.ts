// WASM SIMD twin of pack-rows.ts. AssemblyScript, not TypeScript.
import { joinEight } from "../lanes.as";

/** Signed codes at `x`, one byte each, to `rows` bit streams of `stride` bytes at `out`. */
export function packRows(x: usize, rows: i32, cols: i32, bits: i32, out: usize, stride: i32): void {
  const offset = 1 << (bits - 1);
  const mask: u32 = (1 << bits) - 1;
  // Adding 2^(bits-1) to a two's complement code flips its sign bit.
  const masks: u64 = <u64>mask * 0x0101010101010101;
  const offsets: u64 = <u64>offset * 0x0101010101010101;
  const half = i8x16.splat(8);
  const nibbles = i16x8.splat(0x0f0f);
  const low = i16x8.splat(0x00ff);
  for (let r = 0; r < rows; r++) {
    let at = out + <usize>r * stride;
    const end = at + stride;
    let c = 0;
    if (bits == 8) {
      for (; c + 16 <= cols; c += 16) {
        v128.store(at, v128.xor(v128.load(x), i8x16.splat(-128)));
        x += 16;
        at += 16;
      }
    } else if (bits == 4) {
      for (; c + 32 <= cols; c += 32) {
        // A 16-bit lane holds two codes, first in the low byte: a | b << 8. Its low byte becomes a | b << 4.
        const p = v128.and(i8x16.add(v128.load(x), half), nibbles);
        const q = v128.and(i8x16.add(v128.load(x, 16), half), nibbles);
        const a = v128.and(v128.or(p, i16x8.shr_u(p, 4)), low);
        const b = v128.and(v128.or(q, i16x8.shr_u(q, 4)), low);
        v128.store(at, i8x16.narrow_i16x8_u(a, b));
        x += 32;
        at += 16;
      }
    } else {
      // Eight codes become `bits` bytes. The store is wider; what it writes too much
      // is written again by what follows, and the last one ends in the slack every region has.
      for (; c + 8 <= cols; c += 8) {
        store<u64>(at, joinEight((load<u64>(x) & masks) ^ offsets, bits));
        x += 8;
        at += bits;
      }
    }
    let pending: u32 = 0;
    let held = 0;
    for (; c < cols; c++) {
      pending |= ((<u32>(<i32>load<i8>(x) + offset)) & mask) << held;
      held += bits;
      while (held >= 8) {
        store<u8>(at++, pending);
        pending >>= 8;
        held -= 8;
      }
      x++;
    }
    while (at < end) {
      store<u8>(at++, pending);
      pending = 0;
    }
  }
}
