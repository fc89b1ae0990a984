/**
 * The engines, by name.
 * @module
 */
import { InputError, UnsupportedError } from "../../core/errors.ts";
import type { Engine } from "./engine.ts";
import { createOnnxRuntimeEngine, INSTALL_ONNXRUNTIME, type OnnxRuntimeOptions } from "./onnxruntime.ts";
import { createOnnxRuntimeWebEngine } from "./onnxruntime-web.ts";
import { createTfjsEngine } from "./tfjs.ts";

export type EngineOptions = OnnxRuntimeOptions;

export type EngineName = "onnxruntime" | "onnxruntime-web" | "tfjs";

const ENGINES: Readonly<Record<EngineName, (options: EngineOptions) => Promise<Engine>>> = {
  onnxruntime: createOnnxRuntimeEngine,
  "onnxruntime-web": createOnnxRuntimeWebEngine,
  tfjs: createTfjsEngine,
};

/**
 * Threads for runs whose results become bytes. ONNX Runtime gives the same bits for one and two threads, but splits
 * some sums differently from four on (measured), so such runs never use more, whatever the worker count.
 */
export const REPRODUCIBLE_THREADS = 2;

/** In the order of the table. */
export const ENGINE_NAMES: readonly EngineName[] = Object.keys(ENGINES) as EngineName[];

/**
 * @param name - "auto" is onnxruntime, or the vendored onnxruntime-web where onnxruntime-node is missing or does not load;
 *   its `description` then says so and how to get the faster one.
 * @throws {InputError} `input.option` for a name that no engine has.
 * @throws {UnsupportedError} `unsupported.backend` when the engine cannot run here.
 */
export async function createEngine(name: EngineName | "auto", options: EngineOptions = {}): Promise<Engine> {
  if (name === "auto") return createDefaultEngine(options);
  if (!Object.hasOwn(ENGINES, name)) {
    throw new InputError("input.option", `no engine is called "${name as string}"; there are auto, ${ENGINE_NAMES.join(", ")}`, { name });
  }
  return ENGINES[name](options);
}

async function createDefaultEngine(options: EngineOptions): Promise<Engine> {
  try {
    return await createOnnxRuntimeEngine(options);
  } catch (error) {
    // A device asked for by name is not replaced by another.
    if (!(error instanceof UnsupportedError) || (options.device !== undefined && options.device !== "cpu")) throw error;
    const engine = await createOnnxRuntimeWebEngine();
    const notice = `onnxruntime-node is missing or does not load: about 3 times slower; install it with: ${INSTALL_ONNXRUNTIME}`;
    return { ...engine, description: `${engine.description}; ${notice}` };
  }
}
