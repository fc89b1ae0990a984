/**
 * Calibration on ONNX graphs: values of the main graph tapped while samples run, folded into extrema and histograms of fixed size.
 * @module
 */
import { countValues, HISTOGRAM_BINS } from "../../calibrate/statistics/histogram.ts";
import { NumericError, throwIfAborted } from "../../core/errors.ts";
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import type { Engine, Values } from "../../model/engines/engine.ts";
import { onnxToModel } from "../../model/sources/onnx.ts";
import { floatsOf } from "../../model/host-tensor.ts";
import { OnnxEdits } from "./edits.ts";
import { int64s, makeNode } from "./nodes.ts";
import type { ProgressEvent } from "../types.ts";
import type { OnnxSamples } from "./samples.ts";
import type { SeenValue } from "./ranges.ts";

/** A value to look at. */
export type OnnxTap =
  | {
      readonly value: string;
      /** Length of the last axis, whose channels are told apart; absent: one range for all. */
      readonly channels?: number;
      readonly histogram: false;
    }
  | { readonly value: string; readonly channels?: undefined; readonly histogram: true };

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
  const edits = new OnnxEdits(model);
  const producers = new Map(model.graph.nodes.flatMap(({ outputs }, i) => outputs.map((name) => [name, i] as const)));
  const folds = taps.map((tap) =>
    tap.histogram ? new HistogramFold(tap.value) : new ExtremaFold(tap, reduceTap(edits, tap, producers.get(tap.value))),
  );
  const compiled = await engine.compile(onnxToModel(edits.apply()).blocks[0]!.graph, { outputs: folds.flatMap(({ outputs }) => outputs) });
  try {
    let done = 0;
    for await (const { inputs, samples: count } of samples.runs()) {
      throwIfAborted(signal);
      const values = await compiled.run(inputs);
      for (const fold of folds) fold.update(values);
      done += count;
      onProgress?.({ phase: "calibrate", done, total: Math.max(done, samples.length), unit: "blocks", detail: "samples" });
    }
  } finally {
    await compiled.release();
  }
  return new Map(folds.map((fold) => [fold.value, fold.finish()]));
}

interface TapParts {
  readonly min: string;
  readonly max: string;
  /** Of the same values: NaN or infinite when one of them is. */
  readonly sum: string;
}

/** First opset whose axes may count from the end. */
const FROM_END_OPSET = 11;
/** First opset of an operator that takes its axes as an input. */
const AXES_INPUT_OPSET = { Unsqueeze: 13, ReduceSum: 13, ReduceMin: 18, ReduceMax: 18 } as const;

/**
 * Add the reductions of a tap: over the axis before the last for channels, else over all but the first. onnxruntime does that with
 * vector instructions and in threads where axes lead the reduced one, and one value at a time where none does; what is left of the
 * leading axes is little.
 */
function reduceTap(edits: OnnxEdits, { value, channels }: OnnxTap, producer: number | undefined): TapParts {
  const opset = edits.model.opsets.get("") ?? 1;
  const name = (part: string): string => edits.fresh(`${value}_${part}`);
  const constant = (numbers: readonly number[]): string =>
    edits.share(["tap", numbers], () => edits.constant("", `tap_${numbers.join("_")}`, int64s(numbers)));
  const along = (op: string, [from, output]: readonly [string, string], axis: number, inputOpset: number): OnnxNode => {
    const attributes = op === "Unsqueeze" ? {} : { keepdims: 0 };
    return opset >= inputOpset
      ? makeNode(op, [from, constant([axis])], [output], attributes)
      : makeNode(op, [from], [output], { axes: [axis], ...attributes });
  };
  const rows = name("rows");
  const parts: TapParts = { min: name("min"), max: name("max"), sum: name("sum") };
  const isFlat = channels !== undefined && opset < FROM_END_OPSET;
  const axis = channels === undefined ? 1 : isFlat ? 0 : -2;
  const nodes = [
    channels !== undefined && !isFlat
      ? // So that a vector has rows, too.
        along("Unsqueeze", [value, rows], 0, AXES_INPUT_OPSET.Unsqueeze)
      : makeNode("Reshape", [value, constant(isFlat ? [-1, channels] : [0, -1])], [rows]),
    along("ReduceMin", [rows, parts.min], axis, AXES_INPUT_OPSET.ReduceMin),
    along("ReduceMax", [rows, parts.max], axis, AXES_INPUT_OPSET.ReduceMax),
    along("ReduceSum", [rows, parts.sum], axis, AXES_INPUT_OPSET.ReduceSum),
  ];
  if (producer === undefined) edits.before("", 0, nodes);
  else edits.after("", producer, nodes);
  return parts;
}

/** What a tap makes of the outputs of each run. */
interface Fold {
  readonly value: string;
  /** What it needs of a run. */
  readonly outputs: readonly string[];
  update(values: Values): void;
  finish(): Observed;
}

/** Extrema, by channel or of all. */
class ExtremaFold implements Fold {
  readonly value: string;
  readonly outputs: readonly string[];
  readonly #byChannel: boolean;
  readonly #min: Float32Array;
  readonly #max: Float32Array;

  constructor({ value, channels }: OnnxTap, parts: TapParts) {
    this.value = value;
    this.outputs = [parts.min, parts.max, parts.sum];
    this.#byChannel = channels !== undefined;
    this.#min = new Float32Array(channels ?? 1).fill(Infinity);
    this.#max = new Float32Array(channels ?? 1).fill(-Infinity);
  }

  update(values: Values): void {
    const [low, high, sums] = this.outputs.map((name) => floatsOf(values[name]!, `value ${this.value}`)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const [min, max, channels] = [this.#min, this.#max, this.#min.length];
    for (let i = 0; i < sums.length; i++) if (!Number.isFinite(sums[i])) throw notFinite(this.value);
    for (let row = 0; row < low.length; row += channels) {
      for (let c = 0; c < channels; c++) {
        if (low[row + c]! < min[c]!) min[c] = low[row + c]!;
        if (high[row + c]! > max[c]!) max[c] = high[row + c]!;
      }
    }
  }

  finish(): Observed {
    const min = this.#min.reduce((least, value) => Math.min(least, value), Infinity);
    const max = this.#max.reduce((most, value) => Math.max(most, value), -Infinity);
    if (min === Infinity) return UNSEEN;
    return { min, max, ...(this.#byChannel && { channels: { min: this.#min, max: this.#max } }) };
  }
}

/** Extrema and histogram of all values. */
class HistogramFold implements Fold {
  readonly value: string;
  readonly outputs: readonly string[];
  readonly #counts = new Float64Array(HISTOGRAM_BINS);
  #min = Infinity;
  #max = -Infinity;

  constructor(value: string) {
    this.value = value;
    this.outputs = [value];
  }

  update(values: Values): void {
    const { min, max } = countValues(floatsOf(values[this.value]!, `value ${this.value}`), this.#counts);
    this.#min = Math.min(this.#min, min);
    this.#max = Math.max(this.#max, max);
    // Of no values at all, the extrema are infinite the other way round.
    if (min <= max && Number.isFinite(min) && Number.isFinite(max)) return;
    if (!(min > max)) throw notFinite(this.value);
  }

  finish(): Observed {
    const seen = this.#min === Infinity ? UNSEEN : { min: this.#min, max: this.#max };
    return { ...seen, histogram: this.#counts };
  }
}

const UNSEEN: Observed = { min: 0, max: 0 };

function notFinite(value: string): NumericError {
  return new NumericError("numeric.not-finite", `value ${value} is NaN or infinite on the calibration data`, { value });
}
