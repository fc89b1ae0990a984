/**
 * Reading: which modules are quantized, with what, and their numbers.
 * @module
 */
import { dequantizeBlocks } from "../../../core/blocks/quantize.ts";
import { elementCount, type DType } from "../../../core/dtype.ts";
import { FormatError, UnsupportedError } from "../../../core/errors.ts";
import type { QuantizedTensor } from "../../../core/quantized.ts";
import type { ActivationScheme, QuantScheme, ScaleType, SiteActivations } from "../../../core/scheme.ts";
import { toFloat32, type LazyTensor, type Tensor } from "../../../core/tensor.ts";
import type { CompressedTensorsConfig, ConfigGroup } from "./config.ts";
import { dequantize } from "../dequantize.ts";
import { SUFFIXES, type Parts, type TensorRole, type WeightFormat } from "./format.ts";
import { findFormat, inferFormat, WEIGHT_FORMATS } from "./formats.ts";
import { createMatcher } from "./match.ts";
import { schemeOf } from "./scheme.ts";

/** A module whose weight is stored as codes. */
export interface StoredModule {
  readonly module: string;
  readonly weight: QuantScheme;
  readonly activations: SiteActivations;
  /** Name of the on-disk format. */
  readonly format: string;
  readonly rows: number;
  readonly cols: number;
  /** Names of all its tensors in the file, the bias left out. */
  readonly names: readonly string[];
  /** Codes, scales and zero points as stored, codes signed. @throws {FormatError} `format.field` for values that break the scheme. */
  readQuantized(): Promise<QuantizedTensor>;
  /** Weights, [rows, cols]. */
  readFloat(): Promise<Float32Array>;
}

const SCALE_TYPES: ReadonlyMap<DType, ScaleType> = new Map([
  ["F32", "f32"],
  ["BF16", "bf16"],
  ["F16", "f16"],
]);

/**
 * All quantized modules of an artifact, each checked against its scheme. Reads shapes and activation scales, no weights.
 *
 * @throws {FormatError} `format.config` when config and tensors disagree, `format.missing` for absent tensors, `format.field` for wrong shapes.
 * @throws {UnsupportedError} for formats and schemes that are not read.
 */
export async function readModules(
  tensors: ReadonlyMap<string, LazyTensor>,
  config: CompressedTensorsConfig,
): Promise<ReadonlyMap<string, StoredModule>> {
  const matcher = createMatcher(config);
  const modules = new Map<string, StoredModule>();
  for (const module of quantizedModules(tensors)) {
    if (matcher.isIgnored(module)) {
      throw new FormatError("format.config", `${module} holds quantized tensors, but quantization_config.ignore names it`, { module });
    }
    const group = matcher.groupOf(module);
    if (group === undefined) {
      throw new FormatError("format.config", `${module} holds quantized tensors, but no target of quantization_config names it`, {
        module,
      });
    }
    modules.set(module, await readModule(tensors, module, group, config.format));
  }
  checkTargets(tensors, modules, config);
  return modules;
}

/** Modules with codes, in file order. */
function quantizedModules(tensors: ReadonlyMap<string, LazyTensor>): readonly string[] {
  const found: string[] = [];
  for (const [name, { dtype }] of tensors) {
    if (name.endsWith(".weight_packed")) found.push(name.slice(0, -".weight_packed".length));
    else if (name.endsWith(".weight")) {
      const module = name.slice(0, -".weight".length);
      if (tensors.has(module + SUFFIXES.scales)) found.push(module);
      else if (dtype === "I8" || dtype.startsWith("F8_")) {
        throw new FormatError("format.missing", `${name} is ${dtype}, but ${module}${SUFFIXES.scales} is missing`, { module });
      }
    }
  }
  return found;
}

/** A target that is a module's full name promises quantized tensors there. */
function checkTargets(
  tensors: ReadonlyMap<string, LazyTensor>,
  modules: ReadonlyMap<string, StoredModule>,
  config: CompressedTensorsConfig,
): void {
  const ignored = new Set(config.ignore);
  for (const { targets, weights, name } of config.groups) {
    if (weights === undefined) continue;
    const bare = targets.find((target) => tensors.has(`${target}.weight`) && !modules.has(target) && !ignored.has(target));
    if (bare !== undefined) {
      throw new FormatError("format.missing", `config_groups.${name} targets ${bare}, but ${bare}${SUFFIXES.scales} is missing`, {
        module: bare,
      });
    }
  }
}

