/**
 * Normalization over the last axis.
 * @module
 */
import { tensorOf } from "../../core/tensor.ts";
import type { BlockWriter } from "./block-writer.ts";

/** RMS norm: x / sqrt(mean(x²) + epsilon) · (weight + offset). */
export interface RmsNorm {
  readonly epsilon: number;
  /** 1 where weights are stored minus one (Gemma), else 0. */
  readonly offset: 0 | 1;
}

/** @returns value of the input's shape, named `local`; its weight is the slot `<local>.weight` [size]. */
export function rmsNorm(writer: BlockWriter, input: string, local: string, size: number, { epsilon, offset }: RmsNorm): string {
  const { graph } = writer;
  const weight = writer.weight(`${local}.weight`, [size]);
  const scale = offset === 0 ? weight : graph.op("Add", [weight, graph.float32(1)]);
  return graph.op("RMSNormalization", [input, scale], { axis: -1, epsilon: { float: epsilon } }, local);
}

/** @param affine - false: no weights in the checkpoint. @returns value of the input's shape, named `local`. */
export function layerNorm(writer: BlockWriter, input: string, local: string, size: number, epsilon: number, affine = true): string {
  const { graph } = writer;
  const inputs = affine
    ? [input, writer.weight(`${local}.weight`, [size]), writer.weight(`${local}.bias`, [size])]
    : [input, graph.constant(tensorOf(new Float32Array(size).fill(1), [size]))];
  return graph.op("LayerNormalization", inputs, { axis: -1, epsilon: { float: epsilon } }, local);
}
