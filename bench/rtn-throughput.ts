/**
 * Speed of round to nearest from file to file, next to copying the same file in the same run.
 *
 *   npm run bench:rtn -- [--gib 4] [--workers 2] [--dir folder] [--runs 2]
 *
 * Makes a bf16 safetensors file of Gaussian weights, copies it, quantizes it to int8 (a scale a row) and int4 (a scale
 * per 128), checks a sample against the definitions, and prints GB of source per second, the ratio to the better of
 * the two copies, and the peak resident memory of the quantizing process.
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { codeOf, intParameters, intRule } from "../core/dialect.ts";
import { decodeBf16 } from "../core/float.ts";
import { createRandom } from "../core/random.ts";
import type { QuantScheme } from "../core/scheme.ts";
import { runTasks } from "../quantize/streaming/run.ts";
import type { QuantizeTask } from "../quantize/streaming/task.ts";

const { values } = parseArgs({
  options: {
    gib: { type: "string", default: "4" },
    workers: { type: "string", default: String(availableParallelism()) },
    dir: { type: "string", default: tmpdir() },
    runs: { type: "string", default: "2" },
    /** Set by this script for the process whose memory is measured. */
    quantize: { type: "string" },
    folder: { type: "string" },
  },
});

/** Shapes of a 7B Llama's linears; the list repeats until the file is large enough. */
const SHAPES = [
  [4096, 4096],
  [11008, 4096],
  [4096, 11008],
] as const;
const HEADER_LIMIT = 1 << 20;

interface Entry {
  readonly name: string;
  readonly shape: readonly [number, number];
  readonly offset: number;
}

/** The tensors of a file of at least `bytes` bytes. */
function planFile(bytes: number): { entries: Entry[]; header: Uint8Array; end: number } {
  const entries: Entry[] = [];
  const header: Record<string, object> = {};
  let at = 0;
  for (let i = 0; at < bytes; i++) {
    const shape = SHAPES[i % SHAPES.length]!;
    const size = shape[0] * shape[1] * 2;
    header[`layer.${i}.weight`] = { dtype: "BF16", shape, data_offsets: [at, at + size] };
    entries.push({ name: `layer.${i}.weight`, shape, offset: at });
    at += size;
  }
  const text = JSON.stringify(header);
  const padded = text.padEnd(Math.ceil(text.length / 8) * 8);
  if (padded.length > HEADER_LIMIT) throw new Error("header too long");
  const bytesOf = Buffer.alloc(8 + padded.length);
  bytesOf.writeBigUInt64LE(BigInt(padded.length));
  bytesOf.write(padded, 8);
  return { entries: entries.map((entry) => ({ ...entry, offset: entry.offset + bytesOf.length })), header: bytesOf, end: at };
}

/** Writes the file: 16 MiB of Gaussian bf16 (sigma 0.02) at a rotating start, so that no two rows are alike. */
function makeFile(path: string, { header, end }: { header: Uint8Array; end: number }): void {
  const random = createRandom(1);
  const block = new Uint16Array(8 << 20);
  const bits = new Uint32Array(new Float32Array(1).buffer);
  const value = new Float32Array(bits.buffer);
  for (let i = 0; i < block.length; i++) {
    value[0] = random.normal() * 0.02;
    block[i] = bits[0]! >>> 16;
  }
  const bytes = new Uint8Array(block.buffer);
  const file = openSync(path, "w");
  writeSync(file, header);
  for (let done = 0; done < end;) {
    const start = 2 * random.below(block.length / 2);
    const size = Math.min(bytes.length - start, end - done);
    writeSync(file, bytes, start, size);
    done += size;
  }
  fsyncSync(file);
  closeSync(file);
}

function seconds(work: () => void): number {
  const started = performance.now();
  work();
  return (performance.now() - started) / 1000;
}

