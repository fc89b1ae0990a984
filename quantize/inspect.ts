/**
 * Inspect: what any supported file or directory holds, without reading weights.
 * @module
 */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { schemeName } from "../core/scheme.ts";
import { CALIBRATION_KEY } from "../calibrate/file.ts";
import { openCheckpoint, type Checkpoint } from "../formats/checkpoint.ts";
import { COMPACT_EXTENSION } from "../formats/containers/compact/open.ts";
import type { OnnxDType } from "../formats/containers/onnx/dtypes.ts";
import { findLayout } from "../formats/layouts/index.ts";
import { findOnnxFile } from "../model/sources/onnx.ts";
import { CHECKPOINT_TOOLS } from "../model/sources/tools.ts";
import { inspectOnnx } from "./inspect-onnx.ts";
import { inspectCompact, type InspectedKind } from "./lossless/compact/inspect.ts";
import { readCompactRecord, type CompactRecord } from "./lossless/compact/record.ts";
import { inspectUnits, type InspectedUnit } from "./lossless/inspect.ts";
import { readManifest } from "./manifest.ts";

/** One stored tensor. */
export interface InspectedTensor {
  readonly name: string;
  readonly dtype: OnnxDType;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** What was found, as data. */
export interface Inspection {
  readonly path: string;
  /** "artifact", "model", "calibration", "compact file", "safetensors file" or "ONNX model". */
  readonly kind: string;
  /** Name and value, in the order to print. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  readonly tensors: readonly InspectedTensor[];
  /** Quantized modules, by scheme. */
  readonly schemes: readonly { readonly scheme: string; readonly modules: readonly string[] }[];
  /** `__metadata__` of the (first) safetensors file. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Units of a DFloat11 artifact. */
  readonly units?: readonly InspectedUnit[];
  /** Kinds of tensors in compact files. */
  readonly kinds?: readonly InspectedKind[];
}

/**
 * Look into a model directory, an artifact, a calibration file, a .safetensors file or an .onnx file.
 *
 * @throws {InputError} `input.path`; {FormatError} for files that break their format.
 */
export async function inspect(path: string): Promise<Inspection> {
  const onnx = await findOnnxFile(path);
  if (onnx !== undefined) {
    const found = await inspectOnnx(onnx);
    return onnx === path ? found : { ...found, path, facts: [...found.facts, ...(await manifestFacts(path))] };
  }
  const checkpoint = await openCheckpoint(path, CHECKPOINT_TOOLS);
  try {
    const tensors = [...checkpoint.tensors.values()].map(({ name, dtype, shape, byteLength }) => ({
      name,
      dtype,
      shape,
      bytes: byteLength,
    }));
    const files = await Promise.all(checkpoint.files.map(async (file) => ({ name: basename(file), bytes: (await stat(file)).size })));
    const { schemes, format } = await quantizedModules(checkpoint);
    const isFile = (await stat(path)).isFile();
    const isCalibration = Object.hasOwn(checkpoint.metadata, CALIBRATION_KEY);
    const record = isFile ? undefined : await readCompactRecord(path);
    const isCompactArtifact = record !== undefined;
    const kind = isCalibration
      ? "calibration"
      : isFile
        ? path.endsWith(COMPACT_EXTENSION)
          ? "compact file"
          : "safetensors file"
        : format === undefined && !isCompactArtifact
          ? "model"
          : "artifact";
    const facts = [
      ...(isFile ? [] : configFacts(checkpoint.config ?? {})),
      ["tensors", `${tensors.length}, ${tensors.reduce((sum, { bytes }) => sum + bytes, 0)} bytes`] as const,
      ...(format === undefined ? [] : [["format", format] as const]),
      ...schemes.map(({ scheme, modules }) => ["quantized", `${modules.length} × ${scheme}`] as const),
      ...(isCalibration ? calibrationFacts(checkpoint.metadata[CALIBRATION_KEY]!) : []),
      ...(isFile ? [] : isCompactArtifact ? recordFacts(record) : await manifestFacts(path)),
    ];
    const compactFiles = checkpoint.files.filter((file) => file.endsWith(COMPACT_EXTENSION));
    const kinds = compactFiles.length === 0 ? undefined : await inspectCompact(compactFiles);
    const units = format?.startsWith("dfloat11") === true ? await inspectUnits(checkpoint.tensors) : undefined;
    return { path, kind, facts, files, tensors, schemes, metadata: checkpoint.metadata, ...(units && { units }), ...(kinds && { kinds }) };
  } finally {
    await checkpoint.close();
  }
}

async function quantizedModules(checkpoint: Checkpoint): Promise<{ schemes: Inspection["schemes"]; format?: string }> {
  const layout = findLayout(checkpoint.config);
  if (layout === undefined) return { schemes: [] };
  const { weights, activations, format } = await layout.read(checkpoint);
  const byScheme = new Map<string, string[]>();
  for (const [module, weight] of weights) {
    const { input, output } = activations.get(module) ?? {};
    const parts = [`weights ${schemeName(weight)}`];
    if (input !== undefined) parts.push(`inputs ${schemeName(input.scheme)}`);
    if (output !== undefined) parts.push(`outputs ${schemeName(output.scheme)}`);
    const key = parts.join(", ");
    byScheme.set(key, [...(byScheme.get(key) ?? []), module]);
  }
  return { schemes: [...byScheme].map(([scheme, modules]) => ({ scheme, modules })), format: `${layout.name} ${format}` };
}

/** Keys of config.json worth a line. */
const CONFIG_KEYS = [
  "architectures",
  "model_type",
  "hidden_size",
  "num_hidden_layers",
  "num_attention_heads",
  "num_key_value_heads",
  "vocab_size",
  "dtype",
  "torch_dtype",
] as const;

function configFacts(config: Readonly<Record<string, unknown>>): readonly (readonly [string, string])[] {
  return CONFIG_KEYS.flatMap((key) => {
    const value = config[key];
    const text = Array.isArray(value)
      ? value.join(", ")
      : typeof value === "string" || typeof value === "number"
        ? String(value)
        : undefined;
    return text === undefined ? [] : [[key, text.slice(0, 200)] as const];
  });
}

function calibrationFacts(record: string): readonly (readonly [string, string])[] {
  const { statistics, samples, tokens, source } = JSON.parse(record) as {
    statistics?: unknown;
    samples?: unknown;
    tokens?: unknown;
    source?: { family?: unknown; engine?: unknown };
  };
  return [
    ["statistics", Array.isArray(statistics) ? statistics.join(", ") : "unknown"],
    ["calibrated on", `${String(samples)} samples, ${String(tokens)} tokens`],
    ["model", `${String(source?.family)}, run on ${String(source?.engine)}`],
  ];
}

function recordFacts({ version, level, weights, cast }: CompactRecord): readonly (readonly [string, string])[] {
  return [
    ["written by", `bitwright ${version}`],
    ["recipe", `dfloat11, codec compact, level ${level}${cast === undefined ? "" : `, cast ${cast}`}, ${weights.length} files`],
  ];
}

async function manifestFacts(path: string): Promise<readonly (readonly [string, string])[]> {
  const manifest = await readManifest(path).catch(() => undefined);
  if (manifest === undefined) return [];
  const { plan, version, sites } = manifest;
  if (plan.lossless !== undefined) {
    const { units, codec } = plan.lossless;
    return [
      ["written by", `bitwright ${version}`],
      ["recipe", `${plan.method}, codec ${codec}, ${units.length} units`],
      ["source", `${plan.source.path}, ${plan.source.bytes} bytes`],
    ];
  }
  const worst = sites.reduce((low, { sqnr }) => Math.min(low, sqnr ?? Infinity), Infinity);
  const recipe = [...plan.transforms, plan.method].join("+");
  return [
    ["written by", `bitwright ${version}`],
    ["recipe", `${recipe}${plan.recipe.bits === undefined ? "" : ` ${plan.recipe.bits}`}`],
    ["source", plan.source.path],
    ["worst SQNR", Number.isFinite(worst) ? `${worst.toFixed(2)} dB` : "exact"],
  ];
}
