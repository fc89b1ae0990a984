// Compact files (.compact) to tensors in JavaScript with WASM SIMD, for Node 20 and browsers, without dependencies.
//
//   import { openCompact } from "./compact.mjs";
//   const wasm = await (await fetch("compact.wasm")).arrayBuffer();
//   const file = await openCompact(new Uint8Array(await (await fetch("model.safetensors.compact")).arrayBuffer()), wasm);
//   for (const { name, dtype, shape, bytes, sha256 } of file.tensors.values()) …
//   const weights = await file.decode("model.embed_tokens.weight");      // Uint8Array of the tensor's bytes
//
//   node compact.mjs ..        decodes a tensor of the artifact in .. and compares its SHA-256
//
// Damaged files give an error that names the tensor: lengths, checksums of blocks and SHA-256 are checked.
// One thread, no shared memory: a page needs no special headers. The format: docs/formats/compact.md of bitwright.
import { createBlockDecoder } from "./compact-block.mjs";
import { BITS, parseTail, TAIL_BYTES, tailLength, viewOf } from "./compact-tail.mjs";

const MAGIC = [0x89, 0x42, 0x57, 0x43, 0x0d, 0x0a, 0x1a, 0x0a];
const VERSION = 1;
const PREFIX_BYTES = 16;
const FOOTER_BYTES = 32;
const FIXED_BYTES = 16;
const HASH_BYTES = 32;
const TENSOR_BYTES = 4 + 8 + HASH_BYTES;
const MAX_PLAIN_BYTES = 300_000_000;
/** Deflate makes nothing more than this many times smaller. */
const MAX_RATIO = 1032;
/** Stored bytes read at a time. */
const BATCH_BYTES = 8 * 2 ** 20;

/**
 * @typedef {{ name: string, dtype: string, shape: readonly number[], bytes: number, sha256: string }} CompactTensor
 * @typedef {{ size: number, read(offset: number, length: number): Uint8Array | Promise<Uint8Array> }} CompactSource
 */

/**
 * Opens a file and checks its directory.
 *
 * @param {Uint8Array | CompactSource} source - the bytes, or what reads ranges of them (a file, a Blob, requests with a range).
 * @param {BufferSource | WebAssembly.Module} wasm - compact.wasm.
 * @returns {Promise<{ tensors: ReadonlyMap<string, CompactTensor>, header: Uint8Array, metadata: ReadonlyMap<string, string>,
 *   decode(name: string, options?: { sha256?: boolean }): Promise<Uint8Array> }>} `tensors` in the order of their data: `header` and their bytes one
 *   after the other are the safetensors file. `decode` compares the SHA-256 (crypto.subtle: https or localhost) unless told `sha256: false`;
 *   checksums of blocks are compared always.
 */
export async function openCompact(source, wasm) {
  const read = reader(source);
  const { decodeBlock, checksum } = await createBlockDecoder(wasm);
  const { header, entries, fileBytes } = await readDirectory(read, source.size ?? source.length, checksum);
  const { tensors, metadata } = parseHeader(header, fileBytes);
  if (tensors.length !== entries.length) throw new Error(`the header names ${tensors.length} tensors, the directory ${entries.length}`);
  const places = new Map();
  let at = PREFIX_BYTES;
  for (const [i, tensor] of tensors.entries()) {
    const { copyOf, stored, sha256 } = entries[i];
    const first = tensors[copyOf] ?? tensor;
    if (first.dtype !== tensor.dtype || first.shape.join() !== tensor.shape.join())
      throw new Error(`tensor ${tensor.name} is no copy of ${first.name}`);
    const [offset, length] = copyOf === undefined ? [at, stored] : places.get(first.name).range;
    places.set(tensor.name, { tensor: Object.freeze({ ...tensor, sha256 }), range: [offset, length] });
    at += stored;
  }

  async function decode(name, options = {}) {
    const place = places.get(name);
    if (place === undefined) throw new Error(`there is no tensor ${JSON.stringify(name)}`);
    const { tensor, range } = place;
    const [offset, length] = range;
    if (length < TAIL_BYTES) throw new Error(`tensor ${name}: ${length} bytes hold no tensor`);
    const tailBytes = tailLength(name, await read(offset + length - TAIL_BYTES, TAIL_BYTES), length);
    const coded = parseTail(tensor, await read(offset + length - tailBytes, tailBytes), length);
    const out = new Uint8Array(tensor.bytes);
    const { starts, checksums, unit, mode } = coded;
    for (let first = 0, to = 0; first < checksums.length; first = to) {
      for (to = first + 1; to < checksums.length && starts[to + 1] - starts[first] <= BATCH_BYTES;) to++;
      const batch = await read(offset + starts[first], starts[to] - starts[first]);
      for (let b = first; b < to; b++) {
        const block = batch.subarray(starts[b] - starts[first], starts[b + 1] - starts[first]);
        const part = out.subarray(b * unit, (b + 1) * unit);
        let found;
        if (mode === "coded") found = decodeBlock(`tensor ${name}, block ${b}`, coded, b, block, part);
        else {
          if (mode === "raw") part.set(block);
          else fillProgression(coded, part);
          found = checksum(part);
        }
        if (found !== checksums[b]) throw new Error(`tensor ${name}: block ${b} is damaged: its checksum is another`);
      }
    }
    if (options.sha256 === false) return out;
    const found = await sha256Of(out);
    if (found !== tensor.sha256) throw new Error(`tensor ${name}: sha256 is ${found}, must be ${tensor.sha256}`);
    return out;
  }
  return { tensors: new Map([...places].map(([name, { tensor }]) => [name, tensor])), header, metadata, decode };
}