async function readModule(
  tensors: ReadonlyMap<string, LazyTensor>,
  module: string,
  group: ConfigGroup,
  globalFormat: string,
): Promise<StoredModule> {
  const where = `config_groups.${group.name}`;
  if (group.weights === undefined) {
    throw new FormatError("format.config", `${module} holds quantized tensors, but ${where}.weights is null`, { module });
  }
  const scheme = schemeOf(group.weights, "weights", where);
  const format = formatOf(group, scheme, globalFormat, where);
  const refusal = format.refuses(scheme);
  if (refusal !== undefined)
    throw new FormatError("format.config", `${where}: format ${format.name} does not fit its weights: ${refusal}`, { module });

  const parts: Parts<LazyTensor> = {};
  const names: string[] = [];
  for (const [role, suffix] of [["codes", format.codesSuffix], ...Object.entries(SUFFIXES)] as [TensorRole, string][]) {
    const tensor = tensors.get(module + suffix);
    if (tensor === undefined) continue;
    parts[role] = tensor;
    names.push(tensor.name);
  }
  const need = (role: TensorRole, suffix: string): LazyTensor => {
    const tensor = parts[role];
    if (tensor === undefined)
      throw new FormatError("format.missing", `${module}${suffix} is missing; ${where} (${format.name}) needs it`, { module });
    return tensor;
  };
  need("codes", format.codesSuffix);
  const scales = need("scales", SUFFIXES.scales);
  if (format.name === "nvfp4-pack-quantized") need("global-scale", SUFFIXES["global-scale"]);
  const isSymmetric = scheme.format.kind !== "int" || scheme.format.symmetric;
  if (!isSymmetric) need("zeros", SUFFIXES.zeros);
  const [rows, cols] = await format.readShape(parts, scheme, module);
  // An empty axis lets the other have any length in a file of no bytes.
  if (rows < 1 || cols < 1)
    throw new FormatError("format.field", `${module}: a weight of [${rows}, ${cols}] has no elements`, { module, rows, cols });
  checkShapes(format, scheme, parts, module, rows, cols);
  const weight: QuantScheme = format.blocks === undefined ? { ...scheme, scale: SCALE_TYPES.get(scales.dtype)! } : scheme;

  const load = async (): Promise<{ quantized: QuantizedTensor; groups?: Float32Array }> => {
    const read = await readParts(parts);
    const decoded = format.decode(isSymmetric ? withoutZeros(read) : read, scheme, rows, cols);
    if (isSymmetric && read.zeros !== undefined && toFloat32(read.zeros).some((zero) => zero !== 0)) {
      throw new FormatError("format.field", `${module}${SUFFIXES.zeros} is not 0, but ${where}.weights is symmetric`, { module });
    }
    checkWidth(decoded.codes, scheme, module);
    const quantized: QuantizedTensor = {
      shape: [rows, cols],
      channelAxis: 0,
      scheme: weight,
      codes: decoded.codes,
      ...(format.blocks === undefined ? { scales: toFloat32(read.scales!) } : format.blocks.decodeScales(read, module)),
      ...(decoded.zeros === undefined ? {} : { zeros: Float32Array.from(decoded.zeros) }),
    };
    return { quantized, ...(read.groups === undefined ? {} : { groups: toFloat32(read.groups) }) };
  };

  return {
    module,
    weight,
    activations: await readActivations(parts, group, module, where),
    format: format.name,
    rows,
    cols,
    names,
    async readQuantized() {
      const { quantized, groups } = await load();
      if (groups === undefined) return quantized;
      throw new UnsupportedError(
        "unsupported.encoding",
        `${module} has reordered columns (weight_g_idx); only its weights can be read, not its codes`,
        {
          module,
        },
      );
    },
    async readFloat() {
      const { quantized, groups } = await load();
      return format.blocks === undefined ? dequantize(quantized, rows, cols, groups) : dequantizeBlocks(quantized);
    },
  };
}

function formatOf(group: ConfigGroup, weight: QuantScheme, globalFormat: string, where: string): WeightFormat {
  const name = group.format ?? globalFormat;
  // "mixed-precision" leaves it to the groups; a group that is silent has the format the library infers.
  if (name === "mixed-precision") return inferFormat(weight, group.input !== undefined);
  const format = findFormat(name);
  if (format !== undefined) return format;
  throw new UnsupportedError(
    "unsupported.encoding",
    `quantization_config.${where}: format ${JSON.stringify(name)} is not read; readable: ${WEIGHT_FORMATS.map((known) => known.name).join(", ")}`,
    { format: name },
  );
}