/** A plain read and write loop through one 8 MiB buffer. */
function copyLoop(from: string, to: string): void {
  const [source, target] = [openSync(from, "r"), openSync(to, "w")];
  const buffer = new Uint8Array(8 << 20);
  for (let count = readSync(source, buffer); count > 0; count = readSync(source, buffer)) writeSync(target, buffer, 0, count);
  closeSync(source);
  closeSync(target);
}

const SCHEMES = {
  int8: { bits: 8, granularity: { kind: "channel" } },
  "int4-g128": { bits: 4, granularity: { kind: "group", size: 128 } },
} as const;
type SchemeName = keyof typeof SCHEMES;

function schemeOf(name: SchemeName): QuantScheme {
  const { bits, granularity } = SCHEMES[name];
  return { format: { kind: "int", bits, symmetric: true }, granularity, timing: "static", scale: "bf16", dialect: "compressed-tensors" };
}

function tasksFor(name: SchemeName, source: string, out: string, entries: readonly Entry[]): QuantizeTask[] {
  const { bits } = SCHEMES[name];
  let end = 0;
  const tasks = entries.map((entry): QuantizeTask => {
    const [rows, cols] = entry.shape;
    const sizes = { codes: (rows * cols * bits) / 8, scales: 2 * rows * (name === "int8" ? 1 : cols / 128) };
    const outputs = (["codes", "scales"] as const).map((role) => {
      const region = { role, path: out, offset: end, byteLength: sizes[role] };
      end += sizes[role];
      return region;
    });
    return {
      kind: "quantize",
      name: entry.name,
      input: { source: { kind: "file", path: source, offset: entry.offset }, dtype: "BF16", shape: entry.shape },
      channelAxis: 0,
      scheme: schemeOf(name),
      arithmetic: "f32",
      scaleDType: "BF16",
      codes: bits === 8 ? "bytes" : "packed",
      outputs,
    };
  });
  writeFileSync(out, "");
  truncateSync(out, end);
  return tasks;
}

/** Compares rows of the output with `core/dialect.ts`, value by value. */
function checkSample(name: SchemeName, tasks: readonly QuantizeTask[]): number {
  const { bits } = SCHEMES[name];
  const rule = intRule("compressed-tensors", bits, true);
  const random = createRandom(2);
  let checked = 0;
  const read = (path: string, offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    const file = openSync(path, "r");
    readSync(file, bytes, 0, length, offset);
    closeSync(file);
    return bytes;
  };
  for (let sample = 0; sample < 12; sample++) {
    const { input, outputs, name: tensor } = tasks[random.below(tasks.length)]!;
    const [rows, cols] = input.shape as [number, number];
    const row = random.below(rows);
    const group = name === "int8" ? cols : 128;
    if (input.source.kind !== "file") throw new Error("expected a file");
    const x = read(input.source.path, input.source.offset + row * cols * 2, cols * 2);
    const codes = read(outputs[0]!.path, outputs[0]!.offset + (row * cols * bits) / 8, (cols * bits) / 8);
    const scales = read(outputs[1]!.path, outputs[1]!.offset + (2 * row * cols) / group, (2 * cols) / group);
    for (let g = 0; g < cols / group; g++) {
      const run = Array.from({ length: group }, (_, i) => decodeBf16(x.readUInt16LE(2 * (g * group + i))));
      const parameters = intParameters("compressed-tensors", bits, true, Math.min(...run), Math.max(...run), { storage: "BF16" });
      if (parameters.scale !== decodeBf16(scales.readUInt16LE(2 * g))) throw new Error(`${tensor} row ${row}: wrong scale of group ${g}`);
      for (let i = 0; i < group; i++) {
        const at = g * group + i;
        const found = bits === 8 ? codes.readInt8(at) : ((codes[at >> 1]! >> (4 * (at & 1))) & 15) - 8;
        if (found !== codeOf(rule, run[i]!, parameters.scale, 0)) throw new Error(`${tensor} row ${row}: wrong code ${at}`);
        checked++;
      }
    }
  }
  return checked;
}

