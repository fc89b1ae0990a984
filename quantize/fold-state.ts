/**
 * Folds chosen so far: factors by tensor, and small tensors with their new values.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { roundHalfEven } from "../core/round.ts";
import { fromFloat32, toFloat32, type Tensor } from "../core/tensor.ts";
import type { FoldPair } from "../model/graph/pairs.ts";
import type { Block, LinearSite } from "../model/model.ts";
import type { PairDecision, WeightFold } from "./decisions.ts";
import type { PairFactors } from "./method.ts";
import { foldBias, foldProducer } from "./transforms/smoothquant/scales.ts";

/** Folds of one or more blocks. `fork` tries one out without touching the original. */
export class FoldState {
  readonly pairs: PairDecision[] = [];
  readonly folds = new Map<string, WeightFold>();
  readonly replaced = new Map<string, Tensor>();
  /** What each site's input was divided by, by site name. */
  readonly inputFactors = new Map<string, Float32Array>();
  readonly #widened: ReadonlySet<string>;

  /** @param widened - tensors that become F32 when a fold changes them. */
  constructor(widened: ReadonlySet<string> = new Set()) {
    this.#widened = widened;
  }

  /** A copy that shares no map with this one. */
  fork(): FoldState {
    const copy = new FoldState(this.#widened);
    copy.pairs.push(...this.pairs);
    for (const [name, fold] of this.folds) copy.folds.set(name, fold);
    for (const [name, tensor] of this.replaced) copy.replaced.set(name, tensor);
    for (const [name, factors] of this.inputFactors) copy.inputFactors.set(name, factors);
    return copy;
  }

  /**
   * Fold a pair: divide the producer, multiply the consumers' columns by what the producer's dtype really took.
   *
   * @throws {InputError} `input.value` when the block lacks a tensor the pair names.
   */
  async apply(block: Block, { pair, scales, note }: PairFactors): Promise<void> {
    const { bias } = pair.producer;
    // Rounding a bias to its dtype cannot be made up for behind the fold, but a power of two rounds nothing.
    const isRounded = bias !== undefined && (await this.#current(block, bias)).dtype !== "F32";
    const wanted = isRounded ? scales.map(nearestPowerOfTwo) : scales;
    const effective = pair.kind === "norm" ? await this.#divideNorm(block, pair, wanted) : await this.#divideRows(block, pair, wanted);
    const cols = expandChannels(pair, effective);
    for (const site of pair.consumers) {
      this.#multiply(tensorName(block, site.weight), { cols });
      this.inputFactors.set(site.name, product(this.inputFactors.get(site.name), cols));
    }
    this.pairs.push({ name: `${block.name}.${pair.name}`, note, scales });
  }

  /** Stored values of a slot with the folds so far, as f32. @param site - for a linear's weight, whose axes matter. */
  weightOf(block: Block, slot: string, stored: Float32Array, site?: LinearSite): Float32Array {
    const name = tensorName(block, slot);
    const replaced = this.replaced.get(name);
    if (replaced !== undefined) return toFloat32(replaced);
    const fold = this.folds.get(name);
    return fold === undefined || site === undefined ? stored : foldWeight(stored, fold, site);
  }

  async #divideNorm(block: Block, { producer }: PairFactors["pair"], scales: Float32Array): Promise<Float32Array> {
    const weight = await this.#current(block, producer.weight);
    const folded = foldProducer({ values: toFloat32(weight), dtype: weight.dtype, offset: producer.offset }, scales);
    this.replaced.set(tensorName(block, producer.weight), fromFloat32(folded.values, weight.shape, weight.dtype));
    await this.#divideBias(block, producer.bias, folded.scales);
    return folded.scales;
  }

  /** Rows of a linear take the factors in f32 before its codes are chosen, so nothing is lost to a dtype. */
  async #divideRows(block: Block, { producer }: PairFactors["pair"], scales: Float32Array): Promise<Float32Array> {
    this.#multiply(tensorName(block, producer.weight), { rows: Float32Array.from(scales, (s) => 1 / s) });
    await this.#divideBias(block, producer.bias, scales);
    return scales;
  }

