/**
 * Engine `onnxruntime-web`: the WASM build of ONNX Runtime that this package carries, for machines without onnxruntime-node.
 * One thread; about a third of the native speed.
 * @module
 */
import { readFile } from "node:fs/promises";
import type { Env } from "onnxruntime-common";
import { UnsupportedError } from "../../core/errors.ts";
import type { Engine } from "./engine.ts";
import { createOrtEngine, type OrtRuntime } from "./ort/engine.ts";

const FOLDER = new URL("./generated/onnxruntime-web/", import.meta.url);

interface OnnxRuntimeWeb extends OrtRuntime {
  readonly env: Env;
}

/** @throws {UnsupportedError} `unsupported.backend` when the vendored files are missing. */
export async function createOnnxRuntimeWebEngine(): Promise<Engine> {
  const runtime = await loadOnnxRuntimeWeb();
  return createOrtEngine({
    name: "onnxruntime-web",
    description: `onnxruntime-web ${runtime.env.versions.web ?? runtime.env.versions.common} (WASM, 1 thread)`,
    runtime,
    session: { executionProviders: ["wasm"], graphOptimizationLevel: "all", logSeverityLevel: 4 },
  });
}

let loading: Promise<OnnxRuntimeWeb> | undefined;

async function loadOnnxRuntimeWeb(): Promise<OnnxRuntimeWeb> {
  loading ??= (async () => {
    try {
      const runtime = (await import(new URL("ort.node.min.mjs", FOLDER).href)) as OnnxRuntimeWeb;
      runtime.env.wasm.numThreads = 1;
      runtime.env.wasm.proxy = false;
      runtime.env.wasm.wasmPaths = FOLDER.href;
      runtime.env.wasm.wasmBinary = await readFile(new URL("ort-wasm-simd-threaded.wasm", FOLDER));
      return runtime;
    } catch (cause) {
      throw new UnsupportedError(
        "unsupported.backend",
        `the vendored onnxruntime-web does not load from ${FOLDER.pathname}; in a checkout run: node scripts/build.js engines`,
        { folder: FOLDER.pathname },
        { cause },
      );
    }
  })();
  return loading;
}
