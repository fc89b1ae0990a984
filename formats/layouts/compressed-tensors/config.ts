/**
 * `quantization_config` of compressed-tensors: what a file may say, checked before anything is believed.
 *
 * Follows `QuantizationConfig`, `QuantizationScheme` and `QuantizationArgs` of compressed-tensors 0.19: unknown keys
 * are an error in a group and in arguments, and ignored at the top. Keys of newer releases (`scale_dtype`, `zp_dtype`) are known.
 * @module
 */
import { z } from "zod";
import { FormatError, UnsupportedError } from "../../../core/errors.ts";
import { isObject } from "../../containers/json.ts";
import { PRESETS } from "./presets.ts";

/** Groups of one config; real ones have a handful. */
const MAX_GROUPS = 1024;
/** Targets of one group, and entries of `ignore`; a site-by-site list of a large mixture of experts has some 50,000. */
const MAX_TARGETS = 200_000;
/** Characters of one target. */
const MAX_TARGET_LENGTH = 1000;

const STRATEGIES = ["tensor", "channel", "group", "block", "token", "tensor_group", "attn_head"] as const;
const lowercase = (value: unknown): unknown => (typeof value === "string" ? value.toLowerCase() : value);

/** "128x128", the older spelling of a block's size. */
const blockText = (value: unknown): unknown =>
  typeof value === "string" && /^\d{1,6}x\d{1,6}$/.test(value) ? value.split("x").map(Number) : value;

/** An int of 10^9 at most: far above any real size, far below where products lose digits. */
const size = z.number().int().min(1).max(1e9);

/** Arguments of one tensor kind, defaults filled in. */
export interface QuantizationArgs {
  readonly num_bits: number;
  readonly type: "int" | "float";
  readonly symmetric: boolean;
  /** -1: one group a channel. */
  readonly group_size: number | null;
  readonly strategy: (typeof STRATEGIES)[number];
  readonly block_structure: readonly [number, number] | null;
  readonly dynamic: boolean | "local";
  readonly actorder: string | boolean | null;
  readonly scale_dtype: string | null;
  readonly zp_dtype: string | null;
  readonly observer: string | null;
  readonly observer_kwargs: Readonly<Record<string, unknown>> | null;
}

const argsSchema = z
  .strictObject({
    num_bits: z.number().int().min(1).max(64).default(8),
    type: z.preprocess(lowercase, z.enum(["int", "float"])).default("int"),
    symmetric: z.boolean().default(true),
    group_size: z.union([size, z.literal(-1), z.null()]).default(null),
    strategy: z.preprocess(lowercase, z.enum(STRATEGIES).nullable()).default(null),
    block_structure: z.preprocess(blockText, z.tuple([size, size]).nullable()).default(null),
    dynamic: z.union([z.boolean(), z.literal("local")]).default(false),
    actorder: z.union([z.string().max(20), z.boolean(), z.null()]).default(null),
    scale_dtype: z.string().max(40).nullable().default(null),
    zp_dtype: z.string().max(40).nullable().default(null),
    observer: z.string().max(200).nullable().default(null),
    observer_kwargs: z.record(z.string(), z.unknown()).nullable().default(null),
  })
  .transform((args): QuantizationArgs => ({
    ...args,
    // Left out, it follows from the group size, as in the library.
    strategy: args.strategy ?? (args.group_size === null ? "tensor" : args.group_size === -1 ? "channel" : "group"),
  }));

const targets = z.array(z.string().min(1).max(MAX_TARGET_LENGTH)).max(MAX_TARGETS);

const groupSchema = z.strictObject({
  targets,
  weights: argsSchema.nullish(),
  input_activations: argsSchema.nullish(),
  output_activations: argsSchema.nullish(),
  format: z.string().max(40).nullish(),
});

const configSchema = z.object({
  config_groups: z.record(z.string().max(200), z.unknown()),
  format: z.string().max(40).default("dense"),
  ignore: targets.nullish(),
  kv_cache_scheme: z.unknown().optional(),
  sparsity_config: z.unknown().optional(),
  transform_config: z.unknown().optional(),
});

/** One scheme and the modules it is for. */
export interface ConfigGroup {
  readonly name: string;
  readonly targets: readonly string[];
  readonly weights: QuantizationArgs | undefined;
  readonly input: QuantizationArgs | undefined;
  readonly output: QuantizationArgs | undefined;
  /** On-disk format of its weights; undefined: by inference from the arguments. */
  readonly format: string | undefined;
}

export interface CompressedTensorsConfig {
  /** In file order. */
  readonly groups: readonly ConfigGroup[];
  readonly ignore: readonly string[];
  /** The global format. */
  readonly format: string;
}

/**
 * Check a parsed `quantization_config`.
 *
 * @throws {FormatError} `format.config` naming the key that is wrong.
 * @throws {UnsupportedError} `unsupported.scheme` for a quantized KV cache, `unsupported.format` for sparsity or transforms.
 */
export function parseQuantizationConfig(value: unknown): CompressedTensorsConfig {
  const top = check(configSchema, value, "quantization_config");
  if (top.kv_cache_scheme !== undefined && top.kv_cache_scheme !== null) {
    throw new UnsupportedError(
      "unsupported.scheme",
      "quantization_config.kv_cache_scheme is set: a quantized KV cache is not read; set it to null to read the weights without it",
    );
  }
  for (const key of ["sparsity_config", "transform_config"] as const) {
    const found = top[key];
    if (found === undefined || found === null || (isObject(found) && isInert(found))) continue;
    throw new UnsupportedError("unsupported.format", `quantization_config.${key} is set; only plain quantization is read`, { key });
  }
  const entries = Object.entries(top.config_groups);
  if (entries.length > MAX_GROUPS) {
    throw new FormatError(
      "format.config",
      `quantization_config.config_groups has ${entries.length} groups; at most ${MAX_GROUPS} are read`,
    );
  }
  const groups = entries.map(([name, group]) => parseGroup(name, group));
  return { groups, ignore: top.ignore ?? [], format: top.format };
}

/** Empty, or says that nothing is done: `{"format": "dense"}`, `{"config_groups": {}}`. */
function isInert(config: Readonly<Record<string, unknown>>): boolean {
  return (
    Object.keys(config).length === 0 ||
    config["format"] === "dense" ||
    (isObject(config["config_groups"]) && Object.keys(config["config_groups"]).length === 0)
  );
}

function parseGroup(name: string, group: unknown): ConfigGroup {
  const where = `quantization_config.config_groups.${name.slice(0, 80)}`;
  if (Array.isArray(group)) {
    const preset = PRESETS.get(name.toUpperCase());
    if (preset === undefined) {
      throw new FormatError("format.config", `${where} is a list, so the name must be a preset; known: ${[...PRESETS.keys()].join(", ")}`, {
        name,
      });
    }
    return parseGroup(name, { ...preset, targets: group });
  }
  const parsed = check(groupSchema, group, where);
  if (parsed.format === "mixed-precision") {
    throw new FormatError("format.config", `${where}.format cannot be mixed-precision: that is for the whole config`, { name });
  }
  return {
    name,
    targets: parsed.targets,
    weights: parsed.weights ?? undefined,
    input: parsed.input_activations ?? undefined,
    output: parsed.output_activations ?? undefined,
    format: parsed.format ?? undefined,
  };
}

function check<Schema extends z.ZodType>(schema: Schema, value: unknown, where: string): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = [where, ...(issue?.path.map(String) ?? [])].join(".").slice(0, 300);
  throw new FormatError("format.config", `${path}: ${(issue?.message ?? "not readable").slice(0, 300)}`, { path });
}
