/**
 * Plan: what a run will do and what it will take, as pure data.
 * @module
 */
import { basename, resolve } from "node:path";
import { byteLength, elementCount } from "../core/dtype.ts";
import type { TensorSpec } from "../formats/containers/container.ts";
import type { Model } from "../model/model.ts";
import { isLossless, planLossless } from "./lossless/run.ts";
import { refuseKernels } from "./kernels/artifact.ts";
import { onnxSource } from "./onnx/prepare.ts";
import { floatDType, planFloatDirectory } from "./float-directory.ts";
import { wantsOnnxDirectory } from "./onnx-directory.ts";
import { planOnnx } from "./onnx/run.ts";
import { prepare, type Prepared } from "./prepare.ts";
import type { Plan, QuantizeOptions } from "./types.ts";

export const DEFAULT_SAMPLES = 128;
export const DEFAULT_SEQUENCE_LENGTH = 512;

const MIB = 2 ** 20;
/** Node, the engine's library and the kernels, before any model. */
const BASE_BYTES = 150 * MIB;
/** Buffers of one streaming worker. */
const WORKER_BYTES = 24 * MIB;
/** Measured on a two-core laptop-class machine; the estimate says "about". */
const STREAM_BYTES_PER_SECOND = 500e6;
const FLOAT_OPS_PER_SECOND = 100e9;
/** Forward passes that searches take, in passes over the trial tokens. */
const SEARCH_PASSES = 60;
const SEARCH_TOKENS = 512;

/**
 * The resolved recipe with sizes and costs; nothing is written and no engine started.
 *
 * @throws {InputError}, {FormatError}, {UnsupportedError} as `quantize` would before it starts.
 */
export async function planQuantization(source: string | Model, options: QuantizeOptions): Promise<Plan> {
  if (isLossless(options.recipe)) return planLossless(source, options);
  const onnx = await onnxSource(source);
  if (onnx !== undefined) {
    refuseKernels(options.recipe.kernels, "ONNX");
    return planOnnx(onnx, options);
  }
  if (wantsOnnxDirectory(options) && floatDType(options.recipe) !== undefined) {
    const path = typeof source === "string" ? source : source.directory;
    if (path !== undefined) return planFloatDirectory(path, options);
  }
  return makePlan(await prepare(source, options), options);
}

/** The plan of a prepared run. Holds no absolute path, so that equal runs have equal plans. */
export function makePlan(prepared: Prepared, options: QuantizeOptions): Plan {
  const { model, settings, choices, targets, statistics, sourceBytes, parameters } = prepared;
  const outputBytes = targets.reduce((sum, { layout }) => sum + layout.bytes, 0);
  const calibration =
    statistics.length === 0 && !prepared.needsSearch
      ? undefined
      : {
          samples: options.sequences?.length ?? options.samples ?? DEFAULT_SAMPLES,
          sequenceLength:
            options.sequences?.reduce((longest, ids) => Math.max(longest, ids.length), 0) ??
            options.sequenceLength ??
            Math.min(DEFAULT_SEQUENCE_LENGTH, model.facts.maxPositions),
          statistics,
        };
  const tokens = calibration === undefined || options.calibration !== undefined ? 0 : calibration.samples * calibration.sequenceLength;
  const quantized = choices.filter(({ plan }) => plan.weight !== undefined);
  const weights = quantized.reduce((sum, { site }) => sum + site.rows * site.cols, 0);
  const siteBytes = targets[0]!.layout;
  const stored = [...siteBytes.sites.values()].flatMap(({ tensors }) => tensors.map(({ name }) => name));
  const storedBits = stored.reduce((sum, name) => sum + 8 * specBytes(siteBytes.places.get(name)!.spec), 0);
  return {
    version: 1,
    source: { path: basename(resolve(prepared.path)), family: model.facts.family, parameters, bytes: sourceBytes },
    recipe: options.recipe,
    transforms: settings.transforms.map(({ name }) => name),
    method: settings.method.name,
    sites: choices.map(({ plan }) => plan),
    exports: targets.map((target) => target.export.name),
    pairs: prepared.pairs,
    scaleDType: prepared.scaleDType,
    arithmetic: settings.arithmetic,
    notes: prepared.notes,
    ...(calibration && { calibration }),
    estimate: {
      outputBytes,
      // Partial files become the artifact, so nothing is on disk twice; journal and metadata are small.
      diskBytes: outputBytes + 32 * MIB,
      memoryBytes: memoryEstimate(prepared, options, tokens),
      seconds: secondsEstimate(prepared, tokens),
      bitsPerWeight: weights === 0 ? 0 : storedBits / weights,
    },
  };
}

const specBytes = ({ dtype, shape }: TensorSpec): number => byteLength(dtype, shape);

function memoryEstimate({ model, needsSearch }: Prepared, options: QuantizeOptions, tokens: number): number {
  const workers = options.workers ?? 2;
  const streaming = BASE_BYTES + workers * WORKER_BYTES;
  if (tokens === 0) return streaming;
  const blockBytes = Math.max(
    ...model.blocks.map((block) => [...block.weights.values()].reduce((sum, { shape }) => sum + 4 * elementCount(shape), 0)),
  );
  // The block being run, the one read ahead (or its trial copy), the activations of a batch, and the samples' hidden states.
  const carried = Math.min(4 * tokens * model.facts.hiddenSize * (needsSearch ? 2 : 1), options.maxMemory ?? 2 ** 30);
  const batch = 1024 * model.facts.hiddenSize * 4 * 32;
  return streaming + (needsSearch ? 3 : 2) * blockBytes + carried + batch;
}

function secondsEstimate({ model, choices, sourceBytes, needsSearch }: Prepared, tokens: number): number {
  const operations = 2 * choices.reduce((sum, { site }) => sum + (site.kind === "embedding" ? 0 : site.rows * site.cols), 0);
  const attention = 4 * model.facts.hiddenSize * Math.min(512, model.facts.maxPositions) * model.blocks.length;
  const forward = ((operations + attention) * tokens) / FLOAT_OPS_PER_SECOND;
  const search = needsSearch ? ((operations + attention) * SEARCH_PASSES * SEARCH_TOKENS) / FLOAT_OPS_PER_SECOND : 0;
  return forward + search + sourceBytes / STREAM_BYTES_PER_SECOND + 0.5;
}
