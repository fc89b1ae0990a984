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

/** Blocks decoded at a time, four of them at once. */
const BATCH = 8;
/** A code may end behind the batch, and a load may look past it. */
const LOOK_AHEAD = 16;
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
  let fullest = 0;
  for (let first = 0; first < blocks; first += BATCH) {
    fullest = Math.max(fullest, position(Math.min(first + BATCH, blocks)) - position(first));
  }
  let next = 1024;
  const take = (length) => {
    const at = next;
    next = Math.ceil((at + length + 64) / 64) * 64;
    return at;
  };
  const [tables, fast, jobs, scratch, stream] = [luts.length, 8 * 2048, 20 * BATCH, 4096, BATCH * BLOCK_BYTES + LOOK_AHEAD].map(take);
  const [exponents, rest, merged] = [fullest, fullest, 2 * fullest].map(take);
  const missing = Math.ceil((next - memory.buffer.byteLength) / PAGE);
  if (missing > 0) memory.grow(missing);
  const heap = new Uint8Array(memory.buffer);
  heap.set(luts, tables);
  kernel.buildTable(tables, rows, fast);
  const out = new Uint16Array(signMantissa.length);
  const bytes = new Uint8Array(out.buffer);
  // The first window of a block is its 512th times `block`: five bits at a whole byte.
  const startBit = (block) => 8 * BLOCK_BYTES * block + (gaps[320 * block] >> 3);
  for (let first = 0; first < blocks; first += BATCH) {
    const last = Math.min(first + BATCH, blocks);
    const [from, to] = [position(first), position(last)];
    const origin = 8 * BLOCK_BYTES * first;
    const piece = encodedExponent.subarray(first * BLOCK_BYTES, last * BLOCK_BYTES + LOOK_AHEAD);
    heap.set(piece, stream);
    heap.fill(0, stream + piece.length, exponents);
    // Of each block: first bit, end of its bits, address of its exponents, how many, and, when it is decoded, the bit behind its last code.
    const records = new Int32Array(memory.buffer, jobs, 5 * (last - first));
    for (let block = first; block < last; block++) {
      const end = 8 * Math.min(encodedExponent.length, (block + 1) * BLOCK_BYTES) - origin;
      const count = position(block + 1) - position(block);
      records.set([startBit(block) - origin, end, exponents + position(block) - from, count, -1], 5 * (block - first));
    }
    kernel.turnStream(stream, BATCH * BLOCK_BYTES + LOOK_AHEAD);
    kernel.decodeBlocks(stream, tables, rows, fast, scratch, jobs, last - first);
    for (let block = first; block < last; block++) {
      // Blocks behind the last weight hold nothing, and the last one may end before its padding does.
      if (position(block) === signMantissa.length) continue;
      const relative = records[5 * (block - first) + 4];
      const end = relative + origin;
      const isEnd = position(block + 1) === signMantissa.length;
      if (relative < 0 || (isEnd ? Math.ceil(end / 8) !== encodedExponent.length : end !== startBit(block + 1)))
        throw new Error(`block ${block} does not decode`);
    }
    heap.set(signMantissa.subarray(from, to), rest);
    kernel.mergePatterns(exponents, rest, to - from, merged);
    bytes.set(heap.subarray(merged, merged + 2 * (to - from)), 2 * from);
  }
  return out;
}

if (isMain(import.meta.url)) {
  const { readFile } = await import("node:fs/promises");
  await selfTest(process.argv[2] ?? "..", await createDecoder(await readFile(new URL("df11.wasm", import.meta.url))));
}
