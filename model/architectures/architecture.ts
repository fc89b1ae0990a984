/**
 * What an architecture is: a family of checkpoints and the function that makes blocks of one.
 * @module
 */
import type { Block, ModelFacts } from "../model.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import type { ValueType } from "../graph/graph.ts";
import type { ConfigReader } from "./config.ts";
import type { TensorTable } from "./tensors.ts";

export interface ArchitectureInput {
  readonly family: string;
  /** Class the checkpoint was saved from, e.g. "LlamaForCausalLM". */
  readonly className: string;
  readonly config: ConfigReader;
  readonly tensors: TensorTable;
}

/** What a builder knows of a model; the source adds directory, tensors and the rest. */
export interface ModelParts {
  readonly blocks: readonly Block[];
  readonly inputs: readonly ValueType[];
  readonly outputs: readonly string[];
  readonly output: ModelFacts["output"];
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  readonly tiedHead: boolean;
}

export interface Architecture {
  /** Name of the family, as `ModelFacts.family`. */
  readonly family: string;
  /** `model_type` values of config.json. */
  readonly modelTypes: readonly string[];
  /** `architectures` values of config.json. */
  readonly classNames: readonly string[];
  /** Longest sequence the positions allow. */
  maxPositions(config: ConfigReader): number;
  /**
   * Tensors renamed or cut to the names that graphs use (fused experts, old spellings). Absent: as stored.
   */
  adapt?(tensors: ReadonlyMap<string, LazyTensor>): ReadonlyMap<string, LazyTensor>;
  /**
   * @throws {FormatError} `format.config` for a setting, `format.missing` for a tensor that is not there.
   * @throws {UnsupportedError} `unsupported.architecture` for a variant of the family that is not covered.
   */
  build(input: ArchitectureInput): ModelParts;
}
