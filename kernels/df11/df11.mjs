// DFloat11 units to bf16 in JavaScript with WASM SIMD, for Node and browsers, without dependencies.
//
//   import { createDecoder } from "./df11.mjs";
//   const decode = await createDecoder(await (await fetch("df11.wasm")).arrayBuffer());
//   const patterns = decode({ luts, encodedExponent, signMantissa, outputPositions, gaps });   // Uint16Array of bf16
//
//   node df11.mjs ..        decodes a unit of the artifact in .. and compares its SHA-256
//
// The arrays are Uint8Arrays as they lie in the safetensors file. One thread, no shared memory: a page needs no special headers.
import { BLOCK_BYTES, checkUnit, isMain, selfTest } from "./df11-unit.mjs";

const MAX_PAGES = 32768;
const PAGE = 65536;

/** @param {BufferSource} wasm - bytes of df11.wasm. */
export async function createDecoder(wasm) {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: MAX_PAGES });
  const { exports } = (await WebAssembly.instantiate(wasm, { env: { memory } })).instance;
  return (unit) => decodeUnit(exports, memory, unit);
}

function decodeUnit(kernel, memory, unit) {
  const { rows, blocks, position } = checkUnit(unit);
  const { luts, encodedExponent, signMantissa, gaps } = unit;
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

if (isMain(import.meta.url)) {
  const { readFile } = await import("node:fs/promises");
  await selfTest(process.argv[2] ?? "..", await createDecoder(await readFile(new URL("df11.wasm", import.meta.url))));
}
