/**
 * Checks of written ONNX artifacts: hashes, structure, a session that loads them, and outputs beside those of the source.
 * @module
 */
import { join } from "node:path";
import { FormatError, QuantError, throwIfAborted, UnsupportedError } from "../../core/errors.ts";
import { toFloat32, type Tensor } from "../../core/tensor.ts";
import { openOnnx } from "../../formats/containers/onnx/read.ts";
import { bytesOf } from "../../model/host-tensor.ts";
import type { Engine, HostTensor } from "../../model/engines/engine.ts";
import { createEngine, REPRODUCIBLE_THREADS } from "../../model/engines/index.ts";
import type { Model } from "../../model/model.ts";
import { bodiesOf } from "../../model/onnx/bodies.ts";
import { withCompiled } from "../../model/onnx/run.ts";
import { findQuantizedSites } from "../../model/onnx/sites.ts";
import { onnxToModel, openOnnxModel } from "../../model/sources/onnx.ts";
import { checkFiles } from "../check-files.ts";
import { readManifest } from "../manifest.ts";
import type { VerifyReport } from "../types.ts";
import type { OnnxSamples } from "./samples.ts";

export interface VerifyOnnxOptions {
  readonly engine?: Engine;
  readonly signal?: AbortSignal;
}

/**
 * Re-read an artifact: every file hashed, the model parsed and checked, and loaded by an engine.
 *
 * @returns problems as data.
 * @throws {FormatError} `format.missing` when there is no manifest.
 */
export async function verifyOnnx(directory: string, { engine, signal }: VerifyOnnxOptions = {}): Promise<VerifyReport> {
  const manifest = await readManifest(directory);
  const problems = await checkFiles(directory, Object.entries(manifest.files), signal);
  const name = Object.keys(manifest.files).find((file) => file.endsWith(".onnx"));
  if (name === undefined) throw new FormatError("format.field", `${directory}: the manifest lists no .onnx file`, { directory });
  if (problems.length > 0) return { ok: false, tensors: 0, problems };
  let tensors = 0;
  try {
    tensors = await checkModel(
      join(directory, name),
      manifest.plan.sites.some(({ weight }) => weight !== undefined),
      problems,
    );
    problems.push(...(await checkLoads(join(directory, name), engine)));
  } catch (error) {
    if (!(error instanceof QuantError)) throw error;
    problems.push({ tensor: name, problem: error.message });
  }
  const worst = manifest.sites.reduce<VerifyReport["worst"]>(
    (least, site) =>
      site.sqnr !== null && (least === undefined || site.sqnr < least.sqnr) ? { tensor: site.name, sqnr: site.sqnr } : least,
    undefined,
  );
  return { ok: problems.length === 0, tensors, ...(worst && { worst }), problems };
}

async function checkModel(path: string, isQuantized: boolean, problems: { tensor: string; problem: string }[]): Promise<number> {
  const model = await openOnnx(path);
  await model.close();
  const integers = bodiesOf(model).some(({ nodes }) => nodes.some(({ op }) => op === "DequantizeLinear" || op === "Cast"));
  if (isQuantized && !integers && findQuantizedSites(model).length === 0)
    problems.push({ tensor: path, problem: "holds no quantized operator" });
  return bodiesOf(model).reduce((sum, { initializers }) => sum + initializers.size, 0);
}

/** A session for the file. A model with operators no engine knows is none the worse for it. */
async function checkLoads(path: string, given: Engine | undefined): Promise<readonly { tensor: string; problem: string }[]> {
  const engine = given ?? (await createEngine("auto", { threads: REPRODUCIBLE_THREADS }));
  try {
    const model = await openOnnxModel(path);
    const compiled = await engine.compile(model.blocks[0]!.graph);
    await compiled.release();
    return [];
  } catch (error) {
    if (error instanceof UnsupportedError) return [];
    if (!(error instanceof QuantError)) throw error;
    return [{ tensor: path, problem: error.message }];
  } finally {
    if (given === undefined) await engine.close();
  }
}

/** Outputs of the artifact beside those of its source. */
export interface OutputComparison {
  readonly samples: number;
  /** Mean over runs and float outputs. */
  readonly cosine?: number;
  readonly worst?: number;
  readonly notes: readonly string[];
}

/** Runs compared: enough to see a broken artifact, few beside the calibration. */
const COMPARED_RUNS = 16;

/** Run source and artifact on some of the samples. @throws what the engines throw, but for operators they lack. */
export async function compareOutputs(
  source: Model,
  path: string,
  samples: OnnxSamples,
  engine: Engine,
  signal: AbortSignal | undefined,
): Promise<OutputComparison> {
  if (samples.length === 0) return { samples: 0, notes: [] };
  const model = await openOnnx(path);
  await model.close();
  const artifact = onnxToModel(model, path);
  const cosines: number[] = [];
  let runs = 0;
  await withCompiled(engine, [source, artifact], async ([before, after]) => {
    for await (const { inputs } of samples.runs()) {
      throwIfAborted(signal);
      const [a, b] = [await before!.run(inputs), await after!.run(inputs)];
      for (const output of source.outputs) {
        const found = cosine(floats(a[output]!), floats(b[output]!));
        if (found !== undefined) cosines.push(found);
      }
      if (++runs === COMPARED_RUNS) break;
    }
  });
  if (cosines.length === 0) return { samples: runs, notes: [] };
  const mean = cosines.reduce((sum, value) => sum + value, 0) / cosines.length;
  const worst = Math.min(...cosines);
  return {
    samples: runs,
    cosine: mean,
    worst,
    notes: [`outputs beside the source's on ${runs} runs of the data: mean cosine ${mean.toFixed(5)}, worst ${worst.toFixed(5)}`],
  };
}

function floats(tensor: HostTensor): Float32Array | undefined {
  const { dtype, shape } = tensor;
  if (dtype === "F32") return tensor.data as Float32Array;
  if (dtype !== "F16" && dtype !== "F64") return undefined;
  const whole: Tensor = { dtype, shape, bytes: bytesOf(tensor) };
  return toFloat32(whole);
}

/** Of two vectors of one length; 1 where both are zero. */
function cosine(a: Float32Array | undefined, b: Float32Array | undefined): number | undefined {
  if (a === undefined || b === undefined || a.length === 0 || a.length !== b.length) return undefined;
  let [dot, first, second] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    first += a[i]! * a[i]!;
    second += b[i]! * b[i]!;
  }
  if (first === 0 || second === 0) return first === second ? 1 : 0;
  return dot / Math.sqrt(first * second);
}
