// Codes to bit streams and back. AssemblyScript, not TypeScript.
import { joinEight } from "../lanes.as";
import { INT, bits, kind } from "./state.as";

/** One row of codes to a bit stream of `stride` bytes. */
export function packRow(x: usize, cols: i32, at: usize, stride: i32): void {
  const end = at + stride;
  const mask: u32 = (1 << bits) - 1;
  let c = 0;
  if (bits == 4) {
    const nibbles = i16x8.splat(0x0f0f);
    const low = i16x8.splat(0x00ff);
    for (; c + 32 <= cols; c += 32) {
      const p = v128.and(v128.load(x), nibbles);
      const q = v128.and(v128.load(x, 16), nibbles);
      const a = v128.and(v128.or(p, i16x8.shr_u(p, 4)), low);
      const b = v128.and(v128.or(q, i16x8.shr_u(q, 4)), low);
      v128.store(at, i8x16.narrow_i16x8_u(a, b));
      x += 32;
      at += 16;
    }
  } else if (bits < 8) {
    // Eight codes become `bits` bytes; what the store writes too much is written again.
    const masks: u64 = <u64>mask * 0x0101010101010101;
    for (; c + 8 <= cols; c += 8) {
      store<u64>(at, joinEight(load<u64>(x) & masks, bits));
      x += 8;
      at += bits;
    }
  }
  let pending: u32 = 0;
  let held = 0;
  for (; c < cols; c++) {
    const code = bits > 8 ? <u32>load<u16>(x) : <u32>load<u8>(x);
    pending |= (code & mask) << held;
    held += bits;
    while (held >= 8) {
      store<u8>(at++, pending);
      pending >>= 8;
      held -= 8;
    }
    x += bits > 8 ? 2 : 1;
  }
  while (at < end) {
    store<u8>(at++, pending);
    pending = 0;
  }
}

/** Codes, one a byte or two bytes, to bit streams of `stride` bytes a row. */
export function pack(x: usize, rows: i32, cols: i32, stride: i32, out: usize): void {
  const rowBytes = <usize>cols * (bits > 8 ? 2 : 1);
  for (let r = 0; r < rows; r++) packRow(x + <usize>r * rowBytes, cols, out + <usize>r * stride, stride);
}

/** Bit streams of `stride` bytes a row to codes, one a byte or two bytes; integers with their sign. */
export function unpack(x: usize, rows: i32, cols: i32, stride: i32, out: usize): void {
  const mask: u32 = (1 << bits) - 1;
  const signed = kind == INT;
  const up = 32 - bits;
  for (let r = 0; r < rows; r++) {
    let at = x + <usize>r * stride;
    let c = 0;
    if (bits == 4) {
      const low = i8x16.splat(15);
      for (; c + 32 <= cols; c += 32) {
        const v = v128.load(at);
        let even = v128.and(v, low);
        let odd = i8x16.shr_u(v, 4);
        if (signed) {
          const eight = i8x16.splat(8);
          even = i8x16.sub(v128.xor(even, eight), eight);
          odd = i8x16.sub(v128.xor(odd, eight), eight);
        }
        v128.store(out, v128.shuffle<u8>(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
        v128.store(out, v128.shuffle<u8>(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), 16);
        at += 16;
        out += 32;
      }
    }
    let pending: u32 = 0;
    let held = 0;
    for (; c < cols; c++) {
      while (held < bits) {
        pending |= <u32>load<u8>(at++) << held;
        held += 8;
      }
      const code = pending & mask;
      pending >>= bits;
      held -= bits;
      const value = signed ? <i32>(code << up) >> up : <i32>code;
      if (bits > 8) {
        store<u16>(out, value);
        out += 2;
      } else store<u8>(out++, value);
    }
  }
}
