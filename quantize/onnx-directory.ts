/**
 * `--to onnx` and `--to transformersjs` for model directories: the recipe makes an artifact, whose codes then become an ONNX file.
 * The artifact lies in `<out>/.artifact` until the file is written, so that an interrupted run continues.
 * @module
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import type { Model } from "../model/model.ts";
import { exportOnnxDirectory, STAGING } from "./exports/transformersjs/export.ts";
import { floatDType, quantizeFloatDirectory } from "./float-directory.ts";
import type { QuantizeOptions, QuantizeReport } from "./types.ts";

const TARGETS: readonly string[] = ["onnx", "transformersjs"];

/** Whether a run ends in ONNX files of a model directory. */
export function wantsOnnxDirectory({ to }: QuantizeOptions): boolean {
  return to?.some((name) => TARGETS.includes(name)) === true;
}

/**
 * Quantize a model directory into `<out>/onnx/…`, with its configuration and tokenizer.
 *
 * @param run - the main job, for the artifact.
 * @throws {InputError} `input.option` beside other targets, or for an open model; else as `run` and `exportOnnxDirectory`.
 */
export async function quantizeToOnnx(
  source: string | Model,
  options: QuantizeOptions,
  run: (source: string, options: QuantizeOptions) => Promise<QuantizeReport>,
): Promise<QuantizeReport> {
  const targets = [...new Set(options.to)];
  const [to] = targets;
  if (targets.length > 1 || to === undefined) {
    throw new InputError("input.option", `--to ${targets.join(",")}: onnx and transformersjs go alone; export the artifact for the other`, {
      option: "to",
      given: targets,
    });
  }
  const path = typeof source === "string" ? source : source.directory;
  if (path === undefined) throw new InputError("input.option", `--to ${to} needs a model directory`, { option: "to" });
  if (floatDType(options.recipe) !== undefined) return quantizeFloatDirectory(path, to, options);
  const started = performance.now();
  const staging = join(options.out, STAGING);
  const report = await run(path, { ...options, to: ["compressed-tensors"], out: staging });
  const { signal, onProgress } = options;
  const written = await exportOnnxDirectory(staging, {
    out: options.out,
    force: options.force === true,
    ...(signal && { signal }),
    ...(onProgress && { onProgress }),
  });
  await rm(staging, { recursive: true, force: true });
  return {
    ...report,
    out: [{ format: to, directory: options.out, bytes: written.bytes, files: written.files.map(({ name }) => name) }],
    outputBytes: written.bytes,
    seconds: (performance.now() - started) / 1000,
  };
}
