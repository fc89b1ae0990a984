/**
 * openTensorSource: checkpoints without a graph, for methods that need no data. Linear weights are told
 * by name and rank alone.
 * @module
 */
import type { LazyTensor } from "../../core/tensor.ts";
import type { DType } from "../../core/dtype.ts";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import { findLayout } from "../../formats/layouts/index.ts";
import { decodeDfloat11 } from "../../kernels/df11/read-range.ts";
import { detachCheckpoint } from "./detached.ts";
import { CHECKPOINT_TOOLS } from "./tools.ts";

/** A matrix that a data-free method may quantize. */
export interface TensorSite {
  /** Module name: the tensor's without ".weight". */
  readonly name: string;
  /** Tensor name. */
  readonly weight: string;
  /** Stored [rows, cols], rows = output channels. */
  readonly rows: number;
  readonly cols: number;
  readonly dtype: DType;
}

export interface TensorSource {
  readonly path: string;
  readonly directory: string;
  readonly files: readonly string[];
  readonly config?: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, LazyTensor>;
  /** In file order. */
  readonly sites: readonly TensorSite[];
}

const FLOATS: ReadonlySet<DType> = new Set<DType>(["F64", "F32", "F16", "BF16"]);

/** Parts of module names that are matrices but no linear layers one quantizes: embeddings, heads, norms, routers, positions. */
const EXCLUDED =
  /(?:^|[._])(?:embed(?:ding|dings|_tokens|_positions|_in|_out)?|word_embeddings|position_embeddings|token_type_embeddings|wte|wpe|lm_head|output_projection|score|classifier|norm|layernorm|layer_norm|ln_\d|ln_f|router|gate|shared_expert_gate|pos_embed|rotary_emb|relative_attention_bias)$/i;
const EXCLUDED_INSIDE = /embeddings?\.|embed_tokens|lm_head/i;
/** GPT-2's Conv1D matrices are stored [in, out]; without its config they cannot be told from Linear. */
const CONV1D = /(?:^|\.)(?:c_attn|c_proj|c_fc|q_attn)$/;

/**
 * Open a bare .safetensors file or a directory of any architecture.
 *
 * Sites are the 2-D float tensors named `<module>.weight` whose module is no embedding, head, norm or router by
 * its usual name, and is not a Conv1D of GPT-2, whose axes are the other way round.
 *
 * @throws as `openCheckpoint`.
 */
export async function openTensorSource(path: string): Promise<TensorSource> {
  const checkpoint = await detachCheckpoint(await openCheckpoint(path, CHECKPOINT_TOOLS));
  const layout = findLayout(checkpoint.config);
  const reading = await layout?.read(checkpoint, { decodeDfloat11 });
  const tensors = reading?.tensors ?? checkpoint.tensors;
  const { directory, files, metadata } = checkpoint;
  const config = reading?.config ?? checkpoint.config;
  const sites = [...tensors.values()].map(siteOf).filter((site) => site !== undefined);
  return { path, directory, files, ...(config === undefined ? {} : { config }), metadata, tensors, sites };
}

function siteOf({ name, dtype, shape }: LazyTensor): TensorSite | undefined {
  if (!name.endsWith(".weight") || shape.length !== 2 || !FLOATS.has(dtype)) return undefined;
  const module = name.slice(0, -".weight".length);
  if (EXCLUDED.test(module) || EXCLUDED_INSIDE.test(module) || CONV1D.test(module)) return undefined;
  const [rows, cols] = shape;
  return rows! > 0 && cols! > 0 ? { name: module, weight: name, rows: rows!, cols: cols!, dtype } : undefined;
}
