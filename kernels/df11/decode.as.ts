// Decoding: each block on a chain of look-ups, four chains at once. AssemblyScript, not TypeScript.
import { CHAIN, ROUND_BITS_SHIFT, ROUND_BYTES_SHIFT, runChains, SPARE, SPARE_BYTES } from "./chains.as";
import { BITS_SHIFT, COUNT_SHIFT, loadMarked, LONG, lookUp } from "./look-ups.as";
import { turn } from "./merge.as";
import { decodeSlow, loadBits } from "./rows.as";

/** Look-ups a refill: 55 of the 57 bits that are there. */
const LOOK_UPS: i32 = 5;
/** Bytes of a job: i32 at, endBit, out, count, and where its codes ended. */
const JOB: usize = 20;
const ENDED: usize = 16;

/**
 * Decodes the exponents of one block, from bit `at` of the turned stream, `count` of them, to `out`.
 *
 * Never reads past `endBit` + 64 bits: the caller pads the stream.
 * @returns the bit after the last code, or -1 when a code does not resolve or the block runs past `endBit`.
 */
function decodeBlock(stream: usize, at: i32, endBit: i32, luts: usize, rows: i32, table: usize, out: usize, count: i32): i32 {
  const end = out + count;
  while (out < end) {
    if (at >= endBit) return -1;
    if (out + 8 <= end) {
      let bits = loadMarked(stream, at);
      let entry: u64 = 0;
      for (let k = 0; k < LOOK_UPS; k++) {
        entry = lookUp(table, bits);
        store<u64>(out, entry);
        out += <usize>(entry >> COUNT_SHIFT);
        bits >>= entry >> BITS_SHIFT;
        if (out + 8 > end) break;
      }
      at += <i32>clz(bits);
      if ((entry & LONG) == 0) continue;
      if (at >= endBit) return -1;
    }
    const found = decodeSlow(loadBits(stream, at), luts, rows);
    if (found >> 8 == 0) return -1;
    if (out >= end) break;
    store<u8>(out, <u8>turn(found));
    out++;
    at += found >> 8;
  }
  return at;
}

// Rounds that a block can take whatever its bits are: it has the room and the stream for them.
// @ts-ignore: decorator
@inline
function roundsFor(bits: i32, room: i32): i32 {
  return min<i32>(room >> ROUND_BYTES_SHIFT, bits >> ROUND_BITS_SHIFT);
}

/** Ends jobs from `job` on that have no round in them. Returns the first one that has, or `last`. */
function endShort(stream: usize, luts: usize, rows: i32, table: usize, job: usize, last: usize): usize {
  for (; job < last && roundsFor(load<i32>(job, 4) - load<i32>(job), load<i32>(job, 12)) <= 0; job += JOB)
    store<i32>(job, decodeBlock(stream, load<i32>(job), load<i32>(job, 4), luts, rows, table, load<u32>(job, 8), load<i32>(job, 12)), ENDED);
  return job;
}

// Ends the job of a chain that has no round left.
function endJob(stream: usize, luts: usize, rows: i32, table: usize, chain: usize): void {
  const out = <usize>load<u32>(chain, 4);
  const end = decodeBlock(stream, load<i32>(chain), load<i32>(chain, 8), luts, rows, table, out, <i32>(load<u32>(chain, 12) - out));
  store<i32>(<usize>load<u32>(chain, 16), end, ENDED);
}

// Chains whose next code is a long one take it by the rows. One that cannot is at its end, or damaged, and has no round left then.
function takeLong(stream: usize, luts: usize, rows: i32, table: usize, chains: usize): void {
  for (let chain = chains; chain < chains + SPARE; chain += CHAIN) {
    const at = load<i32>(chain);
    if ((lookUp(table, loadMarked(stream, at)) & LONG) == 0) continue;
    const out = <usize>load<u32>(chain, 4);
    const found = decodeSlow(loadBits(stream, at), luts, rows);
    if (found >> 8 == 0 || out >= <usize>load<u32>(chain, 12) || at >= load<i32>(chain, 8)) store<i32>(chain, at, 8);
    else {
      store<u8>(out, <u8>turn(found));
      store<i32>(chain, at + (found >> 8));
      store<u32>(chain, <u32>out + 1, 4);
    }
  }
}

/**
 * Decodes the exponents of `count` blocks of a turned stream, four blocks at a time, whose chains of look-ups overlap. A chain that has no more blocks
 * repeats the beginning of one, so that the others keep their pace.
 *
 * `jobs`: a record of five i32 for each block: where it starts (a bit of the stream), the bit behind it, where its turned exponents go, how many there
 * are; the fifth receives the bit after the last code, or -1 when a code does not resolve or the block runs past its end. The caller pads the stream by 8
 * bytes. `scratch`: 4 KiB.
 */
export function decodeBlocks(stream: usize, luts: usize, rows: i32, table: usize, scratch: usize, jobs: usize, count: i32): void {
  const last = jobs + <usize>count * JOB;
  const spare = scratch + SPARE;
  let next = endShort(stream, luts, rows, table, jobs, last);
  if (next == last) return;
  let begun = next;
  let open = 0;
  memory.fill(scratch, 0, SPARE);
  for (;;) {
    let rounds = i32.MAX_VALUE;
    for (let chain = scratch; chain < spare; chain += CHAIN) {
      let left = roundsFor(load<i32>(chain, 8) - load<i32>(chain), <i32>(load<u32>(chain, 12) - load<u32>(chain, 4)));
      if (left <= 0) {
        if (load<u32>(chain, 16) != 0) {
          endJob(stream, luts, rows, table, chain);
          open--;
        }
        next = endShort(stream, luts, rows, table, next, last);
        const isNew = next < last;
        if (isNew) {
          begun = next;
          next += JOB;
          open++;
        }
        const room = load<i32>(begun, 12);
        const out = isNew ? load<u32>(begun, 8) : <u32>spare;
        store<i32>(chain, load<i32>(begun));
        store<u32>(chain, out, 4);
        store<i32>(chain, load<i32>(begun, 4), 8);
        store<u32>(chain, out + (isNew ? room : min<i32>(room, SPARE_BYTES)), 12);
        store<u32>(chain, isNew ? <u32>begun : 0, 16);
        left = roundsFor(load<i32>(chain, 8) - load<i32>(chain), <i32>(load<u32>(chain, 12) - out));
      }
      rounds = min<i32>(rounds, left);
    }
    if (open == 0) return;
    for (;;) {
      rounds = runChains(stream, table, scratch, rounds);
      if (rounds <= 0) break;
      takeLong(stream, luts, rows, table, scratch);
      // The round that met it, and the code.
      rounds -= 2;
      if (rounds <= 0) break;
    }
  }
}
