/**
 * Sort keys of channels: what `order=norm` and `order=absmax` sort by.
 * @module
 */
import type { LinearSite } from "../../../model/model.ts";

/** Largest magnitude of each channel of rows [tokens, channels]. */
export function absMaxKey(values: Float32Array, channels: number): Float64Array {
  const most = new Float64Array(channels);
  for (let i = 0; i < values.length; i++) most[i % channels] = Math.max(most[i % channels]!, Math.abs(values[i]!));
  return most;
}

/**
 * Euclidean norm of rows (output channels) of a weight as it is stored: the key of the paper (arXiv:2403.20137), applied to W_k.
 *
 * @param weight - [rows, cols], or [cols, rows] when the site's channelAxis is 1.
 */
export function normKey(
  weight: Float32Array,
  { rows, cols, channelAxis }: Pick<LinearSite, "rows" | "cols" | "channelAxis">,
  firstRow: number,
  count: number,
): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => {
    let sum = 0;
    for (let c = 0; c < cols; c++) {
      const w = channelAxis === 0 ? weight[(firstRow + i) * cols + c]! : weight[c * rows + firstRow + i]!;
      sum += w * w;
    }
    return Math.sqrt(sum);
  });
}