  async #divideBias(block: Block, slot: string | undefined, scales: Float32Array): Promise<void> {
    if (slot === undefined) return;
    const bias = await this.#current(block, slot);
    this.replaced.set(tensorName(block, slot), fromFloat32(foldBias(toFloat32(bias), bias.dtype, scales), bias.shape, bias.dtype));
  }

  async #current(block: Block, slot: string): Promise<Tensor> {
    const lazy = block.weights.get(slot);
    if (lazy === undefined) throw new InputError("input.value", `block ${block.name} has no tensor for slot "${slot}"`, { slot });
    return this.replaced.get(lazy.name) ?? (this.#widened.has(lazy.name) ? widen(await lazy.read()) : lazy.read());
  }

  #multiply(name: string, { rows, cols }: WeightFold): void {
    const old = this.folds.get(name);
    this.folds.set(name, {
      ...(old?.rows !== undefined || rows !== undefined ? { rows: product(old?.rows, rows) } : {}),
      ...(old?.cols !== undefined || cols !== undefined ? { cols: product(old?.cols, cols) } : {}),
    });
  }
}

/** The same values in F32. */
export function widen(tensor: Tensor): Tensor {
  return fromFloat32(toFloat32(tensor), tensor.shape, "F32");
}

function nearestPowerOfTwo(x: number): number {
  return 2 ** roundHalfEven(Math.log2(x));
}

/** Channel factors → one factor a consumer column: value heads serve several query heads. */
export function expandChannels({ repeat, consumers }: FoldPair, factors: Float32Array): Float32Array {
  if (repeat === undefined) return factors;
  const { group, headSize } = repeat;
  return Float32Array.from(
    { length: consumers[0]!.cols },
    (_, c) => factors[Math.floor(c / (headSize * group)) * headSize + (c % headSize)]!,
  );
}

/** Largest value over the columns that each channel serves: the reverse of `expandChannels` for maxima. */
export function reduceChannels({ repeat, channels }: FoldPair, maxima: Float32Array): Float32Array {
  if (repeat === undefined) return maxima;
  const { group, headSize } = repeat;
  const out = new Float32Array(channels);
  for (const [c, value] of maxima.entries()) {
    const channel = Math.floor(c / (headSize * group)) * headSize + (c % headSize);
    out[channel] = Math.max(out[channel]!, value);
  }
  return out;
}

/** Name in the checkpoint of the tensor behind a slot. */
export function tensorName(block: Block, slot: string): string {
  const lazy = block.weights.get(slot);
  if (lazy === undefined) throw new InputError("input.value", `block ${block.name} has no tensor for slot "${slot}"`, { slot });
  return lazy.name;
}

/** w' = f32(f32(w · cols) · rows), as `kernels/scale-matrix` defines it. @param out - receives it; default: fresh. @returns `out`. */
export function foldWeight(
  weight: Float32Array,
  { rows, cols }: WeightFold,
  site: Pick<LinearSite, "rows" | "cols" | "channelAxis">,
  out: Float32Array = new Float32Array(weight.length),
): Float32Array {
  const [outer, inner] = site.channelAxis === 1 ? [site.cols, site.rows] : [site.rows, site.cols];
  const [byOuter, byInner] = site.channelAxis === 1 ? [cols, rows] : [rows, cols];
  const isColumnOuter = site.channelAxis === 1;
  for (let o = 0; o < outer; o++) {
    const factor = byOuter?.[o] ?? 1;
    const start = o * inner;
    if (byInner === undefined) for (let n = 0; n < inner; n++) out[start + n] = weight[start + n]! * factor;
    else if (isColumnOuter) for (let n = 0; n < inner; n++) out[start + n] = Math.fround(weight[start + n]! * factor) * byInner[n]!;
    else for (let n = 0; n < inner; n++) out[start + n] = Math.fround(weight[start + n]! * byInner[n]!) * factor;
  }
  return out;
}

function product(a: Float32Array | undefined, b: Float32Array | undefined): Float32Array {
  if (a === undefined) return b ?? new Float32Array();
  return b === undefined ? a : a.map((x, i) => x * b[i]!);
}