function reader(source) {
  if (source instanceof Uint8Array) return async (offset, length) => source.subarray(offset, offset + length);
  return async (offset, length) => {
    const bytes = await source.read(offset, length);
    if (bytes.length !== length) throw new Error(`${bytes.length} of ${length} bytes at ${offset} could be read`);
    return bytes;
  };
}

async function readDirectory(read, size, checksum) {
  if (size < PREFIX_BYTES + FOOTER_BYTES) throw new Error(`${size} bytes are no compact file`);
  const prefix = await read(0, PREFIX_BYTES);
  if (MAGIC.some((byte, i) => prefix[i] !== byte)) throw new Error("not a compact file: its first bytes are others");
  const footerBytes = await read(size - FOOTER_BYTES, FOOTER_BYTES);
  if (MAGIC.some((byte, i) => footerBytes[24 + i] !== byte)) throw new Error("the file is cut short");
  const footer = viewOf(footerBytes);
  const version = footer.getUint32(20, true);
  if (version !== VERSION || prefix[8] !== VERSION) throw new Error(`version ${version} of the format; this decoder reads ${VERSION}`);
  const [packedBytes, plainBytes] = [footer.getUint32(8, true), footer.getUint32(12, true)];
  const end = size - FOOTER_BYTES - packedBytes;
  if (footer.getBigUint64(0, true) !== BigInt(end) || end < PREFIX_BYTES)
    throw new Error("the directory does not lie between tensors and footer");
  if (plainBytes < FIXED_BYTES || plainBytes > MAX_PLAIN_BYTES || plainBytes > MAX_RATIO * packedBytes)
    throw new Error(`a directory of ${plainBytes} bytes cannot come from ${packedBytes}`);
  const plain = await inflate(await read(end, packedBytes), plainBytes);
  if (checksum(plain) !== footer.getUint32(16, true)) throw new Error("the directory is damaged: its checksum is another");
  return parseDirectory(plain, end);
}

/** Raw deflate to exactly `length` bytes; what is longer is not inflated further. */
async function inflate(packed, length) {
  const out = new Uint8Array(length);
  let at = 0;
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const chunks = stream.getReader();
  try {
    for (let next = await chunks.read(); !next.done; next = await chunks.read()) {
      if (at + next.value.length > length) throw new Error("it is longer than the footer says");
      out.set(next.value, at);
      at += next.value.length;
    }
    if (at < length) throw new Error("it is shorter than the footer says");
  } catch (cause) {
    await chunks.cancel().catch(() => undefined);
    throw new Error(`the directory cannot be inflated: ${cause.message}`, { cause });
  }
  return out;
}

function parseDirectory(plain, end) {
  const numbers = viewOf(plain);
  const fileBytes = Number(numbers.getBigUint64(0, true));
  const [headerBytes, count] = [numbers.getUint32(8, true), numbers.getUint32(12, true)];
  if (FIXED_BYTES + headerBytes + TENSOR_BYTES * count !== plain.length) throw new Error("the directory does not hold what it says");
  const copiesAt = FIXED_BYTES + headerBytes;
  const lengthsAt = copiesAt + 4 * count;
  const hashesAt = lengthsAt + 8 * count;
  const entries = [];
  let at = PREFIX_BYTES;
  for (let i = 0; i < count; i++) {
    const copy = numbers.getUint32(copiesAt + 4 * i, true);
    const stored = Number(numbers.getBigUint64(lengthsAt + 8 * i, true));
    if (stored % 4 !== 0 || (copy > 0 && (stored !== 0 || copy > i || entries[copy - 1].copyOf !== undefined)))
      throw new Error(`tensor ${i} has neither a payload nor an earlier one's`);
    at += stored;
    if (at > end) throw new Error(`tensor ${i} reaches into the directory`);
    const sha256 = hex(plain.subarray(hashesAt + HASH_BYTES * i, hashesAt + HASH_BYTES * (i + 1)));
    entries.push({ copyOf: copy > 0 ? copy - 1 : undefined, stored, sha256 });
  }
  if (at !== end) throw new Error(`bytes ${at} to ${end} belong to no tensor`);
  return { header: plain.slice(FIXED_BYTES, copiesAt), entries, fileBytes };
}

