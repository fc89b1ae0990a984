/**
 * Speed of DFloat11, next to copying memory, to zstd level 1, and to `cp`, in the same run.
 *
 *   npx tsx bench/dfloat11.ts [--mib 256] [--gib 4] [--workers 2] [--dir folder] [--runs 3]
 *
 * 1. One thread: encode and decode (with every block checked) of a Gaussian bf16 unit, GB of bf16 a second, as a ratio to memcpy.
 * 2. One worker and two: the whole job over the same file.
 * 3. End to end: a safetensors file of --gib GiB, read, encoded, decoded and compared, written; peak resident memory.
 * Figures of a loaded machine mean little; the ratios are to copies made in the same minute.
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createRandom } from "../core/random.ts";
import { layoutSafetensors } from "../formats/containers/safetensors/write.ts";
import { createBlockDecoder, indexOf } from "../kernels/df11/blocks.ts";
import { encodeUnitFast } from "../kernels/df11/encode.ts";
import { createExponentCounter, createUnitEncoder, planCode, STRIP } from "../kernels/df11/unit-encoder.ts";
import { createWorkspace, type Workspace } from "../kernels/load-wasm.ts";
import { quantize } from "../quantize/quantize.ts";

const { values } = parseArgs({
  options: {
    mib: { type: "string", default: "256" },
    gib: { type: "string", default: "4" },
    workers: { type: "string", default: "1,2" },
    dir: { type: "string", default: tmpdir() },
    runs: { type: "string", default: "3" },
    /** Set by this script for the process whose memory is measured. */
    job: { type: "string" },
    out: { type: "string" },
  },
});
const runs = Number(values.runs);
const GB = 1e9;

/** Best of several runs, seconds. */
async function best(work: () => unknown): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await work();
    least = Math.min(least, (performance.now() - start) / 1000);
  }
  return least;
}

/** Gaussian weights of a few scales, as little-endian bf16. */
function gaussian(count: number, seed: number): Uint8Array {
  const random = createRandom(seed);
  const period = Math.min(count, 2 ** 22);
  const words = new Uint32Array(Float32Array.from({ length: period }, (_, i) => random.normal() * 0.02 * (1 + ((i >> 12) & 3))).buffer);
  const patterns = new Uint16Array(count);
  for (let i = 0; i < count; i++) patterns[i] = words[i % period]! >>> 16;
  return new Uint8Array(patterns.buffer);
}

if (values.job !== undefined) {
  const started = performance.now();
  const report = await quantize(values.job, { recipe: { method: ["dfloat11"] }, out: values.out!, workers: Number(values.workers) });
  const { outputBytes, sourceBytes, cpuSeconds } = report;
  // A child starts with its parent's mark in rusage; the kernel's own high-water mark is this process's alone.
  const mark = /VmHWM:\s+(\d+) kB/.exec(existsSync("/proc/self/status") ? readFileSync("/proc/self/status", "utf8") : "");
  const peakMemoryBytes = mark === null ? report.peakMemoryBytes : 1024 * Number(mark[1]);
  process.stdout.write(
    JSON.stringify({ seconds: (performance.now() - started) / 1000, outputBytes, sourceBytes, peakMemoryBytes, cpuSeconds }),
  );
} else {
  console.log(`load ${loadavg()[0]!.toFixed(2)}`);
  await oneThread();
  await endToEnd();
}

async function oneThread(): Promise<void> {
  const bytes = gaussian(Number(values.mib) * 2 ** 19, 1);
  const copy = new Uint8Array(bytes.length);
  const memcpy = bytes.length / GB / (await best(() => copy.set(bytes)));
  const workspace = createWorkspace();
  const encoding = encodeUnitFast([bytes], [], workspace);
  if (!("unit" in encoding)) throw new Error(encoding.refusal.text);
  const { unit } = encoding;
  const encode = bytes.length / GB / (await best(() => encodeInto(bytes, unit.encodedExponent, unit.signMantissa, workspace)));
  const decode =
    bytes.length /
    GB /
    (await best(() => {
      const mark = workspace.mark();
      const index = indexOf(unit);
      createBlockDecoder("bench", unit.luts, index, workspace).decode(0, index.blocks, unit.encodedExponent, unit.signMantissa, copy);
      workspace.release(mark);
    }));
  if (Buffer.compare(copy, bytes) !== 0) throw new Error("decoded weights differ");
  const row = (name: string, speed: number): void =>
    console.log(`${name.padEnd(28)} ${speed.toFixed(2).padStart(7)} GB/s  ${(speed / memcpy).toFixed(3)} of memcpy`);
  row("memcpy, one thread", memcpy);
  row("DF11 encode, one thread", encode);
  row("DF11 decode, one thread", decode);
  const file = join(values.dir, `df11-bench-${process.pid}.bin`);
  writeFileSync(file, bytes);
  try {
    const { stdout, stderr } = spawnSync("zstd", ["-b1", "-e1", "--single-thread", "-i1", file], { encoding: "utf8" });
    const found = [...`${stdout}${stderr}`.matchAll(/([\d.]+) MB\/s/g)].map(([, speed]) => Number(speed) / 1000);
    if (found.length >= 2) {
      const [compress, decompress] = found.slice(-2) as [number, number];
      row("zstd -1 compress", compress);
      row("zstd -1 decompress", decompress);
      console.log(`encode ${(encode / compress).toFixed(2)}, decode ${(decode / decompress).toFixed(2)} of zstd -1`);
    } else console.log("no zstd on this system");
  } finally {
    rmSync(file);
  }
}

