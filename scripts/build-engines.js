// Puts the vendored engines into model/engines/generated/, with their licences: onnxruntime-web's three files for Node,
// and TensorFlow.js (core, gradients, WASM and CPU backends) as one bundle with its WASM files.
import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { rolldown } from "rolldown";

const root = dirname(import.meta.dirname);
const require = createRequire(import.meta.url);
const finished = join(root, "model/engines/generated");
// Built beside it and swapped in, so that a test that runs meanwhile does not meet half a folder.
const target = join(root, `node_modules/.cache/bitwright-engines-${process.pid}`);

// The npm package names its licence but does not carry the text.
const MIT = `MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`;

/** @returns {Promise<void>} */
export async function buildEngines() {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  try {
    copyOnnxRuntimeWeb();
    await bundleTensorFlow();
    rmSync(finished, { recursive: true, force: true });
    renameSync(target, finished);
  } finally {
    rmSync(target, { recursive: true, force: true });
  }
}

function copyOnnxRuntimeWeb() {
  const folder = join(target, "onnxruntime-web");
  mkdirSync(folder);
  const dist = dirname(require.resolve("onnxruntime-web"));
  for (const file of ["ort.node.min.mjs", "ort-wasm-simd-threaded.mjs"]) {
    // The maps stay behind, so the lines that point at them must too.
    writeFileSync(join(folder, file), readFileSync(join(dist, file), "utf8").replace(/^\/\/# sourceMappingURL=.*$/m, ""));
  }
  copyFileSync(join(dist, "ort-wasm-simd-threaded.wasm"), join(folder, "ort-wasm-simd-threaded.wasm"));
  writeFileSync(join(folder, "LICENSE"), MIT);
}

// The CommonJS build of tfjs-core registers no gradients, so the module build is bundled, back into CommonJS:
// its WASM loader wants `require` and `__dirname`.
const TENSORFLOW_ENTRY = `
export * from "@tensorflow/tfjs-core";
export { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-core/dist/register_all_gradients";
`;

async function bundleTensorFlow() {
  const folder = join(target, "tfjs");
  mkdirSync(folder);
  const entry = "\0tensorflow";
  const bundle = await rolldown({
    input: entry,
    platform: "node",
    resolve: { mainFields: ["module", "main"] },
    logLevel: "silent",
    plugins: [
      {
        name: "tensorflow-entry",
        resolveId: (id) => (id === entry ? { id, moduleSideEffects: true } : undefined),
        load: (id) => (id === entry ? TENSORFLOW_ENTRY : undefined),
      },
    ],
  });
  await bundle.write({ file: join(folder, "tfjs.cjs"), format: "cjs", minify: true });
  await bundle.close();
  const wasm = join(dirname(require.resolve("@tensorflow/tfjs-backend-wasm/package.json")), "dist");
  for (const file of ["tfjs-backend-wasm.wasm", "tfjs-backend-wasm-simd.wasm"]) copyFileSync(join(wasm, file), join(folder, file));
  writeFileSync(join(folder, "LICENSE"), `TensorFlow.js 4.22.0\nCopyright Google LLC\n\n${readFileSync(join(root, "LICENSE"), "utf8")}`);
}
