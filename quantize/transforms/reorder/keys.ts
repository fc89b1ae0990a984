/**
 * Sort keys of channels: what `order=norm` and `order=absmax` sort by.
 * @module
 */
import { toFloat32 } from "../../../core/tensor.ts";
import { findPairs } from "../../../model/graph/pairs.ts";
import type { Block, LinearSite } from "../../../model/model.ts";

/** Largest magnitude of each channel of rows [tokens, channels]. */
export function absMaxKey(values: Float32Array, channels: number): Float64Array {
  const most = new Float64Array(channels);
  for (let i = 0; i < values.length; i++) most[i % channels] = Math.max(most[i % channels]!, Math.abs(values[i]!));
  return most;
}

/**
 * Euclidean norm of rows (output channels) of a weight: the key of the paper (arXiv:2403.20137), applied to W_k.
 *
 * @param gain - what a norm in front multiplies each column by, so that the norm is that of the row the model really has.
 * @param weight - [rows, cols], or [cols, rows] when the site's channelAxis is 1.
 */
export function normKey(
  weight: Float32Array,
  { rows, cols, channelAxis }: Pick<LinearSite, "rows" | "cols" | "channelAxis">,
  firstRow: number,
  count: number,
  gain?: Float32Array,
): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => {
    let sum = 0;
    for (let c = 0; c < cols; c++) {
      const w = channelAxis === 0 ? weight[(firstRow + i) * cols + c]! : weight[c * rows + firstRow + i]!;
      const effective = w * (gain?.[c] ?? 1);
      sum += effective * effective;
    }
    return Math.sqrt(sum);
  });
}

/** The gain of the norm in front of a site, when there is one: weight plus offset. */
export async function gainBefore(block: Block, site: LinearSite): Promise<Float32Array | undefined> {
  const pair = findPairs(block).find(({ kind, consumers }) => kind === "norm" && consumers.some(({ name }) => name === site.name));
  if (pair === undefined) return undefined;
  const { weight, offset } = pair.producer;
  return toFloat32(await block.weights.get(weight)!.read()).map((gain) => gain + offset);
}