/** Histogram, code, streams and index, into memory that is there already, as memcpy has it. */
function encodeInto(bytes: Uint8Array, stream: Uint8Array, signMantissa: Uint8Array, workspace: Workspace): void {
  const mark = workspace.mark();
  const counter = createExponentCounter(workspace);
  for (let at = 0; at < bytes.length; at += 2 * STRIP) {
    const piece = bytes.subarray(at, at + 2 * STRIP);
    workspace.bytes(counter.input).set(piece);
    counter.add(piece.length / 2);
  }
  const code = planCode(counter.counts);
  if ("refusal" in code) throw new Error(code.refusal.text);
  const encoder = createUnitEncoder("bench", code, workspace);
  let written = 0;
  for (let at = 0; at < bytes.length; at += 2 * STRIP) {
    const piece = bytes.subarray(at, at + 2 * STRIP);
    encoder.input(piece.length / 2).set(piece);
    const strip = encoder.push(piece.length / 2);
    stream.set(strip.stream, written);
    signMantissa.set(strip.signMantissa, at / 2);
    written += strip.stream.length;
  }
  stream.set(encoder.finish().stream, written);
  workspace.release(mark);
}

/** A Llama of 4096: blocks of seven matrices, until the file is large enough. */
function makeModel(path: string, gib: number): void {
  const shapes = [
    ["self_attn.q_proj", 4096, 4096],
    ["self_attn.k_proj", 1024, 4096],
    ["self_attn.v_proj", 1024, 4096],
    ["self_attn.o_proj", 4096, 4096],
    ["mlp.gate_proj", 14336, 4096],
    ["mlp.up_proj", 14336, 4096],
    ["mlp.down_proj", 4096, 14336],
  ] as const;
  const specs = [];
  for (let bytes = 0, layer = 0; bytes < gib * 2 ** 30; layer++) {
    for (const [name, rows, cols] of shapes) {
      specs.push({ name: `model.layers.${layer}.${name}.weight`, dtype: "BF16" as const, shape: [rows, cols] });
      bytes += 2 * rows * cols;
      if (bytes >= gib * 2 ** 30) break;
    }
  }
  const { header, order } = layoutSafetensors(specs);
  const file = openSync(path, "w");
  writeSync(file, header);
  const bytes = gaussian(2 ** 22, 9);
  for (const { shape } of order) {
    for (let left = 2 * shape[0]! * shape[1]!; left > 0; left -= bytes.length) writeSync(file, bytes, 0, Math.min(left, bytes.length));
  }
  fsyncSync(file);
  closeSync(file);
}

async function endToEnd(): Promise<void> {
  const gib = Number(values.gib);
  if (gib <= 0) return;
  const folder = mkdtempSync(join(values.dir, "df11-bench-"));
  try {
    const source = join(folder, "model.safetensors");
    makeModel(source, gib);
    const size = statSync(source).size;
    const times: { copy: number; job: Record<string, number>; peak: number; ratio: number } = {
      copy: Infinity,
      job: {},
      peak: 0,
      ratio: 0,
    };
    for (let i = 0; i < runs; i++) {
      const start = performance.now();
      spawnSync("cp", [source, join(folder, "copy")]);
      const file = openSync(join(folder, "copy"), "r");
      fsyncSync(file);
      closeSync(file);
      times.copy = Math.min(times.copy, (performance.now() - start) / 1000);
      rmSync(join(folder, "copy"));
      for (const workers of values.workers.split(",")) {
        const out = join(folder, "out");
        const args = [...process.execArgv, fileURLToPath(import.meta.url), "--job", source, "--out", out, "--workers", workers];
        const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: "utf8" });
        if (status !== 0) throw new Error(stderr);
        const report = JSON.parse(stdout) as { seconds: number; outputBytes: number; peakMemoryBytes: number };
        times.job[workers] = Math.min(times.job[workers] ?? Infinity, report.seconds);
        times.peak = Math.max(times.peak, report.peakMemoryBytes);
        times.ratio = report.outputBytes / size;
        if (readdirSync(out).length < 2) throw new Error("nothing was written");
        rmSync(out, { recursive: true });
      }
    }
    console.log(`\n${(size / GB).toFixed(2)} GB file, written ${(100 * times.ratio).toFixed(2)} %, load ${loadavg()[0]!.toFixed(2)}`);
    console.log(`cp and fsync            ${(size / GB / times.copy).toFixed(2)} GB/s`);
    for (const [workers, seconds] of Object.entries(times.job)) {
      console.log(`quantize, ${workers} worker(s)   ${(size / GB / seconds).toFixed(2)} GB/s  ${(times.copy / seconds).toFixed(2)} of cp`);
    }
    const [one, two] = [times.job["1"], times.job["2"]];
    if (one !== undefined && two !== undefined) console.log(`two workers             ${(one / two).toFixed(2)} times one`);
    console.log(`peak resident memory    ${(times.peak / 1e6).toFixed(0)} MB`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
