// Puts the vendored engines into model/engines/generated/: onnxruntime-web's three files for Node, with their licence.
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dirname);
const require = createRequire(import.meta.url);
const target = join(root, "model/engines/generated");

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
  copyOnnxRuntimeWeb();
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