function checkShapes(
  format: WeightFormat,
  scheme: QuantScheme,
  parts: Parts<LazyTensor>,
  module: string,
  rows: number,
  cols: number,
): void {
  for (const { role, dtype, shape } of format.specs(scheme, rows, cols, parts.scales!.dtype)) {
    const tensor = parts[role];
    if (tensor === undefined || role === "codes" || role === "shape") continue;
    const isSame = tensor.dtype === dtype && sameShape(tensor.shape, shape, role === "scales" || role === "zeros");
    if (!isSame) {
      throw new FormatError(
        "format.field",
        `${tensor.name} must be ${dtype} ${JSON.stringify(shape)}, found ${tensor.dtype} ${JSON.stringify(tensor.shape)}`,
        {
          module,
        },
      );
    }
  }
  if (format.blocks === undefined && !SCALE_TYPES.has(parts.scales!.dtype)) {
    throw new UnsupportedError(
      "unsupported.encoding",
      `${parts.scales!.name} is ${parts.scales!.dtype}; scales in ${[...SCALE_TYPES.keys()].join(", ")} are read`,
      {
        module,
      },
    );
  }
  const groups = parts.groups;
  if (groups !== undefined && (groups.dtype !== "I32" || groups.shape.length !== 1 || groups.shape[0] !== cols)) {
    throw new FormatError("format.field", `${groups.name} must be I32 [${cols}], found ${groups.dtype} ${JSON.stringify(groups.shape)}`, {
      module,
    });
  }
}

/** Files also leave out axes of one: [] for [1], [N] for [N, 1]. */
function sameShape(found: readonly number[], expected: readonly number[], isLoose: boolean): boolean {
  const equals = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((size, i) => size === b[i]);
  return equals(found, expected) || (isLoose && expected.at(-1) === 1 && equals(found, expected.slice(0, -1)));
}

async function readParts(parts: Parts<LazyTensor>): Promise<Parts<Tensor>> {
  const roles = ["codes", "scales", "global-scale", "zeros", "groups"] as const;
  const read = await Promise.all(roles.map(async (role) => [role, await parts[role]?.read()] as const));
  return Object.fromEntries(read.filter(([, tensor]) => tensor !== undefined));
}

function withoutZeros(parts: Parts<Tensor>): Parts<Tensor> {
  const { zeros: _, ...rest } = parts;
  return rest;
}

/** Codes stored in a wider type must keep to their width. */
function checkWidth({ kind, data }: QuantizedTensor["codes"], { format }: QuantScheme, module: string): void {
  if (kind !== "i8" || format.kind !== "int" || format.bits === 8) return;
  const limit = 2 ** (format.bits - 1);
  for (let i = 0; i < data.length; i++) {
    if (data[i]! < -limit || data[i]! >= limit) {
      throw new FormatError("format.field", `${module}: code ${data[i]} at ${i} does not fit ${format.bits} bits`, {
        module,
        code: data[i],
      });
    }
  }
}

async function readActivations(parts: Parts<LazyTensor>, group: ConfigGroup, module: string, where: string): Promise<SiteActivations> {
  const one = async (kind: "input" | "output"): Promise<ActivationScheme | undefined> => {
    const args = group[kind];
    if (args === undefined) return undefined;
    const scheme = schemeOf(args, `${kind}_activations`, where);
    if (scheme.scale === "e4m3") {
      const globalScale = await readNumber(parts["input-global-scale"], module + SUFFIXES["input-global-scale"], module);
      if (globalScale > 0 && globalScale < Infinity) return { scheme, globalScale };
      throw new FormatError(
        "format.field",
        `${module}${SUFFIXES["input-global-scale"]} is ${globalScale}; it must be positive and finite`,
        {
          module,
          globalScale,
        },
      );
    }
    if (scheme.timing === "dynamic") return { scheme };
    const scale = await readNumber(parts[`${kind}-scale`], module + SUFFIXES[`${kind}-scale`], module);
    if (!(scale > 0 && scale < Infinity)) {
      throw new FormatError("format.field", `${module}${SUFFIXES[`${kind}-scale`]} is ${scale}; it must be positive and finite`, {
        module,
        scale,
      });
    }
    if (scheme.format.kind !== "int" || scheme.format.symmetric) return { scheme, scale };
    return { scheme, scale, zero: await readNumber(parts[`${kind}-zero`], module + SUFFIXES[`${kind}-zero`], module) };
  };
  const [input, output] = [await one("input"), await one("output")];
  return { ...(input === undefined ? {} : { input }), ...(output === undefined ? {} : { output }) };
}

async function readNumber(tensor: LazyTensor | undefined, name: string, module: string): Promise<number> {
  if (tensor === undefined) throw new FormatError("format.missing", `${name} is missing; static activations need it`, { module });
  if (elementCount(tensor.shape) !== 1) {
    throw new FormatError("format.field", `${name} must hold one number, found ${JSON.stringify(tensor.shape)}`, { module });
  }
  return toFloat32(await tensor.read())[0]!;
}
