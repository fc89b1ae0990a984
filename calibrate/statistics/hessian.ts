/**
 * hessian: the second moment of the inputs, mean over tokens of x xᵀ. For GPTQ and everything that weighs errors.
 *
 * Half the Hessian of the layer's squared output error in one row of weights (GPTQ, arXiv:2210.17323 §3, H = 2 X Xᵀ, over tokens).
 * @module
 */
import { tensorOf } from "../../core/tensor.ts";
import { floatsOf } from "../../model/host-tensor.ts";
import type { Statistic } from "../statistic.ts";
import { asRows } from "./rows.ts";

export interface SecondMoment {
  /** Sum of x xᵀ, shape [channels, channels], in f64. */
  readonly sum: Float64Array;
  /** Tokens summed. */
  readonly rows: number;
}

export const hessian: Statistic<SecondMoment> = {
  name: "hessian",
  summary: "mean over tokens of x xᵀ, F32 [channels, channels]",
  reduce(graph, value, channels) {
    const rows = asRows(graph, value, channels);
    return [graph.op("Gemm", [rows, rows], { transA: 1 })];
  },
  create: (channels) => ({ sum: new Float64Array(channels * channels), rows: 0 }),
  // The engine sums one batch in f32; batches are summed in f64.
  update({ sum, rows }, [part], added) {
    const products = floatsOf(part!, "second moment of a batch");
    for (let i = 0; i < sum.length; i++) sum[i]! += products[i]!;
    return { sum, rows: rows + added };
  },
  merge(a, b) {
    const sum = a.sum.slice();
    for (let i = 0; i < sum.length; i++) sum[i]! += b.sum[i]!;
    return { sum, rows: a.rows + b.rows };
  },
  finish({ sum, rows }) {
    const channels = Math.sqrt(sum.length);
    const mean = new Float32Array(sum.length);
    const divisor = Math.max(rows, 1);
    // Exactly symmetric, as the factorizations that read it expect.
    for (let i = 0; i < channels; i++) {
      for (let j = 0; j <= i; j++) {
        const x = (sum[i * channels + j]! + sum[j * channels + i]!) / (2 * divisor);
        mean[i * channels + j] = x;
        mean[j * channels + i] = x;
      }
    }
    return { "": tensorOf(mean, [channels, channels]) };
  },
};
