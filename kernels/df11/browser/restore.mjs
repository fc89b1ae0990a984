// Files of a DFloat11 artifact to tensors, hashes and source files, in a browser. No part of it touches the page.
import { createDecoder } from "./df11.mjs";

/** The module that decodes, and what files end with. */
export const WASM = "df11.wasm";
export const EXTENSION = ".safetensors";

const SUFFIXES = ["luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps", "split_positions"];
const MAX_HEADER_BYTES = 100_000_000;
/** Source files beyond this are not put together in memory; their tensors are hashed all the same. */
const MAX_SOURCE_BYTES = 2 ** 30;

/** Lower-case hex of the SHA-256 of bytes. */
export async function sha256(bytes) {
  if (globalThis.crypto?.subtle === undefined) throw new Error("SHA-256 needs https or localhost");
  return Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Tensors of a safetensors Blob, each a slice that has not been read yet. */
export async function openSafetensors(blob, name) {
  const fail = (text) => new Error(`${name}: ${text}`);
  if (blob.size < 8) throw fail("too short for a safetensors file");
  const length = Number(new DataView(await blob.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES || 8 + length > blob.size) throw fail("not a safetensors file, or cut short");
  const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(await blob.slice(8, 8 + length).arrayBuffer()));
  const tensors = new Map();
  for (const [key, entry] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const [from, to] = entry?.data_offsets ?? [];
    if (!Number.isSafeInteger(from) || !Number.isSafeInteger(to) || from < 0 || to < from || 8 + length + to > blob.size)
      throw fail(`tensor ${key} lies outside the file`);
    tensors.set(key, blob.slice(8 + length + from, 8 + length + to));
  }
  return tensors;
}

/** Files of the artifact that bitwright.json describes, and their size. */
export function filesOf(manifest) {
  const shards = manifest?.lossless?.shards ?? {};
  return { names: Object.keys(shards), bytes: Object.values(shards).reduce((sum, size) => sum + size, 0) };
}

/** What bitwright.json says: hashes, members of units, source files. Empty without one. */
export function readManifest(manifest) {
  const components = manifest?.lossless?.components ?? [];
  if (components.length > 1) throw new Error("pipelines of several components: give the files of one component without bitwright.json");
  const { tensors = {}, units = [], sources = [] } = components[0] ?? {};
  return {
    hashes: new Map(Object.entries(tensors).map(([name, { sha256: hash }]) => [name, hash])),
    members: new Map(units.map(({ name, tensors: names }) => [name, names])),
    sources,
  };
}

/**
 * Decode files and report each tensor as it comes.
 *
 * @param {BufferSource} wasm - bytes of df11.wasm.
 * @param {readonly { name: string, blob: Blob }[]} files - safetensors files.
 * @param {ReturnType<typeof readManifest>} manifest
 * @param {{ unit(unit), tensor(tensor), source(source) }} report - `unit`: { name, bytes, sha256 } before its tensors;
 *   `tensor`: { name, unit, bytes, sha256, expected }; `source`: { name, bytes, sha256, content }.
 * @returns {Promise<{ tensors: number, wrong: number, missing: readonly string[], total: string }>} missing: tensors the manifest has and the files have not.
 */
export async function restoreFiles(wasm, files, manifest, report) {
  const decode = await createDecoder(wasm);
  const places = await openSources(manifest.sources);
  const found = new Map();
  let wrong = 0;

  async function take(name, unit, bytes) {
    const hash = await sha256(bytes);
    const expected = manifest.hashes.get(name);
    if (found.has(name)) throw new Error(`tensor ${name} is there twice`);
    found.set(name, hash);
    if (expected !== undefined && expected !== hash) wrong++;
    for (const place of places) {
      const range = place.ranges.get(name);
      if (range === undefined) continue;
      if (range[1] - range[0] !== bytes.length) throw new Error(`tensor ${name} is not of the size it has in ${place.name}`);
      place.content.set(bytes, range[0]);
      place.left.delete(name);
    }
    report.tensor({ name, unit, bytes: bytes.length, sha256: hash, expected });
  }

  for (const { name: file, blob } of files) {
    const tensors = await openSafetensors(blob, file);
    const units = [...tensors.keys()].filter((name) => name.endsWith(".luts")).map((name) => name.slice(0, -".luts".length));
    for (const unit of units) {
      const parts = await readUnit(unit, tensors, file);
      let patterns;
      try {
        patterns = decode(parts);
      } catch (cause) {
        throw new Error(`${file}: unit ${unit}: ${cause.message}`, { cause });
      }
      const bytes = new Uint8Array(patterns.buffer);
      report.unit({ name: unit, bytes: bytes.length, sha256: await sha256(bytes) });
      const ends = [...splitPositions(parts.splitPositions, patterns.length, unit), patterns.length];
      const names = manifest.members.get(unit) ?? (ends.length === 1 ? [`${unit}.weight`] : ends.map((_, i) => `${unit} part ${i + 1}`));
      if (names.length !== ends.length) throw new Error(`unit ${unit} has ${ends.length} tensors, bitwright.json names ${names.length}`);
      for (const [i, name] of names.entries()) await take(name, unit, bytes.subarray(2 * (ends[i - 1] ?? 0), 2 * ends[i]));
    }
    const owned = new Set(units.flatMap((unit) => SUFFIXES.map((suffix) => `${unit}.${suffix}`)));
    for (const [name, slice] of tensors) {
      if (!owned.has(name)) await take(name, undefined, new Uint8Array(await slice.arrayBuffer()));
    }
  }

  for (const { name, content, left } of places) {
    if (left.size === 0) report.source({ name, bytes: content.length, sha256: await sha256(content), content });
  }
  const lines = [...found.keys()].toSorted(byCodePoint).map((name) => `${found.get(name)}  ${name}\n`);
  return {
    tensors: found.size,
    wrong,
    missing: [...manifest.hashes.keys()].filter((name) => !found.has(name)),
    total: await sha256(new TextEncoder().encode(lines.join(""))),
  };
}

const byCodePoint = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

async function readUnit(unit, tensors, file) {
  const arrays = [];
  for (const suffix of SUFFIXES) {
    const slice = tensors.get(`${unit}.${suffix}`);
    if (slice === undefined) throw new Error(`${file}: unit ${unit} has no ${suffix}`);
    arrays.push(new Uint8Array(await slice.arrayBuffer()));
  }
  const [luts, encodedExponent, signMantissa, outputPositions, gaps, splits] = arrays;
  return { luts, encodedExponent, signMantissa, outputPositions, gaps, splitPositions: splits };
}

/** I64 little-endian, increasing inside the unit. */
function splitPositions(bytes, elements, unit) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const positions = Array.from({ length: Math.floor(bytes.length / 8) }, (_, i) => Number(view.getBigInt64(8 * i, true)));
  if (positions.some((position, i) => position < (positions[i - 1] ?? 0) || position > elements))
    throw new Error(`unit ${unit}: split_positions do not fit`);
  return positions;
}

/** Source files in memory, their headers in place and their tensors still to come. */
async function openSources(sources) {
  const opened = [];
  for (const { name, bytes, header } of sources) {
    if (bytes > MAX_SOURCE_BYTES) continue;
    const packed = Uint8Array.from(atob(header), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const head = new Uint8Array(await new Response(stream).arrayBuffer());
    const content = new Uint8Array(bytes);
    content.set(head);
    const entries = Object.entries(JSON.parse(new TextDecoder().decode(head.subarray(8)))).filter(([key]) => key !== "__metadata__");
    const ranges = new Map(
      entries.map(
        ([
          key,
          {
            data_offsets: [from, to],
          },
        ]) => [key, [head.length + from, head.length + to]],
      ),
    );
    opened.push({ name, content, ranges, left: new Set(ranges.keys()) });
  }
  return opened;
}
