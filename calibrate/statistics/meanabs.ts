/**
 * meanabs: the mean magnitude of each channel over all tokens. What activation-aware scaling ranks channels by.
 * @module
 */
import { tensorOf } from "../../core/tensor.ts";
import { floatsOf } from "../../model/host-tensor.ts";
import type { Statistic } from "../statistic.ts";
import { magnitudesByRow, overRows } from "./rows.ts";

export interface MeanAbs {
  /** Sum of magnitudes, shape [channels], in f64. */
  readonly sum: Float64Array;
  /** Tokens summed. */
  readonly rows: number;
}

export const meanabs: Statistic<MeanAbs> = {
  name: "meanabs",
  summary: "mean magnitude per channel over all tokens, F32 [channels]",
  reduce: (graph, value, channels) => [overRows(graph, "ReduceSum", magnitudesByRow(graph, value, channels))],
  create: (channels) => ({ sum: new Float64Array(channels), rows: 0 }),
  // The engine sums one batch in f32; batches are summed in f64.
  update({ sum, rows }, [part], added) {
    const sums = floatsOf(part!, "sum of magnitudes of a batch");
    for (let i = 0; i < sum.length; i++) sum[i]! += sums[i]!;
    return { sum, rows: rows + added };
  },
  merge: (a, b) => ({ sum: a.sum.map((x, i) => x + b.sum[i]!), rows: a.rows + b.rows }),
  finish: ({ sum, rows }) => ({
    "": tensorOf(
      Float32Array.from(sum, (x) => x / Math.max(rows, 1)),
      [sum.length],
    ),
  }),
};
