/**
 * Mean and mean square of what convolutions read, by channel: what the rounding of a weight does to the outputs follows from them.
 * @module
 */
import { throwIfAborted } from "../../core/errors.ts";
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { floatsOf } from "../../model/host-tensor.ts";
import type { OnnxSite } from "../../model/onnx/site.ts";
import { onnxToModel } from "../../model/sources/onnx.ts";
import type { ChosenSite } from "./actions.ts";
import { OnnxEdits } from "./edits.ts";
import { int64s, makeNode } from "./nodes.ts";
import type { ObserveOptions } from "./observe.ts";
import type { OnnxSamples } from "./samples.ts";

/** Of one value, by channel. */
export interface Moments {
  readonly mean: Float64Array;
  readonly square: Float64Array;
}

/** Runs looked at: means settle soon. */
const MAX_RUNS = 32;
/** First opset whose ReduceMean takes its axes as an input. */
const AXES_INPUT_OPSET = 18;

/** Convolutions of float32 whose weight becomes integers and is theirs alone, and whose bias is known. */
function measurable(choices: readonly ChosenSite[]): readonly OnnxSite[] {
  const storage = ({ weight: { source } }: OnnxSite): string => JSON.stringify([source.path, source.name]);
  const readers = new Map<string, number>();
  for (const { site } of choices) readers.set(storage(site), (readers.get(storage(site)) ?? 0) + 1);
  return choices.flatMap(({ site, action }) => {
    const { op, node, weight, bias, observable } = site;
    const isInteger =
      action.kind === "static" ? action.scheme.weight.kind === "axis" : action.kind === "dequantize" && !("block" in action.scheme);
    const hasKnownBias = (node.inputs[2] ?? "") === "" || bias?.tensor.dtype === "F32";
    const isOwn = readers.get(storage(site)) === 1;
    return op === "Conv" && observable && isInteger && hasKnownBias && isOwn && weight.tensor.dtype === "F32" ? [site] : [];
  });
}

/**
 * Run samples; the means are taken inside the engine.
 *
 * @returns by name of the site.
 * @throws {InterruptedError}, and what the engine throws.
 */
export async function measureMoments(
  model: OnnxModel,
  choices: readonly ChosenSite[],
  samples: OnnxSamples,
  { engine, signal, onProgress }: ObserveOptions,
): Promise<ReadonlyMap<string, Moments>> {
  const sites = measurable(choices);
  if (sites.length === 0 || samples.length === 0) return new Map();
  const edits = new OnnxEdits(model);
  const opset = model.opsets.get("") ?? 1;
  const producers = new Map(model.graph.nodes.flatMap(({ outputs }, i) => outputs.map((name) => [name, i] as const)));
  const taps = new Map<string, { readonly mean: string; readonly square: string; sums?: [Float64Array, Float64Array] }>();
  for (const { input, weight } of sites) {
    if (taps.has(input)) continue;
    const axes = weight.tensor.shape.flatMap((_, axis) => (axis === 1 ? [] : [axis]));
    const [mean, squares, square] = ["mean", "squares", "mean_square"].map((part) => edits.fresh(`${input}_${part}`)) as [
      string,
      string,
      string,
    ];
    const reduce = (from: string, to: string): OnnxNode =>
      opset >= AXES_INPUT_OPSET
        ? makeNode("ReduceMean", [from, edits.share(["axes", axes], () => edits.constant("", "tap_axes", int64s(axes)))], [to], {
            keepdims: 0,
          })
        : makeNode("ReduceMean", [from], [to], { axes, keepdims: 0 });
    const nodes = [reduce(input, mean), makeNode("Mul", [input, input], [squares]), reduce(squares, square)];
    const producer = producers.get(input);
    if (producer === undefined) edits.before("", 0, nodes);
    else edits.after("", producer, nodes);
    taps.set(input, { mean, square });
  }
  const outputs = [...taps.values()].flatMap(({ mean, square }) => [mean, square]);
  const compiled = await engine.compile(onnxToModel(edits.apply()).blocks[0]!.graph, { outputs });
  let [done, runs] = [0, 0];
  try {
    for await (const { inputs, samples: count } of samples.runs()) {
      throwIfAborted(signal);
      const values = await compiled.run(inputs);
      for (const tap of taps.values()) {
        for (const [part, name] of [tap.mean, tap.square].entries()) {
          const found = floatsOf(values[name]!, name);
          tap.sums ??= [new Float64Array(found.length), new Float64Array(found.length)];
          for (const [c, value] of found.entries()) tap.sums[part]![c]! += count * value;
        }
      }
      done += count;
      onProgress?.({ phase: "calibrate", done, total: Math.max(done, samples.length), unit: "blocks", detail: "samples" });
      if (++runs === MAX_RUNS) break;
    }
  } finally {
    await compiled.release();
  }
  return new Map(
    sites.flatMap(({ name, input }): [string, Moments][] => {
      const { sums } = taps.get(input)!;
      if (sums === undefined || !sums.every((list) => list.every(Number.isFinite))) return [];
      const [mean, square] = sums.map((list) => list.map((value) => value / done)) as [Float64Array, Float64Array];
      return [[name, { mean, square }]];
    }),
  );
}
