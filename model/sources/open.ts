/**
 * openModel: a directory or an .onnx file on disk becomes a Model.
 * @module
 */
import { FormatError } from "../../core/errors.ts";
import type { DType } from "../../core/dtype.ts";
import type { SiteActivations } from "../../core/scheme.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import { findLayout } from "../../formats/layouts/index.ts";
import { decodeDfloat11 } from "../../kernels/df11/read-range.ts";
import { ConfigReader } from "../architectures/config.ts";
import { findArchitecture } from "../architectures/index.ts";
import { TensorTable } from "../architectures/tensors.ts";
import type { Model } from "../model.ts";
import { detachCheckpoint } from "./detached.ts";
import { findOnnxFile, openOnnxModel } from "./onnx.ts";
import { CHECKPOINT_TOOLS } from "./tools.ts";

/** Everything a model is made of, whatever it was read from. */
export interface ModelSource {
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, LazyTensor>;
  readonly directory?: string;
  readonly activations?: ReadonlyMap<string, SiteActivations>;
}

/**
 * Read a Hugging Face directory (sharded or not), an .onnx file or a directory with one, or one of our artifacts, whose weights are then the dequantized
 * ones and whose `activations` say how it runs. Tensors stay on disk until they are asked for; no file stays open.
 *
 * @throws {FormatError} `format.config` naming a setting, `format.missing` naming a tensor, and what the readers throw.
 * @throws {UnsupportedError} `unsupported.architecture`, `unsupported.format` for an artifact whose quantization_config is not known.
 */
export async function openModel(path: string): Promise<Model> {
  const onnx = await findOnnxFile(path);
  if (onnx !== undefined) return openOnnxModel(onnx);
  const checkpoint = await detachCheckpoint(await openCheckpoint(path, CHECKPOINT_TOOLS));
  const { config, directory } = checkpoint;
  if (config === undefined) {
    throw new FormatError(
      "format.missing",
      `${path} has no config.json, so its architecture is not known; give the model's directory (plain weight rounding also takes a bare .safetensors file)`,
      { path },
    );
  }
  const layout = findLayout(config);
  const reading = await layout?.read(checkpoint, { decodeDfloat11 });
  const { tensors, activations } = reading ?? { tensors: checkpoint.tensors, activations: undefined };
  return buildModel({ config: reading?.config ?? config, tensors, directory, ...(activations === undefined ? {} : { activations }) });
}

/** The model of a parsed config.json and its tensors. @throws as `openModel`. */
export function buildModel(source: ModelSource): Model {
  const config = new ConfigReader(source.config);
  const { architecture, className } = findArchitecture(config);
  const tensors = architecture.adapt?.(source.tensors) ?? source.tensors;
  const { family } = architecture;
  const maxPositions = architecture.maxPositions(config);
  const table = new TensorTable(tensors);
  const parts = architecture.build({ family, className, config, tensors: table });
  const { blocks, inputs, outputs, output, vocabularySize, hiddenSize, tiedHead } = parts;
  return {
    facts: { family, className, vocabularySize, maxPositions, hiddenSize, dtype: mainDType(tensors), tiedHead, output },
    config: source.config,
    ...(source.directory === undefined ? {} : { directory: source.directory }),
    blocks,
    inputs,
    outputs,
    tensors: table.shaped(),
    activations: source.activations ?? new Map(),
  };
}

/** The dtype that holds the most bytes. */
function mainDType(tensors: ReadonlyMap<string, LazyTensor>): DType {
  const bytes = new Map<DType, number>();
  for (const { dtype, byteLength } of tensors.values()) bytes.set(dtype, (bytes.get(dtype) ?? 0) + byteLength);
  return [...bytes].reduce<[DType, number]>((best, next) => (next[1] > best[1] ? next : best), ["F32", 0])[0];
}