/** Tensors of a safetensors header, in the order of their data, which they fill. */
function parseHeader(header, fileBytes) {
  const isHeader = header.length >= 8 && viewOf(header).getBigUint64(0, true) === BigInt(header.length - 8);
  if (!isHeader) throw new Error("the directory holds no safetensors header");
  const entries = Object.entries(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(header.subarray(8))));
  const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
  const tensors = [];
  const metadata = new Map();
  for (const [name, entry] of entries) {
    if (name === "__metadata__") {
      for (const [key, value] of Object.entries(entry ?? {})) metadata.set(key, String(value));
      continue;
    }
    const { dtype, shape, data_offsets: offsets } = entry ?? {};
    const isPlaced = Array.isArray(offsets) && offsets.length === 2 && offsets.every(isCount);
    if (!BITS.has(dtype) || !Array.isArray(shape) || !shape.every(isCount) || !isPlaced)
      throw new Error(`tensor ${name}: dtype, shape or offsets are none`);
    const bits = shape.reduce((product, dimension) => product * dimension, BITS.get(dtype));
    const [begin, end] = offsets;
    if (!Number.isSafeInteger(bits) || 8 * (end - begin) !== bits)
      throw new Error(`tensor ${name}: ${dtype} of its shape does not take ${end - begin} bytes`);
    tensors.push({ name, dtype, shape: Object.freeze(shape), bytes: end - begin, begin, end });
  }
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const { name, begin, end } of tensors) {
    if (begin !== at) throw new Error(`tensor ${name} does not follow the one before it`);
    at = end;
  }
  if (header.length + at !== fileBytes) throw new Error(`tensors end at ${header.length + at}, the file at ${fileBytes}`);
  return { tensors: tensors.map(({ name, dtype, shape, bytes }) => ({ name, dtype, shape, bytes })), metadata };
}

/** Elements `first + i * step`, modulo two to the power of their bits. */
function fillProgression({ width, first, step }, out) {
  const view = viewOf(out);
  const setters = { 1: "setUint8", 2: "setUint16", 4: "setUint32" };
  for (let at = 0, value = first; at + width <= out.length; at += width, value += step) {
    const own = BigInt.asUintN(8 * width, value);
    if (width === 8) view.setBigUint64(at, own, true);
    else view[setters[width]](at, Number(own), true);
  }
}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Lower-case hex of the SHA-256 of bytes. */
export async function sha256Of(bytes) {
  if (globalThis.crypto?.subtle === undefined) throw new Error("SHA-256 needs https or localhost; decode without it by { sha256: false }");
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

/** Decodes the tensor that compact_selftest.json names and compares its SHA-256; sets the exit code. */
async function selfTest(artifact) {
  const { readFile, open } = await import("node:fs/promises");
  const { createHash } = await import("node:crypto");
  const { file, tensor, sha256 } = JSON.parse(await readFile(new URL("compact_selftest.json", import.meta.url), "utf8"));
  const handle = await open(`${artifact}/${file}`);
  try {
    const { size } = await handle.stat();
    const read = async (offset, length) => {
      const bytes = new Uint8Array(length);
      return bytes.subarray(0, (await handle.read(bytes, 0, length, offset)).bytesRead);
    };
    const opened = await openCompact({ size, read }, await readFile(new URL("compact.wasm", import.meta.url)));
    const bytes = await opened.decode(tensor);
    const found = createHash("sha256").update(bytes).digest("hex");
    if (found !== sha256) throw new Error(`tensor ${tensor}: sha256 is ${found}, must be ${sha256}`);
    console.log(`ok: tensor ${tensor}, ${bytes.length} bytes, sha256 as stored`);
  } catch (error) {
    console.log(`${file}: ${error.message}`);
    process.exitCode = 1;
  } finally {
    await handle.close();
  }
}

/** Whether Node was started with this module. */
const script = globalThis.process?.argv?.[1];
if (script !== undefined && import.meta.url.endsWith(`/${script.split(/[/\\]/).pop()}`)) await selfTest(process.argv[2] ?? "..");
