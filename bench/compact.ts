/**
 * Speed and size of the compact codec on one thread and on two, next to a plain copy and to zstd level 1 on the same bytes.
 *
 *   npx tsx bench/compact.ts [model.safetensors] [--mib 48] [--rounds 7]
 *   npx tsx bench/compact.ts --end-to-end [--gigabytes 4.3] [--rounds 2] [--workers 2]      the whole command next to cp
 *
 * Without a file: Gaussian weights with row and column scales. What is decoded is compared with the source before anything is timed.
 * All anchors run in every round, so that what else the machine does meets all alike; the best of the rounds counts. One thread is
 * measured in CPU time on both sides, zstd through the system's library (`zstd-anchor.ts`) on the bytes of the tensors. Two workers: wall time.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { encodeBf16 } from "../core/float.ts";
import { createRandom } from "../core/random.ts";
import type { Tensor } from "../core/tensor.ts";
import { openFileSource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import { decodeBlocks, encodePayload } from "../formats/encodings/compact/payload.ts";
import { parseTail, tailLength } from "../formats/encodings/compact/tail.ts";
import type { CompactLevel } from "../formats/encodings/compact/block.ts";
import { sampleRows } from "../formats/encodings/compact/classes.ts";
import { planBytes, planColumns } from "../formats/encodings/compact/ranges.ts";
import { blocksPerRange, rangeOf, viewMatrix } from "../formats/encodings/compact/view.ts";
import { createCompactCoder } from "../kernels/compact/coder.ts";
import { run, type CompactAnswer, type CompactTask } from "../kernels/compact/tensor.ts";
import { createWorkspace } from "../kernels/load-wasm.ts";
import { createPool } from "../kernels/pool.ts";
import { zstdSeconds } from "./zstd-anchor.ts";

const { values, positionals } = parseArgs({
  options: {
    mib: { type: "string", default: "48" },
    rounds: { type: "string" },
    "end-to-end": { type: "boolean", default: false },
    gigabytes: { type: "string", default: "4.3" },
    workers: { type: "string", default: "2" },
  },
  allowPositionals: true,
});
if (values["end-to-end"]) {
  const { runEndToEnd } = await import("./compact-end-to-end.ts");
  runEndToEnd(Number(values.gigabytes), Number(values.rounds ?? 2), values.workers);
  process.exit(0);
}
const limit = Number(values.mib) * 2 ** 20;
const rounds = Number(values.rounds ?? 7);
const LEVELS = ["max", "fast"] as const;

async function readTensors(path: string): Promise<Tensor[]> {
  const source = await openFileSource(path);
  const file = await openSafetensors(source);
  const tensors: Tensor[] = [];
  let bytes = 0;
  for (const lazy of file.tensors.values()) {
    if (bytes >= limit) break;
    tensors.push(await lazy.read());
    bytes += lazy.byteLength;
  }
  await file.close();
  return tensors;
}

function createTensors(): Tensor[] {
  const random = createRandom(1);
  return Array.from({ length: Math.max(1, Math.round(limit / (2 * 1024 * 1024))) }, () => {
    const columns = Float64Array.from({ length: 1024 }, () => Math.exp(0.2 * random.normal()));
    const patterns = new Uint16Array(1024 * 1024);
    for (let r = 0; r < 1024; r++) {
      const scale = 0.02 * Math.exp(0.3 * random.normal());
      for (let c = 0; c < 1024; c++) patterns[1024 * r + c] = encodeBf16(random.normal() * scale * columns[c]!);
    }
    return { dtype: "BF16", shape: [1024, 1024], bytes: new Uint8Array(patterns.buffer) };
  });
}

const sources = positionals[0] === undefined ? createTensors() : await readTensors(positionals[0]);
const total = sources.reduce((sum, { bytes }) => sum + bytes.length, 0);
// Files can be read into the kernels' memory and written from it: what is timed works there, as zstd works in its own.
const workspace = createWorkspace(Math.ceil((4 * total) / 65536) + 512);
const place = (bytes: Uint8Array): Uint8Array => {
  const region = workspace.bytes(workspace.take(bytes.length));
  region.set(bytes);
  return region;
};
/** The same bytes as a view of the memory as it is: growing any shared memory gives all of them new buffers, and bytes of an older one are copied. */
const here = (bytes: Uint8Array): Uint8Array => new Uint8Array(workspace.memory.buffer, bytes.byteOffset, bytes.length);
const tensors = sources.map((tensor): Tensor => ({ ...tensor, bytes: place(tensor.bytes) }));
const coder = createCompactCoder();

/** Payloads with their heads, ready to decode. */
const encoded = LEVELS.map((level) =>
  tensors.map(({ dtype, shape, bytes }) => {
    const payload = place(Buffer.concat(encodePayload(dtype, shape, bytes, level, coder)));
    const tail = parseTail(
      "tensor",
      dtype,
      shape,
      payload.subarray(payload.length - tailLength("tensor", payload, payload.length)),
      payload.length,
    );
    return { payload, tail };
  }),
);
const out = place(new Uint8Array(tensors.reduce((most, { bytes }) => Math.max(most, bytes.length), 0)));
const packed = place(new Uint8Array(out.length + 65536));
const timed = createCompactCoder(workspace);
const decodeAll = (level: number, check: boolean): void => {
  for (const [i, { payload, tail }] of encoded[level]!.entries()) {
    const { bytes } = tensors[i]!;
    const part = here(out).subarray(0, bytes.length);
    decodeBlocks("tensor", tail, 0, tail.checksums.length, here(payload), timed, part);
    if (check && Buffer.compare(part, bytes) !== 0) throw new Error(`tensor ${i} does not come back at level ${LEVELS[level]}`);
  }
};
LEVELS.forEach((_, level) => decodeAll(level, true));

