/**
 * Orders of channels for blocks that share a scale: which channels lie together.
 *
 * Notation: x_tc = channel c of token t (a key, or the input of a linear layer), w_c = how much an error of channel c weighs (the mean
 * square of the queries, or of the weights, that meet it), B = a block, s_B(t) = 2^floor(log2 max over c in B of |x_tc|), its step up to a
 * constant. With rounding errors spread evenly over a step the expected squared error of a score is, up to a constant,
 *
 *   Σ_B E_t[s_B(t)²] · Σ_{c in B} w_c
 *
 * An error cannot be larger than the value itself, so channels far below the step of their block cost x_tc² instead; the search
 * weighs each channel by its rounding error at the block's step (`ErrorTable`). Which block a channel is in is all that matters, so the search exchanges channels between blocks
 * until no exchange helps, from several starts, and keeps the best.
 * @module
 */
import { createRandom, shuffled } from "../../../core/random.ts";
import { roundHalfEven } from "../../../core/round.ts";

/** What the search knows of one group of channels that may be ordered among themselves: one head, or all inputs of a linear layer. */
export interface ChannelSample {
  readonly channels: number;
  /** Tokens × channels, row-major. */
  readonly values: Float32Array;
  /** Weight of an error in each channel, ≥ 0. */
  readonly weights: Float64Array;
}

/** How numbers of a block are rounded, as far as an order is concerned. */
export interface BlockRule {
  /** Channels a block. */
  readonly block: number;
  /** Bits of a mantissa, sign included: a step is 2^(exponent of the largest − (mantissaBits − 2)). */
  readonly mantissaBits: number;
}

/** Random starts beside the sorted ones. */
const RANDOM_STARTS = 1;
/** Sweeps over all exchanges at most; each one lowers the error, so this bounds time, not quality. */
const MAX_SWEEPS = 24;
/** Exponents below the largest of all that are told apart; what lies lower never sets a step that matters. */
const LEVELS = 16;

/**
 * The order that `order=score` asks for.
 *
 * Deterministic: the same sample gives the same order.
 *
 * @returns a permutation: position i holds channel `order[i]`.
 */
export function searchOrder(sample: ChannelSample, rule: BlockRule): Int32Array {
  const { channels } = sample;
  const identity = Int32Array.from({ length: channels }, (_, c) => c);
  if (rule.block >= channels) return identity;
  const table = createErrorTable(sample, rule);
  const random = createRandom(0x6b736f72);
  const magnitude = rootMeanSquare(sample);
  const starts = [
    identity,
    sortedBy(magnitude),
    sortedBy(magnitude.map((m, c) => m / Math.sqrt(sample.weights[c]! + Number.MIN_VALUE))),
    ...Array.from({ length: RANDOM_STARTS }, () => Int32Array.from(shuffled([...identity], random))),
  ];
  let best: Int32Array = identity;
  let least = Infinity;
  for (const start of starts) {
    const search = new Exchange(table, rule.block, start);
    search.run();
    if (search.cost < least) [best, least] = [search.order(), search.cost];
  }
  return best;
}

/** Expected squared error of an order, in the search's own unit. */
export function orderCost(sample: ChannelSample, rule: BlockRule, order: Int32Array): number {
  return new Exchange(createErrorTable(sample, rule), rule.block, order).cost;
}

/** Channels by falling key; equal keys keep their order. */
export function sortedBy(keys: ArrayLike<number>): Int32Array {
  return Int32Array.from(keys, (_, c) => c).toSorted((a, b) => keys[b]! - keys[a]! || a - b);
}

function rootMeanSquare({ channels, values }: ChannelSample): Float64Array {
  const sums = new Float64Array(channels);
  for (let i = 0; i < values.length; i++) sums[i % channels]! += values[i]! * values[i]!;
  return sums.map((sum) => Math.sqrt(sum));
}

/** For every channel and token: its own level, and its weighted squared error at each level of the block's step. */
interface ErrorTable {
  readonly channels: number;
  readonly tokens: number;
  /** Level of |x_tc|, [channels × tokens], 0 … LEVELS − 1. */
  readonly level: Uint8Array;
  /** w_c · (error of x_tc at a step of level l)², [channels × tokens × LEVELS]; levels below the channel's own are never read. */
  readonly error: Float32Array;
}

