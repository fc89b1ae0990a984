// DFloat11 units to bf16 in JavaScript with WASM SIMD, for Node and browsers, without dependencies.
//
//   import { createDecoder } from "./df11.mjs";
//   const decode = await createDecoder(await (await fetch("df11.wasm")).arrayBuffer());
//   const patterns = decode({ luts, encodedExponent, signMantissa, outputPositions, gaps });   // Uint16Array of bf16
//
//   node df11.mjs ..        decodes a unit of the artifact in .. and compares its SHA-256
//
// The arrays are Uint8Arrays as they lie in the safetensors file. The module works on a memory of the "shared" kind; a browser gives one
// to pages that are cross-origin isolated (COOP and COEP headers).

const BLOCK_BYTES = 4096;
const MAX_PAGES = 32768;
const PAGE = 65536;

/** @param {BufferSource} wasm - bytes of df11.wasm. */
export async function createDecoder(wasm) {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: MAX_PAGES, shared: true });
  const { exports } = (await WebAssembly.instantiate(wasm, { env: { memory } })).instance;
  return (unit) => decodeUnit(exports, memory, unit);
}

function decodeUnit(kernel, memory, { luts, encodedExponent, signMantissa, outputPositions, gaps }) {
  const rows = luts.length / 256 - 1;
  const blocks = Math.ceil(encodedExponent.length / BLOCK_BYTES);
  const positions = new DataView(outputPositions.buffer, outputPositions.byteOffset, outputPositions.byteLength);
  const position = (block) => positions.getUint32(4 * block, true);
  if (!Number.isInteger(rows) || rows < 1 || rows > 17) throw new Error("luts must have 2 to 18 rows of 256");
  if (outputPositions.length !== 4 * (blocks + 1) || gaps.length !== 320 * blocks)
    throw new Error("output_positions or gaps do not fit the stream");
  if (position(0) !== 0 || position(blocks) !== signMantissa.length) throw new Error("output_positions do not fit sign_mantissa");
  for (let block = 0; block < blocks; block++) {
    const count = position(block + 1) - position(block);
    if (count < 0 || count > 8 * BLOCK_BYTES) throw new Error(`block ${block} has ${count} weights`);
  }
  let next = 1024;
  const take = (length) => {
    const at = next;
    next = Math.ceil((at + length + 64) / 64) * 64;
    const missing = Math.ceil((next - memory.buffer.byteLength) / PAGE);
    if (missing > 0) memory.grow(missing);
    return at;
  };
  const view = (at, length) => new Uint8Array(memory.buffer, at, length);
  const [tables, fast, stream, exponents, rest, merged] = [
    luts.length,
    8 * 4096,
    BLOCK_BYTES + 16,
    8 * BLOCK_BYTES,
    8 * BLOCK_BYTES,
    16 * BLOCK_BYTES,
  ].map(take);
  view(tables, luts.length).set(luts);
  kernel.buildTable(tables, rows, fast);
  const out = new Uint16Array(signMantissa.length);
  const bytes = new Uint8Array(out.buffer);
  for (let block = 0; block < blocks; block++) {
    const [from, to] = [position(block), position(block + 1)];
    if (from === to) continue;
    const piece = encodedExponent.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES + 8);
    view(stream, BLOCK_BYTES + 16).fill(0);
    view(stream, piece.length).set(piece);
    // The first window of a block is its 512th times `block`: five bits at a whole byte.
    const gap = gaps[320 * block] >> 3;
    const end = 8 * Math.min(BLOCK_BYTES, encodedExponent.length - block * BLOCK_BYTES);
    if (kernel.decodeBlock(stream, gap, end, tables, rows, fast, exponents, to - from) < 0)
      throw new Error(`block ${block} does not decode`);
    view(rest, to - from).set(signMantissa.subarray(from, to));
    kernel.mergePatterns(exponents, rest, to - from, merged);
    bytes.set(view(merged, 2 * (to - from)), 2 * from);
  }
  return out;
}

if (typeof process !== "undefined" && process.argv?.[1] && import.meta.url.endsWith(process.argv[1].split(/[/\\]/).pop()))
  await selfTest(process.argv[2] ?? "..");

async function selfTest(artifact) {
  const { readFile, open } = await import("node:fs/promises");
  const { createHash } = await import("node:crypto");
  const here = (name) => new URL(name, import.meta.url);
  const { file, unit, arrays, members } = JSON.parse(await readFile(here("df11_selftest.json"), "utf8"));
  const handle = await open(`${artifact}/${file}`);
  const read = async ([offset, length]) => {
    const bytes = new Uint8Array(length);
    if ((await handle.read(bytes, 0, length, offset)).bytesRead !== length) throw new Error(`${file} is too short`);
    return bytes;
  };
  const [luts, encodedExponent, signMantissa, outputPositions, gaps] = await Promise.all(
    ["luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps"].map((name) => read(arrays[name])),
  );
  await handle.close();
  const decode = await createDecoder(await readFile(here("df11.wasm")));
  const patterns = decode({ luts, encodedExponent, signMantissa, outputPositions, gaps });
  let at = 0;
  for (const { name, elements, sha256 } of members) {
    const found = createHash("sha256")
      .update(new Uint8Array(patterns.buffer, 2 * at, 2 * elements))
      .digest("hex");
    at += elements;
    if (found === sha256) continue;
    console.log(`${name}: sha256 is ${found}, must be ${sha256}`);
    process.exitCode = 1;
  }
  if (process.exitCode !== 1) console.log(`ok: unit ${unit}, ${patterns.length} weights, every sha256 as stored`);
}
