/**
 * The bitwright directory: safetensors and a config that hold every scheme, true BFP included (docs/formats/bitwright.md).
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import type { QuantizedTensor } from "../../../core/quantized.ts";
import type { QuantScheme, SiteActivations } from "../../../core/scheme.ts";
import { lazyFloat, type LazyTensor, type Tensor } from "../../../core/tensor.ts";
import type { TensorSpec } from "../../containers/container.ts";
import { isObject } from "../../containers/json.ts";
import type { ArtifactLayout } from "../layout.ts";
import { matrixOf, parseBitwrightConfig, QUANT_METHOD, type BitwrightModule } from "./config.ts";
import { decodeStored, encodeStored, refusalOf, storedSpecs, SUFFIXES, weightsOf, type StoredRole } from "./stored.ts";

export { bitwrightConfig, type BitwrightModule } from "./config.ts";

/** A tensor of a module, with what it means. */
export interface BitwrightTensor extends TensorSpec {
  readonly role: StoredRole;
}

/** The tensors a weight becomes, before any number is known. @throws {UnsupportedError} `unsupported.scheme`. */
export function bitwrightTensors(module: Pick<BitwrightModule, "name" | "shape" | "channelAxis" | "weight">): readonly BitwrightTensor[] {
  return storedSpecs(module.name, module.weight, matrixOf(module)).map((spec) => ({ ...spec, name: module.name + SUFFIXES[spec.role] }));
}

/**
 * Bytes of a quantized weight, by tensor name.
 *
 * @param quantized - codes [rows, cols], rows being output channels whatever the channel axis.
 * @throws as `encodeStored`.
 */
export function encodeBitwright(
  module: Pick<BitwrightModule, "name" | "shape" | "channelAxis">,
  quantized: QuantizedTensor,
): ReadonlyMap<string, Tensor> {
  const tensors = encodeStored(module.name, quantized, matrixOf(module));
  return new Map([...tensors].map(([role, tensor]) => [module.name + SUFFIXES[role], tensor]));
}

/** A module of an open directory. */
export interface OpenModule extends BitwrightModule {
  /** Names of its tensors in the file. */
  readonly names: readonly string[];
  /** Codes [rows, cols], rows being output channels. */
  readQuantized(): Promise<QuantizedTensor>;
  /** Weights in the logical shape. */
  readFloat(): Promise<Float32Array>;
}

/**
 * All quantized modules of a directory; reads no weights.
 *
 * @throws {FormatError} `format.missing`, `format.field`, `format.config`; {UnsupportedError} as `parseBitwrightConfig`.
 */
export function readBitwrightModules(tensors: ReadonlyMap<string, LazyTensor>, config: unknown): readonly OpenModule[] {
  return parseBitwrightConfig(config).map((module): OpenModule => {
    const { name, weight } = module;
    const refused = refusalOf(weight);
    if (refused !== undefined) throw new FormatError("format.config", `quantization_config: ${name}: ${refused}`, { module: name });
    const shape = matrixOf(module);
    const parts = new Map<StoredRole, LazyTensor>();
    for (const spec of bitwrightTensors(module)) {
      const tensor = tensors.get(spec.name);
      if (tensor === undefined) throw new FormatError("format.missing", `${spec.name} is missing`, { module: name, tensor: spec.name });
      if (tensor.dtype !== spec.dtype || JSON.stringify(tensor.shape) !== JSON.stringify(spec.shape)) {
        throw new FormatError(
          "format.field",
          `${spec.name} must be ${spec.dtype} ${JSON.stringify(spec.shape)}, found ${tensor.dtype} ${JSON.stringify(tensor.shape)}`,
          { module: name },
        );
      }
      parts.set(spec.role, tensor);
    }
    const readQuantized = async (): Promise<QuantizedTensor> => {
      const read = await Promise.all([...parts].map(async ([role, tensor]) => [role, await tensor.read()] as const));
      return decodeStored(name, weight, shape, new Map(read));
    };
    return {
      ...module,
      names: [...parts.values()].map((tensor) => tensor.name),
      readQuantized,
      async readFloat() {
        const values = weightsOf(await readQuantized());
        return module.channelAxis === 0 ? values : turned(values, shape.rows, shape.cols);
      },
    };
  });
}

function turned(values: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = values[r * cols + c]!;
  return out;
}

export const bitwright: ArtifactLayout = {
  name: QUANT_METHOD,

  matches(config) {
    const declared = config["quantization_config"];
    return isObject(declared) && declared["quant_method"] === QUANT_METHOD;
  },

  read(checkpoint) {
    const modules = readBitwrightModules(checkpoint.tensors, checkpoint.config?.["quantization_config"]);
    const replaced = new Set(modules.flatMap(({ names }) => names));
    const tensors = new Map<string, LazyTensor>();
    for (const [name, tensor] of checkpoint.tensors) if (!replaced.has(name)) tensors.set(name, tensor);
    const activations = new Map<string, SiteActivations>();
    const weights = new Map<string, QuantScheme>();
    for (const module of modules) {
      const name = `${module.name}.weight`;
      if (tensors.has(name))
        throw new FormatError("format.duplicate", `${name} is stored both as it is and as codes`, { module: module.name });
      tensors.set(
        name,
        lazyFloat(name, module.shape, () => module.readFloat()),
      );
      weights.set(module.name, module.weight);
      if (module.activations.input !== undefined || module.activations.output !== undefined)
        activations.set(module.name, module.activations);
    }
    return Promise.resolve({ tensors, activations, weights, format: QUANT_METHOD });
  },
};