function createErrorTable({ channels, values, weights }: ChannelSample, { mantissaBits }: BlockRule): ErrorTable {
  const tokens = values.length / channels;
  const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const top = largest === 0 ? 0 : exponentOf(largest);
  const base = top - LEVELS + 1;
  const limit = 2 ** (mantissaBits - 1) - 1;
  const steps = Float64Array.from({ length: LEVELS }, (_, l) => 2 ** (base + l - (mantissaBits - 2)));
  const level = new Uint8Array(channels * tokens);
  const error = new Float32Array(channels * tokens * LEVELS);
  for (let t = 0; t < tokens; t++) {
    for (let c = 0; c < channels; c++) {
      const x = Math.abs(values[t * channels + c]!);
      const at = c * tokens + t;
      const own = x === 0 ? 0 : Math.max(0, exponentOf(x) - base);
      level[at] = own;
      for (let l = own; l < LEVELS; l++) {
        const step = steps[l]!;
        const difference = x - Math.min(limit, roundHalfEven(x / step)) * step;
        error[at * LEVELS + l] = weights[c]! * difference * difference;
      }
    }
  }
  return { channels, tokens, level, error };
}

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** floor(log2 x) of a positive f32; -127 for subnormals. */
function exponentOf(x: number): number {
  f32[0] = x;
  return ((u32[0]! >>> 23) & 0xff) - 127;
}

/** Channels in blocks, exchanged while that lowers the error. */
class Exchange {
  cost: number;
  readonly #table: ErrorTable;
  readonly #size: number;
  readonly #blocks: number;
  readonly #order: Int32Array;
  /** By block and token: the two largest levels, and the error at every level. */
  readonly #first: Uint8Array;
  readonly #second: Uint8Array;
  readonly #sums: Float64Array;

  constructor(table: ErrorTable, size: number, order: Int32Array) {
    const { channels, tokens } = table;
    this.#table = table;
    this.#size = size;
    this.#order = order.slice();
    this.#blocks = Math.ceil(channels / size);
    this.#first = new Uint8Array(this.#blocks * tokens);
    this.#second = new Uint8Array(this.#blocks * tokens);
    this.#sums = new Float64Array(this.#blocks * tokens * LEVELS);
    for (let b = 0; b < this.#blocks; b++) this.#fill(b);
    this.cost = this.#total();
  }

  order(): Int32Array {
    return this.#order.slice();
  }

  /** Exchange until no exchange helps. */
  run(): void {
    const { channels } = this.#table;
    for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
      let improved = false;
      for (let i = 0; i < channels; i++) {
        let best = -1;
        let gain = 1e-9 * this.cost;
        for (let j = (Math.floor(i / this.#size) + 1) * this.#size; j < channels; j++) {
          const saved = this.#saving(i, j);
          if (saved > gain) [best, gain] = [j, saved];
        }
        if (best < 0) continue;
        [this.#order[i], this.#order[best]] = [this.#order[best]!, this.#order[i]!];
        this.#fill(Math.floor(i / this.#size));
        this.#fill(Math.floor(best / this.#size));
        this.cost -= gain;
        improved = true;
      }
      if (!improved) break;
    }
    this.cost = this.#total();
  }

  /** What exchanging positions i and j, in different blocks, takes from the error. */
  #saving(i: number, j: number): number {
    const { tokens, level, error } = this.#table;
    const largest = this.#first;
    const runnerUp = this.#second;
    const sums = this.#sums;
    const a = Math.floor(i / this.#size) * tokens;
    const b = Math.floor(j / this.#size) * tokens;
    const c = this.#order[i]! * tokens;
    const d = this.#order[j]! * tokens;
    let saved = 0;
    for (let t = 0; t < tokens; t++) {
      const topA = largest[a + t]!;
      const topB = largest[b + t]!;
      const mine = level[c + t]!;
      const other = level[d + t]!;
      const restA = mine === topA ? runnerUp[a + t]! : topA;
      const restB = other === topB ? runnerUp[b + t]! : topB;
      const newA = other > restA ? other : restA;
      const newB = mine > restB ? mine : restB;
      const atA = (a + t) * LEVELS;
      const atB = (b + t) * LEVELS;
      const atC = (c + t) * LEVELS;
      const atD = (d + t) * LEVELS;
      saved +=
        sums[atA + topA]! -
        sums[atA + newA]! +
        sums[atB + topB]! -
        sums[atB + newB]! +
        error[atC + newA]! -
        error[atD + newA]! +
        error[atD + newB]! -
        error[atC + newB]!;
    }
    return saved;
  }

  #fill(block: number): void {
    const { channels, tokens, level, error } = this.#table;
    const members = this.#order.subarray(block * this.#size, Math.min(channels, (block + 1) * this.#size));
    for (let t = 0; t < tokens; t++) {
      let first = 0;
      let second = 0;
      const at = (block * tokens + t) * LEVELS;
      this.#sums.fill(0, at, at + LEVELS);
      for (const c of members) {
        const own = level[c * tokens + t]!;
        if (own > first) {
          second = first;
          first = own;
        } else if (own > second) second = own;
        const from = (c * tokens + t) * LEVELS;
        for (let l = own; l < LEVELS; l++) this.#sums[at + l]! += error[from + l]!;
      }
      this.#first[block * tokens + t] = first;
      this.#second[block * tokens + t] = second;
    }
  }

  #total(): number {
    const { tokens } = this.#table;
    let total = 0;
    for (let i = 0; i < this.#blocks * tokens; i++) total += this.#sums[i * LEVELS + this.#first[i]!]!;
    return total;
  }
}
