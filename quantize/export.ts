/**
 * Export: a model or an artifact in another form: the float model an artifact stands for as a plain Hugging Face directory,
 * or ONNX files as transformers.js loads them.
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { byteLength, type DType } from "../core/dtype.ts";
import { InputError, throwIfAborted, UnsupportedError } from "../core/errors.ts";
import { fromFloat32, toFloat32, type LazyTensor, type Tensor } from "../core/tensor.ts";
import { openCheckpoint, planShards } from "../formats/checkpoint.ts";
import { replaceFile, writeFileAtomic, writeFully } from "../formats/containers/atomic.ts";
import { layoutSafetensors } from "../formats/containers/safetensors/write.ts";
import { findLayout } from "../formats/layouts/index.ts";
import { CHECKPOINT_TOOLS } from "../model/sources/tools.ts";
import { OWN_KEY } from "../formats/layouts/compressed-tensors/dialect.ts";
import { INDEX_FILE } from "../formats/shards.ts";
import type { DialectName } from "../model/onnx-export/dialects/index.ts";
import { carriedFiles } from "./carry-over.ts";
import { claimExport } from "./export-directory.ts";
import { ROPE_ORDER } from "./transforms/reorder/decide-orders.ts";
import type { TransformersJsDType } from "./exports/transformersjs/dtypes.ts";
import type { ProgressEvent } from "./types.ts";

export interface ExportOptions {
  /**
   * "float": weights dequantized, in the dtype of the artifact's own float tensors. "transformersjs": ONNX files of every dtype.
   * "onnx": one of them, float32 or what the artifact's codes make.
   */
  readonly to: string;
  readonly out: string;
  /** ONNX: which files; default as `to` says. */
  readonly dtypes?: readonly TransformersJsDType[];
  /** ONNX: operators of the float part; default "contrib". */
  readonly operators?: DialectName;
  readonly maxShardBytes?: number;
  /** Write over files of an earlier export; other files are never touched. */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

export interface ExportReport {
  readonly format: string;
  readonly directory: string;
  readonly bytes: number;
  /** ONNX: the files. */
  readonly files?: readonly { readonly name: string; readonly bytes: number }[];
}

const TARGETS = ["float", "onnx", "transformersjs"] as const;

/**
 * Write an artifact as a float model directory. Activation quantization is left behind: it belongs to the runtime.
 *
 * @throws {UnsupportedError} `unsupported.scheme` for keys in orders that a plain directory cannot hold.
 * @throws {InputError} `input.option` for another target, `input.output-exists` for a directory with files in it.
 */
export async function exportArtifact(source: string, options: ExportOptions): Promise<ExportReport> {
  const { to, out, signal, onProgress } = options;
  if (to === "onnx" || to === "transformersjs") return exportOnnx(source, to, options);
  if (to !== "float") {
    throw new InputError("input.option", `--to "${to}" is not a form an artifact can be exported to; known: ${TARGETS.join(", ")}`, {
      option: "to",
      given: to,
      known: TARGETS,
    });
  }
  const checkpoint = await openCheckpoint(source, CHECKPOINT_TOOLS);
  try {
    const layout = findLayout(checkpoint.config);
    if (layout === undefined)
      throw new InputError("input.path", `${source} is not quantized; there is nothing to export as float`, { path: source });
    const { tensors } = await layout.read(checkpoint);
    refuseOrderedKeys(source, tensors.keys());
    const dtype = floatDType(checkpoint.tensors);
    const specs = [...tensors].map(([name, tensor]) => ({
      name,
      shape: tensor.shape,
      dtype: isDequantized(checkpoint.tensors, name) ? dtype : tensor.dtype,
    }));
    const { shards, index } = planShards(specs, options.maxShardBytes);
    const carried = await carriedFiles(checkpoint.directory);
    const { [OWN_KEY]: _own, quantization_config: _quantization, ...config } = checkpoint.config ?? {};
    const files = [...shards.map(({ file }) => file), ...carried, ...(index === undefined ? [] : [INDEX_FILE]), "config.json"];
    await claimExport(out, files, options.force === true);
    const total = specs.reduce((sum, spec) => sum + byteLength(spec.dtype, spec.shape), 0);
    let done = 0;
    for (const { file, specs: inside } of shards) {
      const { header, order } = layoutSafetensors(inside, { format: "pt" });
      await replaceFile(join(out, file), async (handle) => {
        await writeFully(handle, header);
        for (const spec of order) {
          throwIfAborted(signal);
          const { bytes } = inDType(await tensors.get(spec.name)!.read(), spec.dtype);
          await writeFully(handle, bytes);
          done += bytes.byteLength;
          onProgress?.({ phase: "quantize", done, total, unit: "bytes", detail: spec.name });
        }
      });
    }
    for (const name of carried) await writeFileAtomic(join(out, name), await readFile(join(checkpoint.directory, name)));
    if (index !== undefined) await writeFileAtomic(join(out, INDEX_FILE), `${JSON.stringify(index, undefined, 2)}\n`);
    await writeFileAtomic(join(out, "config.json"), `${JSON.stringify(config, undefined, 2)}\n`);
    const sizes = await Promise.all(files.map(async (name) => (await stat(join(out, name))).size));
    return { format: to, directory: out, bytes: sizes.reduce((sum, size) => sum + size, 0) };
  } finally {
    await checkpoint.close();
  }
}

async function exportOnnx(source: string, to: "onnx" | "transformersjs", options: ExportOptions): Promise<ExportReport> {
  const { maxShardBytes: _shards, to: _to, ...rest } = options;
  const { exportOnnxDirectory } = await import("./exports/transformersjs/export.ts");
  const report = await exportOnnxDirectory(source, { ...rest, ...(options.dtypes === undefined ? { all: to === "transformersjs" } : {}) });
  return { format: to, ...report };
}

/** Loaders of plain directories have one rotary table for all heads and would read ordered keys without a word, wrongly. */
function refuseOrderedKeys(source: string, names: Iterable<string>): void {
  const ordered = [...names].find((name) => name.endsWith(`.${ROPE_ORDER}`));
  if (ordered === undefined) return;
  throw new UnsupportedError(
    "unsupported.scheme",
    `${source} has key heads in orders of their own (${ordered}), which a plain directory cannot say; export --to onnx holds them, or quantize without sites=k`,
    { tensor: ordered, nearest: "onnx" },
  );
}

/** A weight that stands under its float name only after reading: its codes have another name or dtype. */
function isDequantized(stored: ReadonlyMap<string, LazyTensor>, name: string): boolean {
  const dtype = stored.get(name)?.dtype;
  return dtype === undefined || dtype === "I8" || dtype === "F8_E4M3";
}

/** The float dtype that holds the most bytes; BF16 when there is none. */
function floatDType(tensors: ReadonlyMap<string, LazyTensor>): DType {
  const bytes = new Map<DType, number>();
  for (const { name, dtype, byteLength: size } of tensors.values()) {
    if (!name.endsWith("_scale") && (dtype === "BF16" || dtype === "F16" || dtype === "F32"))
      bytes.set(dtype, (bytes.get(dtype) ?? 0) + size);
  }
  return [...bytes].toSorted(([, a], [, b]) => b - a)[0]?.[0] ?? "BF16";
}

function inDType(tensor: Tensor, dtype: DType): Tensor {
  return tensor.dtype === dtype ? tensor : fromFloat32(toFloat32(tensor), tensor.shape, dtype);
}
