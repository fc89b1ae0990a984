// Compact files to tensors, hashes and source files, in a browser. No part of it touches the page.
import { openCompact, sha256Of } from "./compact.mjs";

/** The module that decodes, and what files end with. */
export const WASM = "compact.wasm";
export const EXTENSION = ".compact";

/** Source files beyond this are not put together in memory; their tensors are hashed all the same. */
const MAX_SOURCE_BYTES = 2 ** 30;

/** Files of the artifact that bitwright.json describes; it has no sizes. */
export function filesOf(manifest) {
  const { format, weights } = manifest ?? {};
  return { names: format === "compact" && Array.isArray(weights) ? weights.map(String) : [], bytes: undefined };
}

/** Compact files say themselves what their tensors hash to: nothing else of bitwright.json is needed. */
export function readManifest() {
  return undefined;
}

/**
 * Decode files and report each tensor as it comes.
 *
 * @param {BufferSource} wasm - bytes of compact.wasm.
 * @param {readonly { name: string, blob: Blob }[]} files - compact files.
 * @param {undefined} _manifest - see `readManifest`.
 * @param {{ tensor(tensor), source(source) }} report - `tensor`: { name, bytes, sha256, expected }; `source`: { name, bytes, sha256, content }.
 * @returns {Promise<{ tensors: number, wrong: number, missing: readonly string[], total: string }>}
 */
export async function restoreFiles(wasm, files, _manifest, report) {
  const module = await WebAssembly.compile(wasm);
  const found = new Map();
  let wrong = 0;
  for (const { name: file, blob } of files) {
    const read = async (offset, length) => new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
    try {
      const { header, tensors, decode } = await openCompact({ size: blob.size, read }, module);
      const size = [...tensors.values()].reduce((sum, { bytes }) => sum + bytes, header.length);
      const content = size <= MAX_SOURCE_BYTES ? new Uint8Array(size) : undefined;
      content?.set(header);
      let at = header.length;
      for (const { name, sha256: expected } of tensors.values()) {
        if (found.has(name)) throw new Error(`tensor ${name} is there twice`);
        const bytes = await decode(name, { sha256: false });
        const hash = await sha256Of(bytes);
        if (hash !== expected) wrong++;
        found.set(name, hash);
        content?.set(bytes, at);
        at += bytes.length;
        report.tensor({ name, bytes: bytes.length, sha256: hash, expected });
      }
      if (content !== undefined)
        report.source({ name: file.slice(0, -EXTENSION.length), bytes: size, sha256: await sha256Of(content), content });
    } catch (cause) {
      throw new Error(`${file}: ${cause.message}`, { cause });
    }
  }
  const lines = [...found.keys()].toSorted(byCodePoint).map((name) => `${found.get(name)}  ${name}\n`);
  return { tensors: found.size, wrong, missing: [], total: await sha256Of(new TextEncoder().encode(lines.join(""))) };
}

const byCodePoint = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
