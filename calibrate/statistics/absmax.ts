/**
 * absmax: the largest magnitude of each channel. What smoothing and static scales are made of.
 * @module
 */
import { tensorOf } from "../../core/tensor.ts";
import { floatsOf } from "../../model/host-tensor.ts";
import type { Statistic } from "../statistic.ts";
import { magnitudesByRow, overRows } from "./rows.ts";

/** State: shape [channels], all ≥ 0, unit of the activations. */
export const absmax: Statistic<Float32Array> = {
  name: "absmax",
  summary: "largest magnitude per channel, F32 [channels]",
  reduce: (graph, value, channels) => [overRows(graph, "ReduceMax", magnitudesByRow(graph, value, channels))],
  create: (channels) => new Float32Array(channels),
  update: (state, [part]) => raise(state, floatsOf(part!, "absmax of a batch")),
  merge: (a, b) => raise(a.slice(), b),
  finish: (state) => ({ "": tensorOf(state, [state.length]) }),
};

/** Raise each of `values` to at least `others`; NaN stays, so that it is seen. */
function raise(values: Float32Array, others: Float32Array): Float32Array {
  for (let i = 0; i < values.length; i++) values[i] = Math.max(values[i]!, others[i]!);
  return values;
}
