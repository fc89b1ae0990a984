/**
 * Calibration on ONNX graphs: values of the main graph tapped while samples run, folded into extrema and histograms of fixed size.
 * @module
 */
import { histogram as histogramStatistic } from "../../calibrate/statistics/histogram.ts";
import { InputError, NumericError, throwIfAborted } from "../../core/errors.ts";
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import type { Engine, HostTensor } from "../../model/engines/engine.ts";
import { onnxToModel } from "../../model/sources/onnx.ts";
import type { ProgressEvent } from "../types.ts";
import type { OnnxSamples } from "./samples.ts";
import type { SeenValue } from "./ranges.ts";

/** A value to look at. */
export interface OnnxTap {
  readonly value: string;
  /** Axis whose channels are told apart, from the front or (negative) the end; absent: one range for all. */
  readonly axis?: number;
  readonly histogram: boolean;
}

/** What was seen. */
export interface Observed extends SeenValue {
  /** By channel, when the tap has an axis and the value had one length there. */
  readonly channels?: { readonly min: Float32Array; readonly max: Float32Array };
}

export interface ObserveOptions {
  readonly engine: Engine;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
  /** File the model still says the same as: engines then need not write it. */
  readonly path?: string;
}

/**
 * Run every sample once.
 *
 * @throws {NumericError} `numeric.not-finite` naming the first value with NaN or infinity.
 * @throws {InputError} `input.dtype` for a tapped value that is not F32; and what the inputs are refused for.
 */
export async function observeOnnx(
  model: OnnxModel,
  samples: OnnxSamples,
  taps: readonly OnnxTap[],
  { engine, signal, onProgress, path }: ObserveOptions,
): Promise<ReadonlyMap<string, Observed>> {
  if (taps.length === 0) return new Map();
  const whole = onnxToModel(model, path);
  const folds = new Map(taps.map((tap) => [tap.value, new Fold(tap)]));
  const compiled = await engine.compile(whole.blocks[0]!.graph, { outputs: [...folds.keys()] });
  try {
    let done = 0;
    for await (const { inputs, samples: count } of samples.runs()) {
      throwIfAborted(signal);
      const values = await compiled.run(inputs);
      for (const [name, fold] of folds) fold.update(values[name]!);
      done += count;
      onProgress?.({ phase: "calibrate", done, total: samples.length, unit: "blocks", detail: "samples" });
    }
  } finally {
    await compiled.release();
  }
  return new Map([...folds].map(([name, fold]) => [name, fold.finish()]));
}

/** Extrema and histogram of one value. */
class Fold {
  readonly #tap: OnnxTap;
  #min = Infinity;
  #max = -Infinity;
  #channelMin: Float32Array | undefined;
  #channelMax: Float32Array | undefined;
  #histogram: Float64Array | undefined;

  constructor(tap: OnnxTap) {
    this.#tap = tap;
    if (tap.histogram) this.#histogram = histogramStatistic.create(0);
  }

  update(tensor: HostTensor): void {
    const { data, shape } = tensor;
    const { value, axis } = this.#tap;
    if (!(data instanceof Float32Array)) {
      throw new InputError("input.dtype", `value ${value} is ${tensor.dtype}; calibration looks at F32 values`, {
        value,
        dtype: tensor.dtype,
      });
    }
    if (axis === undefined || shape.length === 0) this.#overall(data);
    else this.#byChannel(data, shape, axis < 0 ? axis + shape.length : axis);
    if (this.#histogram !== undefined) this.#histogram = histogramStatistic.update(this.#histogram, [tensor], 1);
  }

  #overall(data: Float32Array): void {
    let [min, max, rest] = [this.#min, this.#max, 0];
    for (let i = 0; i < data.length; i++) {
      const x = data[i]!;
      if (x < min) min = x;
      if (x > max) max = x;
      // NaN for NaN and infinities, else 0.
      rest += x - x;
    }
    this.#take(min, max, rest);
  }

  #byChannel(data: Float32Array, shape: readonly number[], axis: number): void {
    const channels = shape[axis]!;
    const inner = shape.slice(axis + 1).reduce((product, size) => product * size, 1);
    this.#channelMin ??= new Float32Array(channels).fill(Infinity);
    this.#channelMax ??= new Float32Array(channels).fill(-Infinity);
    const [low, high] = [this.#channelMin, this.#channelMax];
    if (low.length !== channels) return this.#overall(data);
    let rest = 0;
    for (let i = 0; i < data.length;) {
      for (let c = 0; c < channels; c++) {
        let [min, max] = [low[c]!, high[c]!];
        for (const end = i + inner; i < end; i++) {
          const x = data[i]!;
          if (x < min) min = x;
          if (x > max) max = x;
          rest += x - x;
        }
        low[c] = min;
        high[c] = max;
      }
    }
    let [min, max] = [this.#min, this.#max];
    for (let c = 0; c < channels; c++) {
      min = Math.min(min, low[c]!);
      max = Math.max(max, high[c]!);
    }
    this.#take(min, max, rest);
  }

  #take(min: number, max: number, rest: number): void {
    if (rest !== 0) {
      throw new NumericError("numeric.not-finite", `value ${this.#tap.value} is NaN or infinite on the calibration data`, {
        value: this.#tap.value,
      });
    }
    [this.#min, this.#max] = [min, max];
  }

  finish(): Observed {
    const isSeen = this.#min !== Infinity;
    return {
      min: isSeen ? this.#min : 0,
      max: isSeen ? this.#max : 0,
      ...(this.#histogram && { histogram: this.#histogram }),
      ...(this.#channelMin && this.#channelMax && { channels: { min: this.#channelMin, max: this.#channelMax } }),
    };
  }
}
