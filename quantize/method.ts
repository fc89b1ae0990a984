/**
 * What transforms and methods are. Both know nothing of files: a transform
 * chooses factors for foldable pairs, a method turns a weight and a scheme into
 * codes. Work is done in two phases:
 *
 * - *decide*: block by block, with statistics and (where a method wants it) the block itself to run; yields small data (`decisions.ts`).
 * - *write*: tensors stream through the worker pool with the folds applied on the way; nothing is decided any more.
 * @module
 */
import type { Matrix } from "../core/tensor.ts";
import type { QuantizedTensor } from "../core/quantized.ts";
import type { QuantScheme } from "../core/scheme.ts";
import type { FoldPair } from "../model/graph/pairs.ts";
import type { Block, LinearSite } from "../model/model.ts";
import type { Arithmetic, Settings } from "./settings.ts";
import type { DType } from "../core/dtype.ts";

/** Factors chosen for one pair: the producer is divided by them, the consumers multiplied. */
export interface PairFactors {
  readonly pair: FoldPair;
  /** One a channel of the pair's value, all > 0. Computed from the data, before the producer's dtype rounds them. */
  readonly scales: Float32Array;
  /** For the report, e.g. "alpha 0.5". */
  readonly note: string;
}

/** What a transform sees of a block. */
export interface TransformContext {
  readonly block: Block;
  /** Pairs whose fold is exact and allowed by the recipe, in graph order. */
  readonly pairs: readonly FoldPair[];
  readonly settings: Settings;
  /** Largest magnitude of each channel of a site's input over the calibration tokens, length cols. */
  absmax(site: LinearSite): Float32Array;
  /** A weight slot as f32, as stored; do not write to it. */
  weight(slot: string): Promise<Float32Array>;
  /**
   * Error of the block's output on calibration data, with the given pairs folded and their consumers quantized (weights and activations),
   * relative to the float block. There when `search` of the transform asked for it.
   */
  readonly score?: (factors: readonly PairFactors[]) => Promise<number>;
}

/** Rewrites weights into equivalent ones that are easier to quantize. */
export interface Transform {
  readonly name: string;
  readonly summary: string;
  /** Paper or specification, with section. */
  readonly source: string;
  /** Statistics it reads from a calibration; none = data-free. */
  needs(settings: Settings): readonly string[];
  /** Whether it wants `score`: the block is then run on the calibration data. */
  search(settings: Settings): boolean;
  /** Pure but for `score`: same data, same factors. */
  decide(context: TransformContext): Promise<readonly PairFactors[]>;
}

/** Chooses codes for weights. */
export interface Method {
  readonly name: string;
  readonly summary: string;
  readonly source: string;
  /** `--bits` when none are given. */
  readonly defaultBits: string;
  /** A method that is a number format by name: what its `--bits` begin with. */
  readonly family?: string;
  /** Statistics it reads from a calibration; none = data-free, and no engine is started for it. */
  needs(settings: Settings): readonly string[];
  /**
   * Codes for one weight. This is the definition; where `streams` is set, the worker pool writes the same bytes without holding the tensor.
   *
   * @param weight - finite values, folds applied.
   * @param stored - dtype that scales will be stored in: codes are taken with the scale as it reads back.
   */
  quantize(weight: Matrix, scheme: QuantScheme, arithmetic: Arithmetic, stored: DType): QuantizedTensor;
  /** Name of the streaming task that writes the same bytes. */
  readonly streams: "quantize";
}
