/**
 * Speed of DFloat11, next to copying memory, to zstd level 1, and to `cp`, in the same run.
 *
 *   npx tsx bench/dfloat11.ts [--mib 64] [--rounds 25]                                    one thread, in memory
 *   npx tsx bench/dfloat11.ts --end-to-end [file] [--gb 4] [--runs 3] [--workers 1,2] [--dir folder]
 *
 * One thread: encode (histogram, code, streams, index) and decode (every block's end checked) of Gaussian bf16 weights. Rounds of all
 * rows alternate; the fastest and the median round are shown, and CPU time beside wall time, since other work may run. zstd is the system's
 * library (`zstd-anchor.ts`), its CPU time set against the least CPU time of a round. Then wall time of one worker and of two: encode, decode, compare.
 *
 * End to end: a safetensors file of --gb 10^9 bytes and several hundred tensors is made (or `file` is taken), then `cp` and the whole job
 * (read, encode, decode what was written and compare, sync) alternate; seconds of wall, CPU, and peak resident memory of the process.
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
import type { Df11Unit } from "../formats/encodings/dfloat11/fields.ts";
import { layoutSafetensors } from "../formats/containers/safetensors/write.ts";
import { createBlockDecoder, indexOf } from "../kernels/df11/blocks.ts";
import { encodeUnitFast } from "../kernels/df11/encode.ts";
import { createExponentCounter, createUnitEncoder, planCode, STRIP } from "../kernels/df11/unit-encoder.ts";
import { createWorkspace, type Workspace } from "../kernels/load-wasm.ts";
import { createPool } from "../kernels/pool.ts";
import { run, type UnitTask } from "./dfloat11-unit.ts";
import { zstdSeconds } from "./zstd-anchor.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    mib: { type: "string", default: "64" },
    rounds: { type: "string", default: "25" },
    "end-to-end": { type: "boolean", default: false },
    gb: { type: "string", default: "4" },
    workers: { type: "string", default: "1,2" },
    dir: { type: "string", default: tmpdir() },
    runs: { type: "string", default: "3" },
    /** Set by this script for the process whose memory is measured. */
    job: { type: "string" },
    out: { type: "string" },
  },
});
const GB = 1e9;

const median = (numbers: readonly number[]): number => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!;

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
  const { quantize } = await import("../quantize/quantize.ts");
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
  if (values["end-to-end"]) await endToEnd(positionals[0]);
  else {
    oneThread();
    await twoWorkers();
  }
}

function oneThread(): void {
  const bytes = gaussian(Number(values.mib) * 2 ** 19, 1);
  const copy = new Uint8Array(bytes.length);
  const workspace = createWorkspace();
  const encoding = encodeUnitFast([bytes], [], workspace);
  if (!("unit" in encoding)) throw new Error(encoding.refusal.text);
  const { unit } = encoding;
  const rows: readonly { readonly name: string; readonly work: () => void; readonly wall: number[]; readonly cpu: number[] }[] = [
    { name: "memcpy", work: () => copy.set(bytes), wall: [], cpu: [] },
    { name: "DF11 encode", work: () => encodeInto(bytes, unit.encodedExponent, unit.signMantissa, workspace), wall: [], cpu: [] },
    { name: "DF11 decode", work: () => decodeInto(unit, copy, workspace), wall: [], cpu: [] },
  ];
  for (let round = -2; round < Number(values.rounds); round++) {
    for (const { work, wall, cpu } of rows) {
      const [start, used] = [performance.now(), process.cpuUsage()];
      work();
      const seconds = (performance.now() - start) / 1000;
      const { user, system } = process.cpuUsage(used);
      if (round < 0) continue;
      wall.push(seconds);
      cpu.push((user + system) / 1e6);
    }
  }
  if (Buffer.compare(copy, bytes) !== 0) throw new Error("decoded weights differ");
  const speed = (seconds: number): number => bytes.length / GB / seconds;
  const show = (number: number): string => number.toFixed(2).padStart(7);
  console.log(`one thread, ${values.mib} MiB; GB/s: fastest, median, median by CPU time; fastest as part of memcpy's`);
  const fastest = rows.map(({ wall }) => speed(Math.min(...wall)));
  rows.forEach(({ name, wall, cpu }, i) =>
    console.log(
      `${name.padEnd(20)}${show(fastest[i]!)}${show(speed(median(wall)))}${show(speed(median(cpu)))}  ${(fastest[i]! / fastest[0]!).toFixed(3)}`,
    ),
  );
  const file = join(values.dir, `df11-bench-${process.pid}.bin`);
  writeFileSync(file, bytes);
  try {
    const zstd = zstdSeconds(file);
    if (zstd === undefined) console.log("no Python or no libzstd on this system");
    else {
      const [compress, decompress] = [speed(zstd.encode), speed(zstd.decode)];
      const [encode, decode] = rows.slice(1).map(({ cpu }) => speed(Math.min(...cpu)));
      console.log(`zstd -1             ${show(compress)} compress ${show(decompress)} decompress (CPU time)`);
      console.log(`DF11 / zstd -1, CPU time: encode ${(encode! / compress).toFixed(2)}, decode ${(decode! / decompress).toFixed(2)}`);
    }
  } finally {
    rmSync(file);
  }
}

