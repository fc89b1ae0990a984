/**
 * Tensors of a checkpoint that no graph reads: every parameter is accounted for.
 * @module
 */
import type { Model } from "../model.ts";

export interface UnusedTensor {
  readonly name: string;
  /** A buffer that old exporters stored and loaders ignore, not a parameter. */
  readonly buffer: boolean;
}

/** Causal masks, rotary frequencies and position indices, which can be computed. */
const BUFFERS = /(?:rotary_emb\.(?:inv_freq|cos_cached|sin_cached)|\.attn\.(?:bias|masked_bias)|\.position_ids|\.token_type_ids)$/;

/** In checkpoint order. Exports still copy them. */
export function unusedTensors(model: Model): readonly UnusedTensor[] {
  const used = new Set(model.blocks.flatMap(({ weights }) => [...weights.values()].map(({ name }) => name)));
  return [...model.tensors.keys()].filter((name) => !used.has(name)).map((name) => ({ name, buffer: BUFFERS.test(name) }));
}
