// Histograms of exponents. AssemblyScript, not TypeScript.
import { OTHER, rankQuads } from "./ranks.as";

// @ts-ignore: decorator
@inline
function countOne(x: usize, single: usize): void {
  const at = single + ((((<usize>load<u16>(x)) >> 7) & 0xff) << 2);
  store<u32>(at, load<u32>(at) + 1);
}

// @ts-ignore: decorator
@inline
function countQuad(quads: usize, index: usize): void {
  const at = quads + ((index & 0xffff) << 2);
  store<u32>(at, load<u32>(at) + 1);
}

/** Adds the exponents of `count` bf16 patterns at `x` to `single`, 256 u32. */
export function countExponents(x: usize, count: i32, single: usize): void {
  const end = x + (<usize>count << 1);
  for (; x < end; x += 2) countOne(x, single);
}

/**
 * The same, four at once: quads of ranks count in `quads`, 2^16 u32; in `single` only what has no rank and what is left of 16.
 * `foldQuads` adds them up.
 */
export function countQuads(x: usize, count: i32, base: u32, quads: usize, single: usize): void {
  const bases = i8x16.splat(<i8>base);
  const end = x + ((<usize>count >> 4) << 5);
  for (; x < end; x += 32) {
    const four = i64x2.extract_lane(rankQuads(v128.load(x), v128.load(x, 16), bases), 0);
    countQuad(quads, <usize>four);
    countQuad(quads, <usize>(four >> 16));
    countQuad(quads, <usize>(four >> 32));
    countQuad(quads, <usize>(four >> 48));
    // A nibble of four ones is an exponent without a rank.
    const others = four & (four >> 1) & (four >> 2) & (four >> 3) & 0x1111111111111111;
    if (others == 0) continue;
    for (let i = 0; i < 16; i++) if ((others >> (i << 2)) & 1) countOne(x + (i << 1), single);
  }
  countExponents(x, count & 15, single);
}

/** Adds what `countQuads` has counted to `single`. */
export function foldQuads(base: u32, quads: usize, single: usize): void {
  for (let index: u32 = 0; index < 0x10000; index++) {
    const found = load<u32>(quads + (index << 2));
    if (found == 0) continue;
    for (let shift: u32 = 0; shift < 16; shift += 4) {
      const rank = (index >> shift) & 15;
      if (rank == OTHER) continue;
      const at = single + (((base + rank) & 0xff) << 2);
      store<u32>(at, load<u32>(at) + found);
    }
  }
}
