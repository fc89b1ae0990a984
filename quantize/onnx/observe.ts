/**
 * Calibration on ONNX graphs: values of the main graph tapped while samples run, folded into extrema and histograms of fixed size.
 * @module
 */
import { histogram as histogramStatistic } from "../../calibrate/statistics/histogram.ts";
import { NumericError, throwIfAborted } from "../../core/errors.ts";
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import type { Engine, HostTensor } from "../../model/engines/engine.ts";
import { onnxToModel } from "../../model/sources/onnx.ts";
import { floatsOf } from "../../model/host-tensor.ts";
import { OnnxEdits } from "./edits.ts";
import { int64s, makeNode } from "./nodes.ts";
import type { ProgressEvent } from "../types.ts";
import type { OnnxSamples } from "./samples.ts";
import type { SeenValue } from "./ranges.ts";

/** A value to look at. */
export interface OnnxTap {
  readonly value: string;
  /** Length of the last axis, whose channels are told apart; absent: one range for all. */
  readonly channels?: number;
  readonly histogram: boolean;
}

/** What was seen. */
export interface Observed extends SeenValue {
  /** By channel, when the tap asks for them. */
  readonly channels?: { readonly min: Float32Array; readonly max: Float32Array };
}

export interface ObserveOptions {
  readonly engine: Engine;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

/**
 * Run every sample once. Extrema are taken inside the engine, so that only a few numbers leave it; histograms need the values.
 *
 * @throws {NumericError} `numeric.not-finite` naming the first value with NaN or infinity.
 * @throws {InputError} what the inputs and values that are no F32 are refused for.
 */
export async function observeOnnx(
  model: OnnxModel,
  samples: OnnxSamples,
  taps: readonly OnnxTap[],
  { engine, signal, onProgress }: ObserveOptions,
): Promise<ReadonlyMap<string, Observed>> {
  if (taps.length === 0) return new Map();
  const { model: tapped, parts } = reduceTaps(model, taps);
  const folds = taps.map((tap, i) => ({ tap, names: parts[i]!, fold: new Fold(tap) }));
  const outputs = folds.flatMap(({ tap, names }) => [names.min, names.max, names.sum, ...(tap.histogram ? [tap.value] : [])]);
  const compiled = await engine.compile(onnxToModel(tapped).blocks[0]!.graph, { outputs });
  try {
    let done = 0;
    for await (const { inputs, samples: count } of samples.runs()) {
      throwIfAborted(signal);
      const values = await compiled.run(inputs);
      for (const { tap, names, fold } of folds) {
        fold.update(values[names.min]!, values[names.max]!, values[names.sum]!, tap.histogram ? values[tap.value] : undefined);
      }
      done += count;
      onProgress?.({ phase: "calibrate", done, total: Math.max(done, samples.length), unit: "blocks", detail: "samples" });
    }
  } finally {
    await compiled.release();
  }
  return new Map(folds.map(({ tap, fold }) => [tap.value, fold.finish()]));
}

interface TapParts {
  readonly min: string;
  readonly max: string;
  /** Of all values: NaN or infinite when one of them is. */
  readonly sum: string;
}

/** First opset whose ReduceMin and ReduceMax take their axes as an input. */
const AXES_INPUT_OPSET = 18;

/** The model with the reductions of each tap, and their names. */
function reduceTaps(model: OnnxModel, taps: readonly OnnxTap[]): { readonly model: OnnxModel; readonly parts: readonly TapParts[] } {
  const edits = new OnnxEdits(model);
  const producers = new Map(model.graph.nodes.flatMap(({ outputs }, i) => outputs.map((name) => [name, i] as const)));
  const opset = model.opsets.get("") ?? 1;
  const first = opset >= AXES_INPUT_OPSET ? edits.constant("", "tap_axes", int64s([0])) : undefined;
  const parts = taps.map(({ value, channels }): TapParts => {
    const name = (part: string): string => edits.fresh(`${value}_${part}`);
    const [rows, min, max, sum] = [name("rows"), name("min"), name("max"), name("sum")];
    const shape = edits.constant("", `${value}_tap`, int64s(channels === undefined ? [-1] : [-1, channels]));
    const reduce = (op: string, output: string): OnnxNode =>
      first === undefined
        ? makeNode(op, [rows], [output], { axes: [0], keepdims: 0 })
        : makeNode(op, [rows, first], [output], { keepdims: 0 });
    const nodes = [
      makeNode("Reshape", [value, shape], [rows]),
      reduce("ReduceMin", min),
      reduce("ReduceMax", max),
      // Without axes: over everything, in every opset.
      makeNode("ReduceSum", [rows], [sum], { keepdims: 0 }),
    ];
    const producer = producers.get(value);
    if (producer === undefined) edits.before("", 0, nodes);
    else edits.after("", producer, nodes);
    return { min, max, sum };
  });
  return { model: edits.apply(), parts };
}

/** Extrema and histogram of one value. */
class Fold {
  readonly #tap: OnnxTap;
  readonly #min: Float32Array;
  readonly #max: Float32Array;
  #histogram: Float64Array | undefined;

  constructor(tap: OnnxTap) {
    this.#tap = tap;
    this.#min = new Float32Array(tap.channels ?? 1).fill(Infinity);
    this.#max = new Float32Array(tap.channels ?? 1).fill(-Infinity);
    if (tap.histogram) this.#histogram = histogramStatistic.create(0);
  }

  update(min: HostTensor, max: HostTensor, sum: HostTensor, values: HostTensor | undefined): void {
    const { value } = this.#tap;
    const [low, high] = [floatsOf(min, `value ${value}`), floatsOf(max, `value ${value}`)];
    if (!Number.isFinite(floatsOf(sum, value)[0])) {
      throw new NumericError("numeric.not-finite", `value ${value} is NaN or infinite on the calibration data`, { value });
    }
    for (let c = 0; c < this.#min.length; c++) {
      if (low[c]! < this.#min[c]!) this.#min[c] = low[c]!;
      if (high[c]! > this.#max[c]!) this.#max[c] = high[c]!;
    }
    if (this.#histogram !== undefined && values !== undefined) this.#histogram = histogramStatistic.update(this.#histogram, [values], 1);
  }

  finish(): Observed {
    const min = this.#min.reduce((least, value) => Math.min(least, value), Infinity);
    const max = this.#max.reduce((most, value) => Math.max(most, value), -Infinity);
    const isSeen = min !== Infinity;
    return {
      min: isSeen ? min : 0,
      max: isSeen ? max : 0,
      ...(this.#histogram && { histogram: this.#histogram }),
      ...(this.#tap.channels !== undefined && isSeen && { channels: { min: this.#min, max: this.#max } }),
    };
  }
}
