/**
 * minmax: the range of each channel. For asymmetric static scales.
 * @module
 */
import { tensorOf } from "../../core/tensor.ts";
import { floatsOf } from "../../model/host-tensor.ts";
import type { Statistic } from "../statistic.ts";
import { asRows, overRows } from "./rows.ts";

export interface MinMax {
  /** Shape [channels]; +∞ before the first batch. */
  readonly min: Float32Array;
  /** Shape [channels]; -∞ before the first batch. */
  readonly max: Float32Array;
}

export const minmax: Statistic<MinMax> = {
  name: "minmax",
  summary: "smallest and largest value per channel, F32 [2, channels]: row 0 the minima, row 1 the maxima",
  reduce(graph, value, channels) {
    const rows = asRows(graph, value, channels);
    return [overRows(graph, "ReduceMin", rows), overRows(graph, "ReduceMax", rows)];
  },
  create: (channels) => ({ min: new Float32Array(channels).fill(Infinity), max: new Float32Array(channels).fill(-Infinity) }),
  update: (state, [min, max]) => minmax.merge(state, { min: floatsOf(min!, "min of a batch"), max: floatsOf(max!, "max of a batch") }),
  merge: (a, b) => ({ min: a.min.map((x, i) => Math.min(x, b.min[i]!)), max: a.max.map((x, i) => Math.max(x, b.max[i]!)) }),
  finish({ min, max }) {
    const channels = min.length;
    const range = new Float32Array(2 * channels);
    // Channels nothing was seen of, as those of an expert no token went to, have the empty range 0..0.
    range.set(min.map((x) => (x === Infinity ? 0 : x)));
    range.set(
      max.map((x) => (x === -Infinity ? 0 : x)),
      channels,
    );
    return { "": tensorOf(range, [2, channels]) };
  },
};
