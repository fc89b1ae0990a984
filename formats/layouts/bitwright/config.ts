/**
 * `quantization_config` of a bitwright directory: every scheme once, and every quantized module with what it uses.
 *
 *   { "quant_method": "bitwright", "version": 1,
 *     "schemes": [ … ],                          QuantScheme, as data
 *     "modules": [ { "name", "shape", "channel_axis", "weight": scheme, "input": { "scheme", "scale", "zero", "global_scale" }, "output" } ],
 *     "notes": { … } }                           anything the writer adds; not read
 * @module
 */
import { z } from "zod";
import { blockFormatOf } from "../../../core/blocks/format.ts";
import { elementCount } from "../../../core/dtype.ts";
import { FormatError, InputError, UnsupportedError } from "../../../core/errors.ts";
import { FLOAT_FORMATS, type FloatName } from "../../../core/float.ts";
import { SCALE_RULES, type ActivationScheme, type DialectName, type QuantScheme, type SiteActivations } from "../../../core/scheme.ts";

/** `quant_method` in config.json. */
export const QUANT_METHOD = "bitwright";
const VERSION = 1;
const MAX_MODULES = 200_000;
const MAX_SCHEMES = 10_000;

/** A quantized module: what its tensors and the config say of it. */
export interface BitwrightModule {
  readonly name: string;
  /** Logical shape of the float weight. */
  readonly shape: readonly number[];
  readonly channelAxis: 0 | 1;
  readonly weight: QuantScheme;
  readonly activations: SiteActivations;
}

/** Output channels × everything else. @throws {InputError} `input.shape` for channel axis 1 without two axes. */
export function matrixOf({ name, shape, channelAxis }: Pick<BitwrightModule, "name" | "shape" | "channelAxis">): {
  rows: number;
  cols: number;
} {
  if (channelAxis === 1) {
    if (shape.length === 2) return { rows: shape[1]!, cols: shape[0]! };
    throw new InputError("input.shape", `${name}: channel axis 1 needs a shape [in, out], got ${JSON.stringify(shape)}`, { module: name });
  }
  return { rows: shape[0] ?? 1, cols: elementCount(shape.slice(1)) };
}

const DIALECTS = [
  "compressed-tensors",
  "sq-fake",
  "torch-int",
  "awq",
  "gptq",
  "quarot",
  "omniquant",
  "hqq",
  "spqr",
  "mx",
  "nvfp4",
] as const satisfies readonly DialectName[];
const size = z.number().int().min(1).max(1e9);
const number = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("int"), bits: z.number().int().min(2).max(16), symmetric: z.boolean() }),
  z.strictObject({ kind: z.literal("float"), format: z.enum(Object.keys(FLOAT_FORMATS) as [FloatName, ...FloatName[]]) }),
  z.strictObject({ kind: z.literal("bfp"), mantissaBits: z.number().int().min(2).max(16) }),
]);
const granularity = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("tensor") }),
  z.strictObject({ kind: z.literal("channel") }),
  z.strictObject({ kind: z.literal("group"), size }),
  z.strictObject({ kind: z.literal("token") }),
  z.strictObject({ kind: z.literal("block"), rows: size, cols: size }),
]);
const schemeSchema = z.strictObject({
  format: number,
  granularity,
  timing: z.enum(["static", "dynamic"]),
  scale: z.enum(["f32", "bf16", "f16", "e4m3", "e8m0", "model"]),
  dialect: z.enum(DIALECTS),
  scaleRule: z.enum(SCALE_RULES as [string, ...string[]]).optional(),
});
const activationSchema = z.strictObject({
  scheme: z.number().int().min(0).max(MAX_SCHEMES),
  scale: z.number().positive().optional(),
  zero: z.number().optional(),
  global_scale: z.number().positive().optional(),
});
const moduleSchema = z.strictObject({
  name: z.string().min(1).max(1000),
  shape: z.array(size).min(1).max(8),
  channel_axis: z.union([z.literal(0), z.literal(1)]),
  weight: z.number().int().min(0).max(MAX_SCHEMES),
  input: activationSchema.optional(),
  output: activationSchema.optional(),
});
const configSchema = z.strictObject({
  quant_method: z.literal(QUANT_METHOD),
  version: z.number().int(),
  schemes: z.array(schemeSchema).max(MAX_SCHEMES),
  modules: z.array(moduleSchema).max(MAX_MODULES),
  notes: z.record(z.string(), z.unknown()).optional(),
});

