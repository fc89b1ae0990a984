// Four chains of look-ups at once. AssemblyScript, not TypeScript.
import { BITS_SHIFT, COUNT_SHIFT, loadMarked, LONG, lookUp } from "./look-ups.as";

/** Powers of two that a refill's bits, and the bytes it writes, do not exceed: 55, and 4 · 6 + 8 since the last entry is stored whole. */
export const ROUND_BITS_SHIFT: i32 = 6;
export const ROUND_BYTES_SHIFT: i32 = 5;
/** Chains of look-ups at once, and bytes of one: i32 at, out, endBit, end of out, the job or 0. */
const CHAINS: usize = 4;
export const CHAIN: usize = 20;
/** Bytes behind the chains, for what nobody reads. */
export const SPARE: usize = CHAINS * CHAIN;
export const SPARE_BYTES: u32 = 4000;

/**
 * Rounds of five look-ups on each chain, at most `rounds` of them, until one chain's next code is longer than a look-up sees.
 *
 * Look-ups are written out, two chains at a time, and nothing else is in this function: what it keeps must fit into registers.
 * @returns rounds left; 0 when they are done.
 */
export function runChains(stream: usize, table: usize, chains: usize, rounds: i32): i32 {
  let atA = load<i32>(chains, 0), outA = <usize>load<u32>(chains, 4);
  let atB = load<i32>(chains, 20), outB = <usize>load<u32>(chains, 24);
  let atC = load<i32>(chains, 40), outC = <usize>load<u32>(chains, 44);
  let atD = load<i32>(chains, 60), outD = <usize>load<u32>(chains, 64);
  for (; rounds > 0; rounds--) {
    let bitsA = loadMarked(stream, atA);
    let bitsB = loadMarked(stream, atB);
    let a = lookUp(table, bitsA);
    store<u64>(outA, a);
    outA += <usize>(a >> COUNT_SHIFT);
    bitsA >>= a >> BITS_SHIFT;
    let b = lookUp(table, bitsB);
    store<u64>(outB, b);
    outB += <usize>(b >> COUNT_SHIFT);
    bitsB >>= b >> BITS_SHIFT;

    a = lookUp(table, bitsA);
    store<u64>(outA, a);
    outA += <usize>(a >> COUNT_SHIFT);
    bitsA >>= a >> BITS_SHIFT;
    b = lookUp(table, bitsB);
    store<u64>(outB, b);
    outB += <usize>(b >> COUNT_SHIFT);
    bitsB >>= b >> BITS_SHIFT;

    a = lookUp(table, bitsA);
    store<u64>(outA, a);
    outA += <usize>(a >> COUNT_SHIFT);
    bitsA >>= a >> BITS_SHIFT;
    b = lookUp(table, bitsB);
    store<u64>(outB, b);
    outB += <usize>(b >> COUNT_SHIFT);
    bitsB >>= b >> BITS_SHIFT;

    a = lookUp(table, bitsA);
    store<u64>(outA, a);
    outA += <usize>(a >> COUNT_SHIFT);
    bitsA >>= a >> BITS_SHIFT;
    b = lookUp(table, bitsB);
    store<u64>(outB, b);
    outB += <usize>(b >> COUNT_SHIFT);
    bitsB >>= b >> BITS_SHIFT;

    a = lookUp(table, bitsA);
    store<u64>(outA, a);
    outA += <usize>(a >> COUNT_SHIFT);
    bitsA >>= a >> BITS_SHIFT;
    b = lookUp(table, bitsB);
    store<u64>(outB, b);
    outB += <usize>(b >> COUNT_SHIFT);
    bitsB >>= b >> BITS_SHIFT;

    atA += <i32>clz(bitsA);
    atB += <i32>clz(bitsB);

    let bitsC = loadMarked(stream, atC);
    let bitsD = loadMarked(stream, atD);
    let c = lookUp(table, bitsC);
    store<u64>(outC, c);
    outC += <usize>(c >> COUNT_SHIFT);
    bitsC >>= c >> BITS_SHIFT;
    let d = lookUp(table, bitsD);
    store<u64>(outD, d);
    outD += <usize>(d >> COUNT_SHIFT);
    bitsD >>= d >> BITS_SHIFT;

    c = lookUp(table, bitsC);
    store<u64>(outC, c);
    outC += <usize>(c >> COUNT_SHIFT);
    bitsC >>= c >> BITS_SHIFT;
    d = lookUp(table, bitsD);
    store<u64>(outD, d);
    outD += <usize>(d >> COUNT_SHIFT);
    bitsD >>= d >> BITS_SHIFT;

    c = lookUp(table, bitsC);
    store<u64>(outC, c);
    outC += <usize>(c >> COUNT_SHIFT);
    bitsC >>= c >> BITS_SHIFT;
    d = lookUp(table, bitsD);
    store<u64>(outD, d);
    outD += <usize>(d >> COUNT_SHIFT);
    bitsD >>= d >> BITS_SHIFT;

    c = lookUp(table, bitsC);
    store<u64>(outC, c);
    outC += <usize>(c >> COUNT_SHIFT);
    bitsC >>= c >> BITS_SHIFT;
    d = lookUp(table, bitsD);
    store<u64>(outD, d);
    outD += <usize>(d >> COUNT_SHIFT);
    bitsD >>= d >> BITS_SHIFT;

    c = lookUp(table, bitsC);
    store<u64>(outC, c);
    outC += <usize>(c >> COUNT_SHIFT);
    bitsC >>= c >> BITS_SHIFT;
    d = lookUp(table, bitsD);
    store<u64>(outD, d);
    outD += <usize>(d >> COUNT_SHIFT);
    bitsD >>= d >> BITS_SHIFT;

    atC += <i32>clz(bitsC);
    atD += <i32>clz(bitsD);
    if (((a | b | c | d) & LONG) != 0) break;
  }
  store<i32>(chains, atA, 0);
  store<u32>(chains, <u32>outA, 4);
  store<i32>(chains, atB, 20);
  store<u32>(chains, <u32>outB, 24);
  store<i32>(chains, atC, 40);
  store<u32>(chains, <u32>outC, 44);
  store<i32>(chains, atD, 60);
  store<u32>(chains, <u32>outD, 64);
  return rounds;
}