/** Payloads one behind the other in memory that is there already, as zstd has it. */
const encodeAll = (level: CompactLevel): void => {
  for (const { dtype, shape, bytes } of tensors) {
    const room = here(packed);
    let at = 0;
    encodePayload(dtype, shape, here(bytes), level, timed, (block) => {
      const to = room.subarray(at, (at += block.length));
      to.set(block);
      return to;
    });
  }
};

/** Times that everything runs in a round, zstd and what is measured beside it. */
const TIMES = 3;
/** The least CPU seconds of those times. */
const cpuSeconds = (work: () => void): number =>
  Math.min(
    ...Array.from({ length: TIMES }, () => {
      const start = process.cpuUsage();
      work();
      const { user, system } = process.cpuUsage(start);
      return (user + system) / 1e6;
    }),
  );

const scratch = mkdtempSync(join(tmpdir(), "compact-bench-"));
const zstdInput = join(scratch, "tensors");
writeFileSync(zstdInput, Buffer.concat(tensors.map(({ bytes }) => bytes)));
const best = new Map<string, number>();
const note = (name: string, speed: number): void => void best.set(name, Math.max(best.get(name) ?? 0, speed));
const copy = new Uint8Array(out.length);
for (let round = 0; round < rounds; round++) {
  note("memcpy", total / 1e9 / cpuSeconds(() => tensors.forEach(({ bytes }) => copy.set(bytes))));
  const zstd = zstdSeconds(zstdInput, TIMES);
  if (zstd !== undefined) {
    note("zstd encode", total / 1e9 / zstd.encode);
    note("zstd decode", total / 1e9 / zstd.decode);
  }
  for (const [l, level] of LEVELS.entries()) {
    note(`${level} encode`, total / 1e9 / cpuSeconds(() => encodeAll(level)));
    note(`${level} decode`, total / 1e9 / cpuSeconds(() => decodeAll(l, false)));
  }
}
rmSync(scratch, { recursive: true });

/** Wall time of encoding (and checking) all tensors by a number of workers; started beforehand. */
async function workerSeconds(workers: number, level: CompactLevel): Promise<number> {
  const pool = createPool<CompactTask, CompactAnswer>({
    workers,
    module: new URL("../kernels/compact/tensor.ts", import.meta.url),
    run,
  });
  // In shared memory, as the tool has them: handing tasks over costs nothing. Blocks go to a place of their own, so that a round can follow.
  const tasks = tensors.flatMap(({ dtype, shape, bytes }): CompactTask[] => {
    const view = viewMatrix(dtype, shape);
    if (view === undefined) return [];
    const unit = view.rowsPerBlock * view.cols * view.elementBytes;
    const plan = view.kind === "bytes" ? planBytes(coder.countBytes(bytes)) : planColumns(view, () => sampleRows(view, bytes), coder);
    if (plan === undefined) return [];
    const step = blocksPerRange(view);
    return Array.from({ length: Math.ceil(view.blocks / step) }, (_, i): CompactTask => {
      const part = bytes.subarray(i * step * unit, (i + 1) * step * unit);
      const shared = new Uint8Array(new SharedArrayBuffer(part.length));
      shared.set(part);
      const blocks = new Uint8Array(new SharedArrayBuffer(part.length + 256));
      const range = { name: "tensor", view: rangeOf(view, i * step, Math.min((i + 1) * step, view.blocks)), level, plan };
      return { kind: "encode", range, bytes: shared, blocks };
    });
  });
  let least = Infinity;
  for (let round = 0; round < 1 + rounds; round++) {
    const start = performance.now();
    await pool.map(tasks);
    if (round > 0) least = Math.min(least, (performance.now() - start) / 1e3);
  }
  await pool.close();
  return least;
}

const ratio = (name: string, anchor: string): string =>
  best.has(anchor) ? `${(best.get(name)! / best.get(anchor)!).toFixed(2)} of ${anchor}` : "";
console.log(`${(total / 2 ** 20).toFixed(0)} MiB in ${tensors.length} tensors, best of ${rounds} rounds, GB of tensors a second`);
for (const [l, level] of LEVELS.entries()) {
  const stored = encoded[l]!.reduce((sum, { payload }) => sum + payload.length, 0);
  console.log(
    `${level.padEnd(12)} ${((100 * stored) / total).toFixed(2)} % of the bytes, ${((16 * stored) / total).toFixed(4)} bits of 16`,
  );
}
for (const [name, speed] of best) {
  const step = name.endsWith("encode") ? "encode" : "decode";
  const anchors = name.startsWith("zstd") || name === "memcpy" ? "" : `${ratio(name, `zstd ${step}`)}   ${ratio(name, "memcpy")}`;
  console.log(`${name.padEnd(12)} ${speed.toFixed(3)}   ${anchors}`);
}
for (const level of LEVELS) {
  const [one, two] = [await workerSeconds(1, level), await workerSeconds(2, level)];
  console.log(`two workers  ${(one / two).toFixed(2)} times one (encode and check, ${level})`);
}