/**
 * @throws {FormatError} `format.config` naming the path that is wrong; `format.duplicate` for a module named twice.
 * @throws {UnsupportedError} `unsupported.format` for a later version.
 */
export function parseBitwrightConfig(value: unknown): readonly BitwrightModule[] {
  const version = typeof value === "object" && value !== null && "version" in value ? value.version : undefined;
  if (typeof version === "number" && version > VERSION) {
    throw new UnsupportedError("unsupported.format", `quantization_config.version is ${version}; this release reads version ${VERSION}`, {
      version,
    });
  }
  const parsed = configSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const path = ["quantization_config", ...(issue?.path.map(String) ?? [])].join(".").slice(0, 300);
    throw new FormatError("format.config", `${path}: ${(issue?.message ?? "not readable").slice(0, 300)}`, { path });
  }
  const { schemes, modules } = parsed.data;
  const names = new Set<string>();
  const schemeAt = (index: number, where: string): QuantScheme => {
    const scheme = schemes[index];
    if (scheme === undefined)
      throw new FormatError("format.config", `quantization_config: ${where} names scheme ${index} of ${schemes.length}`);
    return scheme as QuantScheme;
  };
  const activation = (entry: z.output<typeof activationSchema>, where: string): ActivationScheme => ({
    scheme: schemeAt(entry.scheme, where),
    ...(entry.scale === undefined ? {} : { scale: entry.scale }),
    ...(entry.zero === undefined ? {} : { zero: entry.zero }),
    ...(entry.global_scale === undefined ? {} : { globalScale: entry.global_scale }),
  });
  return modules.map(({ name, shape, channel_axis: channelAxis, weight, input, output }) => {
    if (names.has(name)) throw new FormatError("format.duplicate", `quantization_config: module ${name} is listed twice`, { module: name });
    names.add(name);
    if (elementCount(shape) > Number.MAX_SAFE_INTEGER / 8 || (channelAxis === 1 && shape.length !== 2)) {
      throw new FormatError(
        "format.config",
        `quantization_config: ${name} has shape ${JSON.stringify(shape)} with channel axis ${channelAxis}`,
        { module: name },
      );
    }
    const activations = {
      ...(input === undefined ? {} : { input: activation(input, `${name}.input`) }),
      ...(output === undefined ? {} : { output: activation(output, `${name}.output`) }),
    };
    for (const { scheme, scale } of Object.values(activations)) {
      if (scheme.timing === "static" && scale === undefined) {
        throw new FormatError("format.config", `quantization_config: ${name} has static activations without a scale`, { module: name });
      }
      if (scheme.scale === "e8m0" && blockFormatOf(scheme) === undefined) {
        throw new FormatError("format.config", `quantization_config: activations of ${name} have e8m0 scales, but no block format`, {
          module: name,
        });
      }
    }
    return { name, shape, channelAxis, weight: schemeAt(weight, name), activations };
  });
}

/** The config that names these modules. @param notes - what the writer wants kept beside them. */
export function bitwrightConfig(modules: readonly BitwrightModule[], notes?: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const schemes = new Map<string, { readonly index: number; readonly scheme: QuantScheme }>();
  const indexOf = (scheme: QuantScheme): number => {
    const key = JSON.stringify(scheme);
    const known = schemes.get(key) ?? { index: schemes.size, scheme };
    schemes.set(key, known);
    return known.index;
  };
  const activation = ({ scheme, scale, zero, globalScale }: ActivationScheme): Record<string, unknown> => ({
    scheme: indexOf(scheme),
    ...(scale === undefined ? {} : { scale }),
    ...(zero === undefined ? {} : { zero }),
    ...(globalScale === undefined ? {} : { global_scale: globalScale }),
  });
  const listed = modules.map(({ name, shape, channelAxis, weight, activations: { input, output } }) => ({
    name,
    shape,
    channel_axis: channelAxis,
    weight: indexOf(weight),
    ...(input === undefined ? {} : { input: activation(input) }),
    ...(output === undefined ? {} : { output: activation(output) }),
  }));
  return {
    quant_method: QUANT_METHOD,
    version: VERSION,
    schemes: [...schemes.values()].map(({ scheme }) => scheme),
    modules: listed,
    ...(notes === undefined ? {} : { notes }),
  };
}