/** What the measured process prints. */
interface Outcome {
  readonly elapsed: number;
  /** Seconds. */
  readonly cpu: { readonly user: number; readonly system: number };
  readonly checked: number;
  /** Bytes. */
  readonly peak: number;
  readonly bytes: number;
}

/** Runs in its own process, so that its peak memory is its own. */
async function quantizeOnce(name: SchemeName, folder: string, gib: number, workers: number): Promise<void> {
  const { entries } = planFile(gib * 2 ** 30);
  const out = join(folder, `${name}.bin`);
  const tasks = tasksFor(name, join(folder, "source.safetensors"), out, entries);
  const started = performance.now();
  const before = process.cpuUsage();
  await runTasks(tasks, { workers });
  const elapsed = (performance.now() - started) / 1000;
  const used = process.cpuUsage(before);
  const cpu = { user: used.user / 1e6, system: used.system / 1e6 };
  const checked = checkSample(name, tasks);
  process.stdout.write(JSON.stringify({ elapsed, cpu, checked, peak: process.resourceUsage().maxRSS * 1024, bytes: statSync(out).size }));
}

function main(): void {
  const [gib, workers, runs] = [Number(values.gib), Number(values.workers), Number(values.runs)];
  const free = statfsSync(values.dir);
  const needed = gib * 2 ** 30 * 2.2;
  if (free.bavail * free.bsize < needed) throw new Error(`${values.dir} has too little space: ${needed / 1e9} GB are needed`);
  const folder = mkdtempSync(join(values.dir, "bitwright-rtn-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("SIGINT", () => {
    remove();
    process.exit(130);
  });
  try {
    const source = join(folder, "source.safetensors");
    const plan = planFile(gib * 2 ** 30);
    const made = seconds(() => makeFile(source, plan));
    const size = statSync(source).size;
    const rate = (elapsed: number): number => size / 1e9 / elapsed;
    console.log(
      `${(size / 1e9).toFixed(2)} GB in ${plan.entries.length} bf16 tensors, made at ${rate(made).toFixed(2)} GB/s; ${workers} workers, ${runs} runs`,
    );
    for (let run = 0; run < runs; run++) {
      const copy = join(folder, "copy");
      const file = seconds(() => copyFileSync(source, copy));
      rmSync(copy);
      const loop = seconds(() => copyLoop(source, copy));
      rmSync(copy);
      const best = Math.min(file, loop);
      console.log(`copy: copyFile ${rate(file).toFixed(2)}, read/write loop ${rate(loop).toFixed(2)} GB/s`);
      for (const name of Object.keys(SCHEMES)) {
        const child = spawnSync(
          process.execPath,
          [
            "--import",
            "tsx",
            import.meta.filename,
            "--quantize",
            name,
            "--folder",
            folder,
            "--gib",
            values.gib,
            "--workers",
            values.workers,
          ],
          { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] },
        );
        if (child.status !== 0) throw new Error(`quantizing to ${name} failed with ${child.status}`);
        const { elapsed, cpu, checked, peak, bytes } = JSON.parse(child.stdout) as Outcome;
        rmSync(join(folder, `${name}.bin`));
        console.log(
          `${name.padEnd(10)} ${rate(elapsed).toFixed(2)} GB/s of source, ${(best / elapsed).toFixed(2)} of the faster copy, ` +
            `${(bytes / 1e9).toFixed(2)} GB written, CPU ${cpu.user.toFixed(1)} s user ${cpu.system.toFixed(1)} s system, ` +
            `peak RSS ${(peak / 1e6).toFixed(0)} MB, ${checked} codes checked`,
        );
      }
    }
  } finally {
    remove();
  }
}

if (values.quantize === undefined) main();
else await quantizeOnce(values.quantize as SchemeName, values.folder!, Number(values.gib), Number(values.workers));
