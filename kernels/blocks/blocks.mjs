// Block formats (BFP, MX, NVFP4) in JavaScript with WASM SIMD, for Node and browsers, without dependencies.
//
//   import { createKernels } from "./blocks.mjs";
//   const kernels = await createKernels(blocksWasm, gemmWasm);                  // bytes of blocks.wasm and gemm-int8.wasm
//   kernels.dequantize({ format, block, rows, cols, codes, scales, divisor })   // Float32Array [rows, cols]
//   kernels.multiply(a, b)                                                      // Float32Array [rows of a, rows of b]
//
//   node blocks.mjs ..        reads a tensor of the artifact in .. and compares SHA-256 of its values and products
//
// Codes and scales are Uint8Arrays as they lie in the safetensors file. One thread, no shared memory.

const KIND = { int: 0, float: 1, nvfp4: 2 };
/** Mantissa bits, bias, code and value of the largest element, its exponent, bits a code. */
const FLOATS = {
  "mxfp8-e4m3": [3, 7, 0x7e, 448, 8, 8],
  "mxfp8-e5m2": [2, 15, 0x7b, 57344, 15, 8],
  "mxfp6-e3m2": [2, 3, 31, 28, 4, 6],
  "mxfp6-e2m3": [3, 1, 31, 7.5, 2, 6],
  mxfp4: [1, 1, 7, 6, 2, 4],
  nvfp4: [1, 1, 7, 6, 2, 4],
};
const TILE = { a: 5, b: 8 };
const PAGE = 65536;

function factsOf(name) {
  if (Object.hasOwn(FLOATS, name)) {
    const [mantissa, bias, topCode, top, exponent, bits] = FLOATS[name];
    return { kind: name === "nvfp4" ? KIND.nvfp4 : KIND.float, bits, mantissa, bias, topCode, top, exponent };
  }
  const bits = name === "mxint8" ? 8 : Number(/^bfp(1\d|2[0-4])$/.exec(name)?.[1]) - 8;
  if (!(bits >= 2 && bits <= 16)) throw new RangeError(`${name} is no block format`);
  return { kind: KIND.int, bits, mantissa: bits - 2, bias: 0, topCode: 2 ** (bits - 1) - 1, top: 0, exponent: 0 };
}

/** Values of all codes of a small float. */
function tableOf({ bits, mantissa, bias, topCode }) {
  return Float32Array.from({ length: 2 ** bits }, (_, code) => {
    const half = 2 ** (bits - 1);
    const sign = code >= half ? -1 : 1;
    const magnitude = code % half;
    if (bits === 8 && magnitude > topCode) return mantissa === 2 && magnitude === 0x7c ? sign * Infinity : NaN;
    const field = magnitude >> mantissa;
    const rest = magnitude % 2 ** mantissa;
    return sign * (field === 0 ? rest * 2 ** (1 - bias - mantissa) : (rest + 2 ** mantissa) * 2 ** (field - bias - mantissa));
  });
}

