/**
 * Model: blocks of graphs with lazy weights, in the order they run.
 *
 * A block reads *carried* values by name (hidden states, rotary tables, masks)
 * and writes them back; the walk keeps the carried values of each sample and
 * nothing else. Running the blocks in order is running the model.
 * @module
 */
import type { DType } from "../core/dtype.ts";
import type { SiteActivations } from "../core/scheme.ts";
import type { LazyTensor } from "../core/tensor.ts";
import type { Values } from "./engines/engine.ts";
import type { Graph, ValueType } from "./graph/graph.ts";

/** A node whose weight is constant: where weights are quantized and activations observed. */
export interface LinearSite {
  /** Module name in the checkpoint, e.g. "model.layers.0.self_attn.q_proj"; the weight tensor is `<name>.weight`. */
  readonly name: string;
  /** `name` without the block's prefix, equal in equal blocks, e.g. "self_attn.q_proj". */
  readonly localName: string;
  readonly kind: "linear" | "conv" | "embedding" | "router";
  /** Name of the node in the block's graph. */
  readonly node: string;
  /** Value that is multiplied by the weight; its last axis has `inputs` channels. */
  readonly input: string;
  readonly output: string;
  /** Slot of the weight in the block's graph. */
  readonly weight: string;
  /** Slot of the bias, if there is one. */
  readonly bias?: string;
  /** Axis of the output channels in the stored weight: 0 for Linear [out, in], 1 for Conv1D [in, out]. */
  readonly channelAxis: 0 | 1;
  readonly rows: number;
  readonly cols: number;
}

/** Where a block attends, for rewrites that put another attention in its place (a cache, a fused operator). Names are values of the block's graph. */
export interface AttentionPlace {
  /** Local name of the module, e.g. "self_attn". */
  readonly module: string;
  /** Values [batch, sequence, heads × headSize], keys and values with `kvHeads`; rotated and normed. */
  readonly query: string;
  readonly key: string;
  readonly value: string;
  /** Value [tokens, heads × headSize]. */
  readonly output: string;
  /** Query head h reads key-value head floor(h / (heads / kvHeads)). */
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** Multiplies q · k. */
  readonly scale: number;
  /** Without a mask: whether a position sees only those before it. */
  readonly causal: boolean;
  /** Graph input BOOL [batch, 1, 1 or sequence, sequence], causality included. */
  readonly mask?: string;
  /** c: scores become c · tanh(scores / c) before the mask. */
  readonly softcap?: number;
}

export interface Block {
  /** "embeddings", "model.layers.0", "head": the checkpoint's prefix where there is one. */
  readonly name: string;
  readonly role: "prologue" | "block" | "epilogue";
  /** Blocks of the same structure share one graph object. */
  readonly graph: Graph;
  /** Tensors by slot. Shapes are those of the slot; dtype as stored (engines get f32). */
  readonly weights: ReadonlyMap<string, LazyTensor>;
  /** Graph input → carried value. */
  readonly reads: Readonly<Record<string, string>>;
  /** Graph output → carried value. */
  readonly writes: Readonly<Record<string, string>>;
  readonly sites: readonly LinearSite[];
  /** Attentions of the graph, in order; absent where it was not written by one of our architectures. */
  readonly attentions?: readonly AttentionPlace[];
  /** A last step outside the engine, on the graph's outputs: a cache that stores some of them in its own form. Keeps their names. */
  readonly host?: (outputs: Values) => Values;
}

/** Facts for tokenizers, windows and reports. */
export interface ModelFacts {
  /** Architecture family, e.g. "llama". */
  readonly family: string;
  /** Class name of the checkpoint, e.g. "LlamaForCausalLM". */
  readonly className: string;
  /** Token ids; for image classifiers labels. */
  readonly vocabularySize: number;
  /** Longest sequence the positions allow. */
  readonly maxPositions: number;
  readonly hiddenSize: number;
  /** Stored dtype of most weights. */
  readonly dtype: DType;
  /** Whether the head shares the embedding matrix. */
  readonly tiedHead: boolean;
  /** "logits" over the vocabulary: a language model. "classes": logits over labels. Encoders end in "last_hidden_state" or "embeddings". */
  readonly output: "logits" | "last_hidden_state" | "classes" | "embeddings";
}

export interface Model {
  readonly facts: ModelFacts;
  /** The whole parsed config.json. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Directory it was read from, when there is one. */
  readonly directory?: string;
  /** Prologue, blocks, epilogue. */
  readonly blocks: readonly Block[];
  /** What a sample must feed, e.g. input_ids I64 ["batch", "sequence"], position_ids I64. */
  readonly inputs: readonly ValueType[];
  /** Carried values that are results, e.g. ["logits"]. */
  readonly outputs: readonly string[];
  /** Every tensor of the checkpoint by name, also those no graph uses. */
  readonly tensors: ReadonlyMap<string, LazyTensor>;
  /** Activation quantization by site name; empty for a float model. */
  readonly activations: ReadonlyMap<string, SiteActivations>;
}

/** All sites of a model, in order. */
export function sitesOf(model: Model): readonly LinearSite[] {
  return model.blocks.flatMap((block) => block.sites);
}
