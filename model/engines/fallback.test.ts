import Module, { createRequire } from "node:module";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { GraphBuilder } from "../graph/builder.ts";
import type { Engine } from "./engine.ts";
import { createEngine } from "./index.ts";

type Resolve = (request: string, ...rest: unknown[]) => string;
/** Node's hook that `require` asks; underscored, but what every loader shim sets. */
const HOOK = "_resolveFilename";
const loader = Module as unknown as Record<typeof HOOK, Resolve>;
const resolve = loader[HOOK];
afterEach(() => {
  loader[HOOK] = resolve;
});

/** Answer `require` of a package otherwise than the disk does. */
function intercept(answer: (request: string) => string | undefined): void {
  loader[HOOK] = (request, ...rest) => answer(request) ?? resolve(request, ...rest);
}

async function double(engine: Engine): Promise<unknown> {
  const builder = new GraphBuilder("double");
  builder.input("x", "F32", [2]);
  const compiled = await engine.compile(builder.build([builder.op("Add", ["x", "x"], {}, "y")]));
  return (await compiled.run({ x: { dtype: "F32", shape: [2], data: Float32Array.of(1, -3) } }))["y"]!.data;
}

test("auto is the WASM runtime where onnxruntime-node is missing, and says so; onnxruntime says how to install it", async () => {
  intercept((request) => {
    if (request.startsWith("onnxruntime-node")) throw Object.assign(new Error(`no ${request}`), { code: "MODULE_NOT_FOUND" });
    return undefined;
  });
  await expect(createEngine("onnxruntime")).rejects.toMatchObject({
    code: "unsupported.backend",
    message: expect.stringContaining("ONNXRUNTIME_NODE_INSTALL=skip npm i onnxruntime-node@") as unknown,
  });
  const fallback = await createEngine("auto");
  expect(fallback.name).toBe("onnxruntime-web");
  expect(fallback.description).toContain("onnxruntime-node is missing");
  expect(await double(fallback)).toEqual(Float32Array.of(2, -6));
  await fallback.close();
});

test("tfjs takes @tensorflow/tfjs-node when it is installed", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bitwright-"));
  const vendored = createRequire(import.meta.url).resolve("./generated/tfjs/tfjs.cjs");
  // A stand-in with the package's interface: the namespace, ready by itself, on its own backend.
  writeFileSync(join(folder, "node.cjs"), `const tf = require(${JSON.stringify(vendored)}); tf.setBackend("cpu"); module.exports = tf;`);
  intercept((request) => {
    if (request === "@tensorflow/tfjs-node-gpu") throw Object.assign(new Error("none"), { code: "MODULE_NOT_FOUND" });
    return request === "@tensorflow/tfjs-node" ? join(folder, "node.cjs") : undefined;
  });
  const engine = await createEngine("tfjs");
  expect(engine.description).toBe("@tensorflow/tfjs-node 4.22.0");
  expect(await double(engine)).toEqual(Float32Array.of(2, -6));
  await engine.close();
  rmSync(folder, { recursive: true });
});
