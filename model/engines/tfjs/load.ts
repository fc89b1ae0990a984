/**
 * Finds a TensorFlow.js: tfjs-node-gpu or tfjs-node when installed, else the vendored WASM bundle.
 * @module
 */
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { UnsupportedError } from "../../../core/errors.ts";
import type { Backend, Tf } from "./call.ts";

const FOLDER = new URL("../generated/tfjs/", import.meta.url);

/** Optional peers, fastest first. */
const PEERS = ["@tensorflow/tfjs-node-gpu", "@tensorflow/tfjs-node"] as const;

export type TfjsPackage = (typeof PEERS)[number] | "vendored";

export interface LoadedTfjs extends Backend {
  readonly description: string;
}

interface VendoredTf extends Tf {
  readonly setWasmPaths: (prefix: string) => void;
}

let loading: Promise<LoadedTfjs> | undefined;

/**
 * Loaded once in a process: a backend cannot be unloaded.
 *
 * @throws {UnsupportedError} `unsupported.backend` when nothing loads; the message has every reason.
 */
export async function loadTfjs(): Promise<LoadedTfjs> {
  loading ??= findTfjs();
  return loading;
}

async function findTfjs(): Promise<LoadedTfjs> {
  const reasons: string[] = [];
  for (const name of PEERS) {
    try {
      const tf = loadPeer(name);
      if (tf === undefined) continue;
      await tf.ready();
      return { tf, splitBatches: false, description: `${name} ${tf.version_core}${notice(reasons)}` };
    } catch (error) {
      reasons.push(`${name} is installed but does not load: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  try {
    const tf = await loadVendored();
    return { tf, splitBatches: true, description: `TensorFlow.js ${tf.version_core} (vendored, WASM, 1 thread)${notice(reasons)}` };
  } catch (cause) {
    throw new UnsupportedError(
      "unsupported.backend",
      `the vendored TensorFlow.js does not load from ${fileURLToPath(FOLDER)}; in a checkout run: node scripts/build.js engines${notice(reasons)}`,
      { folder: fileURLToPath(FOLDER), reasons },
      { cause },
    );
  }
}

function notice(reasons: readonly string[]): string {
  return reasons.map((reason) => `; ${reason}`).join("");
}

/** @returns undefined when the package is not installed. */
function loadPeer(name: string): Tf | undefined {
  const require = createRequire(import.meta.url);
  try {
    require.resolve(name);
  } catch {
    return undefined;
  }
  // Node 23 removed a function that tfjs-node 4.22 calls.
  const util = require("node:util") as { isNullOrUndefined?: (value: unknown) => boolean };
  util.isNullOrUndefined ??= (value) => value === null || value === undefined;
  return require(name) as Tf;
}

/** Emscripten's loader listens to the process's errors and rethrows them; those listeners are taken off again. */
async function loadVendored(): Promise<Tf> {
  const events = ["uncaughtException", "unhandledRejection"] as const;
  const before = events.map((event) => new Set(process.listeners(event as "uncaughtException")));
  const folder = fileURLToPath(FOLDER);
  const tf = createRequire(import.meta.url)(`${folder}tfjs.cjs`) as VendoredTf;
  tf.setWasmPaths(folder);
  const ready = await tf.setBackend("wasm");
  for (const [i, event] of events.entries()) {
    for (const listener of process.listeners(event as "uncaughtException")) if (!before[i]!.has(listener)) process.off(event, listener);
  }
  if (!ready) throw new Error("its WASM backend does not start");
  return tf;
}
