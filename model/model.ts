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
}

/** Facts for tokenizers, windows and reports. */
export interface ModelFacts {
  /** Architecture family, e.g. "llama". */
  readonly family: string;
  /** Class name of the checkpoint, e.g. "LlamaForCausalLM". */
  readonly className: string;
  readonly vocabularySize: number;
  /** Longest sequence the positions allow. */
  readonly maxPositions: number;
  readonly hiddenSize: number;
  /** Stored dtype of most weights. */
  readonly dtype: DType;
  /** Whether the head shares the embedding matrix. */
  readonly tiedHead: boolean;
  /** Value a causal language model ends in; encoders end in "last_hidden_state". */
  readonly output: "logits" | "last_hidden_state";
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
