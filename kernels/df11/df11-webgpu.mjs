// DFloat11 units to bf16 on WebGPU, without dependencies in a browser.
//
//   import { createDecoder } from "./df11-webgpu.mjs";
//   const device = await (await navigator.gpu.requestAdapter()).requestDevice();
//   const decode = await createDecoder(device, await (await fetch("df11.wgsl")).text());
//   const patterns = await decode({ luts, encodedExponent, signMantissa, outputPositions, gaps });   // Uint16Array of bf16
//
//   node df11-webgpu.mjs ..     decodes a unit of the artifact in .. and compares its SHA-256; needs the npm package `webgpu`
//
// The arrays are Uint8Arrays as they lie in the safetensors file. A unit goes to the device in runs of blocks, so memory stays bounded.
import { BLOCK_BYTES, checkUnit, isMain, selfTest } from "./df11-unit.mjs";

/** Weights of a run: 32 MiB of bf16, or one block. */
const RUN_ELEMENTS = 1 << 24;
/** A code may end behind the run. */
const LOOK_AHEAD = 4;
/** Numeric values of GPUBufferUsage and GPUMapMode, which Node does not define. */
const [MAP_READ, COPY_SRC, COPY_DST, UNIFORM, STORAGE] = [1, 4, 8, 64, 128];

/**
 * @param {GPUDevice} device
 * @param {string} wgsl - text of df11.wgsl.
 * @param {{ runBlocks?: number }} [options] - blocks of 4 KiB decoded at once, at most 65,535.
 */
export async function createDecoder(device, wgsl, { runBlocks = 4096 } = {}) {
  const module = device.createShaderModule({ code: wgsl });
  const { messages } = await module.getCompilationInfo();
  const errors = messages.filter(({ type }) => type === "error").map(({ lineNum, message }) => `line ${lineNum}: ${message}`);
  if (errors.length > 0) throw new Error(`df11.wgsl does not compile: ${errors.join("; ")}`);
  const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "decode" } });
  return async (unit) => {
    const { blocks, position } = checkUnit(unit);
    const out = new Uint16Array(unit.signMantissa.length);
    for (let first = 0; first < blocks;) {
      let last = first + 1;
      while (last < blocks && last - first < runBlocks && position(last + 1) - position(first) <= RUN_ELEMENTS) last++;
      out.set(await decodeRun(device, pipeline, unit, { first, last, blocks, position }), position(first));
      first = last;
    }
    return out;
  };
}

async function decodeRun(device, pipeline, unit, { first, last, blocks, position }) {
  const origin = position(first);
  const elements = position(last) - origin;
  if (elements === 0) return new Uint16Array(0);
  const stream = unit.encodedExponent.subarray(first * BLOCK_BYTES, last * BLOCK_BYTES + LOOK_AHEAD);
  const positions = Uint32Array.from({ length: last - first + 1 }, (_, i) => position(first + i) - origin);
  const outBytes = 4 * Math.ceil(elements / 2);
  const buffers = [];
  const create = (size, usage) => {
    const buffer = device.createBuffer({ size, usage });
    buffers.push(buffer);
    return buffer;
  };
  const upload = (bytes, size, usage = STORAGE) => {
    const buffer = create(size, usage | COPY_DST);
    const whole = bytes.length & ~3;
    device.queue.writeBuffer(buffer, 0, bytes, 0, whole);
    // Writes are of whole words.
    if (whole < bytes.length) device.queue.writeBuffer(buffer, whole, Uint8Array.of(...bytes.subarray(whole), 0, 0, 0), 0, 4);
    return buffer;
  };
  const words = (bytes) => 4 * Math.ceil(bytes / 4);
  const isLast = last === blocks ? 1 : 0;
  const run = new Uint8Array(Uint32Array.of(stream.length, elements, unit.luts.length / 256, isLast).buffer);
  device.pushErrorScope("out-of-memory");
  device.pushErrorScope("validation");
  try {
    const out = create(outBytes, STORAGE | COPY_SRC);
    const status = create(4, STORAGE | COPY_SRC);
    const read = create(outBytes + 4, MAP_READ | COPY_DST);
    const entries = [
      upload(run, 16, UNIFORM),
      upload(unit.luts, unit.luts.length),
      // Every window of the last block is loaded, and a word behind it; buffers begin as zeros.
      upload(stream, (last - first) * BLOCK_BYTES + LOOK_AHEAD),
      upload(unit.signMantissa.subarray(origin, origin + elements), words(elements)),
      upload(new Uint8Array(positions.buffer), positions.byteLength),
      upload(unit.gaps.subarray(320 * first, 320 * last), 320 * (last - first)),
      out,
      status,
    ].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(last - first);
    pass.end();
    encoder.copyBufferToBuffer(out, 0, read, 0, outBytes);
    encoder.copyBufferToBuffer(status, 0, read, outBytes, 4);
    device.queue.submit([encoder.finish()]);
    const scopes = await Promise.all([device.popErrorScope(), device.popErrorScope()]);
    const error = scopes.find((found) => found !== null);
    if (error !== undefined) throw new Error(`WebGPU: ${error.message}`);
    await read.mapAsync(1);
    const bytes = read.getMappedRange().slice(0);
    const [found] = new Uint32Array(bytes, outBytes, 1);
    if (found !== 0) throw new Error(`blocks ${first} to ${last - 1} do not decode (status ${found})`);
    return new Uint16Array(bytes, 0, elements);
  } finally {
    for (const buffer of buffers) buffer.destroy();
  }
}

/** The browser's WebGPU, or that of the npm package. */
async function findGpu() {
  if (globalThis.navigator?.gpu !== undefined) return globalThis.navigator.gpu;
  try {
    return (await import("webgpu")).create([]);
  } catch (cause) {
    throw new Error("no WebGPU here: npm install webgpu", { cause });
  }
}

if (isMain(import.meta.url)) {
  const { readFile } = await import("node:fs/promises");
  const gpu = await findGpu();
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new Error("WebGPU finds no adapter");
  const device = await adapter.requestDevice();
  await selfTest(process.argv[2] ?? "..", await createDecoder(device, await readFile(new URL("df11.wgsl", import.meta.url), "utf8")));
  device.destroy();
}
