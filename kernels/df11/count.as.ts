// Histograms of exponents. AssemblyScript, not TypeScript.
import { addressesOf, basesOf, OTHER, ranksOf } from "./ranks.as";

// @ts-ignore: decorator
@inline
function countOne(x: usize, single: usize): void {
  const at = single + ((((<usize>load<u16>(x)) >> 7) & 0xff) << 2);
  store<u32>(at, load<u32>(at) + 1);
}

/** Adds the exponents of `count` bf16 patterns at `x` to `single`, 256 u32. */
export function countExponents(x: usize, count: i32, single: usize): void {
  const end = x + (<usize>count << 1);
  for (; x < end; x += 2) countOne(x, single);
}

// @ts-ignore: decorator
@inline
function countFour(addresses: v128): void {
  const a = <usize>i32x4.extract_lane(addresses, 0);
  store<u32>(a, load<u32>(a) + 1);
  const b = <usize>i32x4.extract_lane(addresses, 1);
  store<u32>(b, load<u32>(b) + 1);
  const c = <usize>i32x4.extract_lane(addresses, 2);
  store<u32>(c, load<u32>(c) + 1);
  const d = <usize>i32x4.extract_lane(addresses, 3);
  store<u32>(d, load<u32>(d) + 1);
}

/** Makes `quads` ready for `countQuads`. */
export function clearQuads(quads: usize): void {
  memory.fill(quads, 0, 4 << 16);
}

/**
 * The same, four at once: quads of ranks count in `quads`, 2^16 u32; in `single` only what has no rank and what is left of 32.
 * `foldQuads` adds them up.
 */
export function countQuads(x: usize, count: i32, base: u32, quads: usize, single: usize): void {
  const bases = basesOf(base);
  const table = i32x4.splat(<i32>quads);
  const end = x + ((<usize>count >> 5) << 6);
  for (; x < end; x += 64) {
    const a = ranksOf(v128.load(x), bases);
    const b = ranksOf(v128.load(x, 16), bases);
    const c = ranksOf(v128.load(x, 32), bases);
    const d = ranksOf(v128.load(x, 48), bases);
    countFour(addressesOf(a, b, table));
    countFour(addressesOf(c, d, table));
    const largest = i16x8.max_u(i16x8.max_u(a, b), i16x8.max_u(c, d));
    if (v128.any_true(i16x8.eq(largest, i16x8.splat(<i16>(OTHER << 7))))) countOthers(x, base, single);
  }
  countExponents(x, count & 31, single);
}

// Those of 32 patterns that have no rank.
function countOthers(x: usize, base: u32, single: usize): void {
  for (let i: usize = 0; i < 64; i += 2) {
    const rank = (((<u32>load<u16>(x + i)) >> 7) - base) & 0xff;
    if (rank >= OTHER) countOne(x + i, single);
  }
}

// @ts-ignore: decorator
@inline
function addRank(base: u32, rank: u32, count: u32, single: usize): void {
  const at = single + (((base + rank) & 0xff) << 2);
  if (rank != OTHER) store<u32>(at, load<u32>(at) + count);
}

/** Adds what `countQuads` has counted to `single`, and clears it. */
export function foldQuads(base: u32, quads: usize, single: usize): void {
  // Sums by the first rank of a quad; the other ranks' follow from the sums of 16 neighbours.
  let s0 = i32x4.splat(0), s1 = i32x4.splat(0), s2 = i32x4.splat(0), s3 = i32x4.splat(0);
  let at = quads;
  for (let fourth: u32 = 0; fourth < 16; fourth++) {
    let byFourth: u32 = 0;
    for (let third: u32 = 0; third < 16; third++) {
      let byThird: u32 = 0;
      for (let second: u32 = 0; second < 16; second++) {
        const a = v128.load(at), b = v128.load(at, 16), c = v128.load(at, 32), d = v128.load(at, 48);
        at += 64;
        s0 = i32x4.add(s0, a);
        s1 = i32x4.add(s1, b);
        s2 = i32x4.add(s2, c);
        s3 = i32x4.add(s3, d);
        const sum = i32x4.add(i32x4.add(a, b), i32x4.add(c, d));
        const halves = i64x2.extract_lane(i32x4.add(sum, v128.shuffle<i32>(sum, sum, 2, 3, 0, 1)), 0);
        const bySecond = <u32>halves + <u32>(halves >> 32);
        addRank(base, second, bySecond, single);
        byThird += bySecond;
      }
      addRank(base, third, byThird, single);
      byFourth += byThird;
    }
    addRank(base, fourth, byFourth, single);
  }
  clearQuads(quads);
  // The first entries hold the sums for a moment.
  v128.store(quads, s0);
  v128.store(quads, s1, 16);
  v128.store(quads, s2, 32);
  v128.store(quads, s3, 48);
  for (let first: u32 = 0; first < 16; first++) {
    addRank(base, first, load<u32>(quads + (first << 2)), single);
    store<u32>(quads + (first << 2), 0);
  }
}