/** Units that lie in shared memory, as files that are read into it do: each encoded, decoded and compared; workers started beforehand. */
async function twoWorkers(): Promise<void> {
  const tasks = Array.from({ length: 16 }, (_, i): UnitTask => {
    const bytes = gaussian(2 ** 22, 20 + i);
    const [shared, out] = [bytes, bytes].map(({ length }) => new Uint8Array(new SharedArrayBuffer(length)));
    shared!.set(bytes);
    return { bytes: shared!, out: out! };
  });
  const pools = [1, 2].map((workers) => createPool({ workers, module: new URL("dfloat11-unit.ts", import.meta.url), run }));
  const least = pools.map(() => Infinity);
  for (let round = 0; round < 6; round++) {
    for (const [i, pool] of pools.entries()) {
      const start = performance.now();
      if ((await pool.map(tasks)).includes(false)) throw new Error("decoded weights differ");
      if (round > 0) least[i] = Math.min(least[i]!, (performance.now() - start) / 1000);
    }
  }
  for (const pool of pools) await pool.close();
  console.log(`two workers ${(least[0]! / least[1]!).toFixed(2)} times one (encode, decode and compare in memory, fastest of 5 rounds)`);
}

function decodeInto(unit: Df11Unit, out: Uint8Array, workspace: Workspace): void {
  const mark = workspace.mark();
  const index = indexOf(unit);
  createBlockDecoder("bench", unit.luts, index, workspace).decode(0, index.blocks, unit.encodedExponent, unit.signMantissa, out);
  workspace.release(mark);
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

/** Blocks of seven matrices as in a Llama of 2048, each layer with scales of its own, until the file is large enough. */
function makeModel(path: string, size: number): void {
  const shapes = [
    ["self_attn.q_proj", 2048, 2048],
    ["self_attn.k_proj", 512, 2048],
    ["self_attn.v_proj", 512, 2048],
    ["self_attn.o_proj", 2048, 2048],
    ["mlp.gate_proj", 5632, 2048],
    ["mlp.up_proj", 5632, 2048],
    ["mlp.down_proj", 2048, 5632],
  ] as const;
  const specs = [];
  for (let bytes = 0, layer = 0; bytes < size; layer++) {
    for (const [name, rows, cols] of shapes) {
      specs.push({ name: `model.layers.${layer}.${name}.weight`, dtype: "BF16" as const, shape: [rows, cols] });
      bytes += 2 * rows * cols;
      if (bytes >= size) break;
    }
  }
  const { header, order } = layoutSafetensors(specs);
  const file = openSync(path, "w");
  writeSync(file, header);
  const pieces = [0, 1, 2, 3, 4].map((i) => gaussian(2 ** 22, 9 + i));
  let next = 0;
  for (const { shape } of order) {
    for (let left = 2 * shape[0]! * shape[1]!; left > 0; left -= 2 ** 23)
      writeSync(file, pieces[next++ % pieces.length]!, 0, Math.min(left, 2 ** 23));
  }
  fsyncSync(file);
  closeSync(file);
  console.log(`${specs.length} tensors`);
}

interface JobReport {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly outputBytes: number;
  readonly peakMemoryBytes: number;
}

async function endToEnd(given: string | undefined): Promise<void> {
  const folder = mkdtempSync(join(values.dir, "df11-bench-"));
  try {
    const source = given ?? join(folder, "model.safetensors");
    if (given === undefined) makeModel(source, Number(values.gb) * GB);
    const size = statSync(source).size;
    const copies: number[] = [];
    const synced: number[] = [];
    const jobs = new Map<string, JobReport[]>(values.workers.split(",").map((workers) => [workers, []]));
    for (let i = 0; i < Number(values.runs); i++) {
      for (const [workers, reports] of jobs) {
        const copy = join(folder, "copy");
        const start = performance.now();
        spawnSync("cp", [source, copy]);
        copies.push((performance.now() - start) / 1000);
        const file = openSync(copy, "r");
        fsyncSync(file);
        closeSync(file);
        synced.push((performance.now() - start) / 1000);
        rmSync(copy);
        const out = join(folder, "out");
        const args = [...process.execArgv, fileURLToPath(import.meta.url), "--job", source, "--out", out, "--workers", workers];
        const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: "utf8" });
        if (status !== 0) throw new Error(stderr);
        if (readdirSync(out).length < 2) throw new Error("nothing was written");
        rmSync(out, { recursive: true });
        reports.push(JSON.parse(stdout) as JobReport);
      }
    }
    const show = (seconds: readonly number[]): string => seconds.map((value) => value.toFixed(1)).join(" ");
    console.log(`${(size / GB).toFixed(2)} GB, load ${loadavg()[0]!.toFixed(2)}; seconds of each run, then the medians' ratio to cp`);
    console.log(`cp             ${show(copies)}`);
    console.log(`cp and fsync   ${show(synced)}`);
    for (const [workers, reports] of jobs) {
      const seconds = reports.map((report) => report.seconds);
      const ratios = `${(median(copies) / median(seconds)).toFixed(2)} of cp, ${(median(synced) / median(seconds)).toFixed(2)} of cp and fsync`;
      const memory = Math.max(...reports.map(({ peakMemoryBytes }) => peakMemoryBytes)) / 1e6;
      console.log(
        `${workers} worker(s)    ${show(seconds)}  ${ratios}; CPU ${show(reports.map(({ cpuSeconds }) => cpuSeconds))} s, peak ${memory.toFixed(0)} MB, ` +
          `${((100 * reports[0]!.outputBytes) / size).toFixed(2)} % of the size`,
      );
    }
    const [one, two] = [jobs.get("1"), jobs.get("2")];
    if (one !== undefined && two !== undefined) {
      const least = (reports: readonly JobReport[]): number => Math.min(...reports.map(({ seconds }) => seconds));
      console.log(`two workers    ${(least(one) / least(two)).toFixed(2)} times one (fastest runs)`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
