/**
 * The whole command on one large file (read, encode, decode, compare, write, sync) next to `cp` of the same file, alternating, with both codecs.
 * The file is made here: bf16 weights with row and column scales, among them one tensor of a quarter of it. It is read before each copy, so
 * that neither waits for the disk. The command is that of the built package (`node scripts/build.js`): what `npx` runs.
 */
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeBf16 } from "../core/float.ts";
import { createRandom } from "../core/random.ts";

const COLS = 4096;
/** Rows of the weights that all tensors are made of, 32 MiB. */
const ROWS = 4096;
const PIECE_BYTES = 2 * COLS * ROWS;

/** Writes about `gigabytes` GB. @returns bytes of the file. */
function writeModel(path: string, gigabytes: number): number {
  const random = createRandom(1);
  const columns = Float64Array.from({ length: COLS }, () => Math.exp(0.2 * random.normal()));
  const piece = new Uint16Array(COLS * ROWS);
  for (let r = 0; r < ROWS; r++) {
    const scale = 0.02 * Math.exp(0.3 * random.normal());
    for (let c = 0; c < COLS; c++) piece[COLS * r + c] = encodeBf16(random.normal() * scale * columns[c]!);
  }
  const pieces = Math.max(4, Math.floor((gigabytes * 1e9) / PIECE_BYTES));
  const large = Math.floor(pieces / 4);
  const sizes = [large, ...Array.from({ length: pieces - large }, () => 1)];
  const header: Record<string, unknown> = {};
  let at = 0;
  sizes.forEach((size, i) => {
    const end = at + size * PIECE_BYTES;
    header[`layer.${i}.weight`] = { dtype: "BF16", shape: [size * ROWS, COLS], data_offsets: [at, end] };
    at = end;
  });
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.alloc(8 * Math.ceil(text.length / 8), " ");
  text.copy(padded);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const file = openSync(path, "w");
  writeSync(file, length);
  writeSync(file, padded);
  const bytes = new Uint8Array(piece.buffer);
  for (let p = 0; p < pieces; p++) {
    // Other rows first in each, and other signs, so that no two are the same.
    const turn = (2 * COLS * ((p * 61) % ROWS)) % PIECE_BYTES;
    for (let i = p % 97; i < piece.length; i += 97) piece[i]! ^= 0x8000;
    writeSync(file, bytes.subarray(turn));
    if (turn > 0) writeSync(file, bytes.subarray(0, turn));
  }
  closeSync(file);
  return statSync(path).size;
}

interface Report {
  readonly cpuSeconds: number;
  readonly peakMemoryBytes: number;
  readonly outputBytes: number;
}

const RUNS = [
  ["df11", []],
  ["fast", ["--codec", "compact", "--level", "fast"]],
  ["max", ["--codec", "compact", "--level", "max"]],
] as const;

export function runEndToEnd(gigabytes: number, rounds: number, workers: string): void {
  const cli = join(import.meta.dirname, "../dist/cli/main.js");
  if (!existsSync(cli)) throw new Error("dist/ is not built: run node scripts/build.js first");
  const scratch = mkdtempSync(join(tmpdir(), "compact-end-to-end-"));
  try {
    mkdirSync(join(scratch, "model"));
    const source = join(scratch, "model", "model.safetensors");
    const bytes = writeModel(source, gigabytes);
    console.log(`${(bytes / 1e9).toFixed(2)} GB, one tensor of a quarter of it; wall seconds of the whole process`);
    const piece = new Uint8Array(2 ** 20);
    const warm = (): void => {
      const file = openSync(source, "r");
      while (readSync(file, piece) > 0);
      closeSync(file);
    };
    const copy = (): number => {
      const to = join(scratch, "copy");
      warm();
      const start = performance.now();
      const { status } = spawnSync("cp", [source, to]);
      const seconds = (performance.now() - start) / 1e3;
      if (status !== 0) throw new Error("cp failed");
      rmSync(to);
      return seconds;
    };
    for (let round = 0; round < rounds; round++) {
      for (const [name, options] of RUNS) {
        const before = copy();
        const out = join(scratch, "out");
        const args = [cli, "quantize", join(scratch, "model"), "--method", "dfloat11", ...options];
        const start = performance.now();
        const { status, stdout, stderr } = spawnSync(process.execPath, [...args, "--out", out, "--workers", workers, "--json"], {
          encoding: "utf8",
          maxBuffer: 2 ** 28,
        });
        const seconds = (performance.now() - start) / 1e3;
        if (status !== 0) throw new Error(`quantize failed: ${stderr}`);
        rmSync(out, { recursive: true });
        const after = copy();
        const { cpuSeconds, peakMemoryBytes, outputBytes } = JSON.parse(stdout) as Report;
        const ratios = [before, after].map((cp) => (cp / seconds).toFixed(2)).join(" and ");
        console.log(
          `${name.padEnd(5)} ${seconds.toFixed(1)} s (${cpuSeconds.toFixed(1)} s of CPU), cp before ${before.toFixed(1)} s, after ${after.toFixed(1)} s: ` +
            `${ratios} of cp's speed; peak RSS ${(peakMemoryBytes / 1e6).toFixed(0)} MB, ${((100 * outputBytes) / bytes).toFixed(2)} % of the size`,
        );
      }
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