export async function createKernels(blocksWasm, gemmWasm) {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 32768 });
  const instance = async (bytes) => (await WebAssembly.instantiate(bytes, { env: { memory } })).instance.exports;
  const [blocks, gemm] = [await instance(blocksWasm), await instance(gemmWasm)];
  let next = 1024;
  const take = (length) => {
    const at = next;
    next = Math.ceil((at + length + 128) / 64) * 64;
    const missing = Math.ceil((next - memory.buffer.byteLength) / PAGE);
    if (missing > 0) memory.grow(missing);
    return at;
  };
  const place = (bytes) => {
    const at = take(bytes.byteLength);
    new Uint8Array(memory.buffer, at, bytes.byteLength).set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    return at;
  };
  const floats = (at, count) => new Float32Array(memory.buffer, at, count);

  /** Codes one a byte (two above 8 bits), and values, in the memory. */
  function open({ format, block, rows, cols, codes, scales, divisor = 1 }) {
    const facts = factsOf(format);
    const { kind, bits, mantissa, bias, topCode, top, exponent } = facts;
    const stride = Math.ceil((cols * bits) / 8);
    const perRow = Math.ceil(cols / block);
    if (codes.length !== rows * stride || scales.length !== rows * perRow) {
      throw new RangeError(`${rows} x ${cols} of ${format} need ${rows * stride} bytes of codes and ${rows * perRow} scales`);
    }
    blocks.configure(kind, bits, mantissa, 128 - bias, topCode, top, exponent, 0x7fffff, 0);
    blocks.configureTensor(divisor, 0, 0);
    const plain = take(rows * cols * (bits > 8 ? 2 : 1));
    const packed = place(codes);
    const isPlain = bits === 8 || bits === 16;
    if (!isPlain) blocks.unpack(packed, rows, cols, stride, plain);
    const at = isPlain ? packed : plain;
    const values = take(rows * cols * 4);
    const table = place(kind === KIND.int ? new Float32Array(256) : tableOf(facts));
    blocks.decode(at, rows, cols, block, place(scales), table, values);
    return { at, values, perRow, isInt8: kind === KIND.int && bits <= 8, shift: mantissa };
  }

  const unitOf = (byte, shift) => (byte === 255 ? NaN : 2 ** (byte - 127 - shift));
  function side(which, matrix, opened) {
    const tile = TILE[which];
    const { rows, cols, block, scales } = matrix;
    const pairs = (opened.perRow - 1) * Math.ceil(block / 2) + Math.ceil((cols - (opened.perRow - 1) * block) / 2);
    const panels = Math.ceil(rows / tile);
    const codes = take(panels * pairs * tile * 4);
    (which === "a" ? gemm.packA : gemm.packB)(opened.at, rows, cols, block, codes);
    const units = take(panels * opened.perRow * tile * 4);
    gemm.packUnits(place(Float32Array.from(scales, (byte) => unitOf(byte, opened.shift))), rows, opened.perRow, tile, units);
    return { codes, units };
  }

  return {
    dequantize(matrix) {
      next = 1024;
      const { values } = open(matrix);
      return floats(values, matrix.rows * matrix.cols).slice();
    },
    multiply(a, b) {
      next = 1024;
      const [m, n, k] = [a.rows, b.rows, a.cols];
      const [left, right] = [open(a), open(b)];
      const out = take(m * n * 4);
      if (left.isInt8 && right.isInt8 && a.block === b.block) {
        const [pa, pb] = [side("a", a, left), side("b", b, right)];
        const width = Math.ceil(n / TILE.b) * TILE.b * 4;
        const size = Math.ceil(m / TILE.a) * TILE.a * width;
        const sums = take(size);
        new Uint8Array(memory.buffer, sums, size).fill(0);
        gemm.gemmScaled(pa.codes, pb.codes, m, n, k, a.block, sums, pa.units, pb.units);
        gemm.trim(sums, m, width, n * 4, out);
      } else gemm.gemmFloat(left.values, right.values, m, n, k, out);
      return floats(out, m * n).slice();
    },
  };
}

async function selfTest(artifact) {
  const { readFile, open } = await import("node:fs/promises");
  const { createHash } = await import("node:crypto");
  const here = (name) => readFile(new URL(name, import.meta.url));
  const { module, format, block, rows, cols, arrays, values, products } = JSON.parse(await here("blocks_selftest.json"));
  const read = async ({ file, offset, length }) => {
    const bytes = new Uint8Array(length);
    const handle = await open(`${artifact}/${file}`);
    const { bytesRead } = await handle.read(bytes, 0, length, offset);
    await handle.close();
    if (bytesRead !== length) throw new Error(`${file} is too short`);
    return bytes;
  };
  const [codes, scales] = [await read(arrays.codes), await read(arrays.scales)];
  const divisor = arrays.divisor === undefined ? 1 : new DataView((await read(arrays.divisor)).buffer).getFloat32(0, true);
  const kernels = await createKernels(await here("blocks.wasm"), await here("gemm-int8.wasm"));
  const matrix = { format, block, rows, cols, codes, scales, divisor };
  const first = { ...matrix, rows: 1, codes: codes.subarray(0, codes.length / rows), scales: scales.subarray(0, scales.length / rows) };
  const found = { values: kernels.dequantize(matrix), products: kernels.multiply(first, matrix) };
  for (const [what, expected] of Object.entries({ values, products })) {
    const { buffer, byteOffset, byteLength } = found[what];
    const sha256 = createHash("sha256")
      .update(new Uint8Array(buffer, byteOffset, byteLength))
      .digest("hex");
    if (sha256 === expected) continue;
    console.log(`${what} of ${module}: sha256 is ${sha256}, must be ${expected}`);
    process.exitCode = 1;
  }
  if (process.exitCode !== 1) console.log(`ok: ${module}, ${format} in blocks of ${block}, ${rows} x ${cols}`);
}

const script = globalThis.process?.argv?.[1];
if (script !== undefined && import.meta.url.endsWith(`/${script.split(/[/\\]/).pop()}`)) await selfTest(process.argv[2] ?? "..");
