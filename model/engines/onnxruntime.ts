/**
 * Engine `onnxruntime`: onnxruntime-node, an optional dependency, on the CPU or with CUDA.
 *
 * `run` blocks the JavaScript thread while the runtime computes (its binding is synchronous); the event loop
 * turns once before each run, so signals are seen between runs.
 * @module
 */
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import type { InferenceSession } from "onnxruntime-common";
import { InputError, UnsupportedError } from "../../core/errors.ts";
import { encodeOnnxModel } from "../../formats/containers/onnx/write.ts";
import { GraphBuilder } from "../graph/builder.ts";
import { graphToOnnx } from "../graph/to-onnx.ts";
import type { Engine } from "./engine.ts";
import { createOrtEngine, type OrtRuntime } from "./ort/engine.ts";

/** How to get onnxruntime-node where its own install step is refused. */
export const INSTALL_ONNXRUNTIME = "ONNXRUNTIME_NODE_INSTALL=skip npm i onnxruntime-node@1.30.0";

export interface OnnxRuntimeOptions {
  /**
   * Threads inside an operator; default one per core, at most 16. Up to 3 threads give the same bits; with more, the runtime
   * splits some sums otherwise (seen: ReduceSum of a MatMul with 4 threads, Gemm over 1536 columns with 8), so last bits may differ.
   */
  readonly threads?: number;
  /** "cpu" (default) or "cuda"; CUDA needs the libraries that onnxruntime-node's install step fetches. */
  readonly device?: "cpu" | "cuda";
}

/** The threads an engine uses. @throws {InputError} `input.option` unless a whole number from 1 to 1024. */
export function resolveThreads(threads: number = Math.min(availableParallelism(), 16)): number {
  if (Number.isInteger(threads) && threads >= 1 && threads <= 1024) return threads;
  throw new InputError("input.option", `threads must be a whole number from 1 to 1024, got ${threads}`, { threads });
}

/**
 * @throws {UnsupportedError} `unsupported.backend` when onnxruntime-node is not installed (the message says how), does not
 *   load on this machine, or was built without the device asked for.
 */
export async function createOnnxRuntimeEngine(options: OnnxRuntimeOptions = {}): Promise<Engine> {
  const threads = resolveThreads(options.threads);
  const device = options.device ?? "cpu";
  const { runtime, version } = await loadOnnxRuntime();
  const session: InferenceSession.SessionOptions = {
    executionProviders: device === "cpu" ? ["cpu"] : [device, "cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: "sequential",
    graphOptimizationLevel: "all",
    // Errors come back as exceptions; the runtime need not print them as well.
    logSeverityLevel: 4,
  };
  if (device !== "cpu") await assertDevice(runtime, device, version, session);
  return createOrtEngine({
    name: "onnxruntime",
    description: `onnxruntime-node ${version}, ${device === "cpu" ? "" : `${device}, `}${threads} thread${threads === 1 ? "" : "s"}`,
    runtime,
    session,
    isNative: true,
  });
}

/** Device libraries load with the first session, so one is made and let go. */
async function assertDevice(runtime: OrtRuntime, device: string, version: string, options: InferenceSession.SessionOptions): Promise<void> {
  const builder = new GraphBuilder("probe");
  builder.input("x", "F32", [1]);
  const model = encodeOnnxModel(graphToOnnx(builder.build([builder.op("Identity", ["x"])])));
  try {
    await (await runtime.InferenceSession.create(model, options)).release();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UnsupportedError(
      "unsupported.backend",
      `onnxruntime-node ${version} cannot use ${device} here (${reason}); reinstall it without ONNXRUNTIME_NODE_INSTALL=skip, or use device cpu`,
      { device, reason },
      { cause },
    );
  }
}

async function loadOnnxRuntime(): Promise<{ runtime: OrtRuntime; version: string }> {
  const require = createRequire(import.meta.url);
  let manifest: { readonly version: string };
  try {
    manifest = require("onnxruntime-node/package.json") as { readonly version: string };
  } catch (cause) {
    throw new UnsupportedError(
      "unsupported.backend",
      `onnxruntime-node is not installed (npm leaves it out silently where its download is refused); install it: ${INSTALL_ONNXRUNTIME}`,
      { package: "onnxruntime-node", install: INSTALL_ONNXRUNTIME },
      { cause },
    );
  }
  try {
    return { runtime: require("onnxruntime-node") as OrtRuntime, version: manifest.version };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UnsupportedError(
      "unsupported.backend",
      `onnxruntime-node ${manifest.version} does not load on this machine: ${reason}`,
      { package: "onnxruntime-node", version: manifest.version, reason },
      { cause },
    );
  }
}
