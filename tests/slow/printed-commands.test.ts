/** The command lines of README, docs and --help, run as they are printed on small models of the names they use. */
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { tensorOf } from "../../core/tensor.ts";
import { npyBytes } from "../../formats/containers/npz/npy.ts";
import { writeNpz } from "../../formats/containers/npz/npz.ts";
import { writeOnnxModel } from "../../formats/containers/onnx/write.ts";
import { GraphBuilder } from "../../model/graph/builder.ts";
import { graphToOnnx } from "../../model/graph/to-onnx.ts";
import { documentedCommands, helpExamples, wordsOf } from "../support/printed-commands.ts";
import { readTensors } from "../support/tensors.ts";

const ROOT = join(import.meta.dirname, "../..");
const VIT = join(ROOT, "fixtures/models/tiny-vit");
const folder = mkdtempSync(join(tmpdir(), "printed-"));
const at = (...path: string[]): string => join(folder, ...path);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(async () => {
  symlinkSync(join(ROOT, "fixtures"), at("fixtures"));
  cpSync(join(ROOT, "fixtures/models/tiny-llama"), at("llama"), { recursive: true });
  for (const name of ["big.safetensors", "model.safetensors"]) cpSync(at("llama/model.safetensors"), at(name));
  cpSync(join(ROOT, "fixtures/data/test.txt"), at("test.txt"));
  const text = readFileSync(join(ROOT, "fixtures/data/calib.txt"), "utf8");
  // Enough for 128 samples of 512 tokens.
  writeFileSync(at("calib.txt"), text + text);
  const verses = text.split("\n\n");
  writeFileSync(at("c4.jsonl"), verses.map((verse) => `${JSON.stringify({ text: verse })}\n`).join(""));
  writeFileSync(at("ids.json"), JSON.stringify([Array.from({ length: 256 }, (_, i) => i), [4, 5, 6, 7]]));
  cpSync(VIT, at("vit"), { recursive: true });
  writeFileSync(at("vit/onnx/model.onnx"), gunzipSync(readFileSync(join(VIT, "onnx/model.onnx.gz"))));
  cpSync(at("vit/onnx/model.onnx"), at("model.onnx"));
  cpSync(join(VIT, "preprocessor_config.json"), at("preprocessor_config.json"));
  mkdirSync(at("images"));
  const images = readdirSync(join(VIT, "images")).toSorted();
  // Enough for 256 samples.
  for (let i = 0; i < 256; i++) cpSync(join(VIT, "images", images[i % images.length]!), at("images", `${i}-${images[i % images.length]!}`));
  cpSync(join(VIT, "images/00-ankle-boot.png"), at("cat.png"));
  const pixels = (await readTensors(join(VIT, "golden.safetensors"))).get("pixel_values.0")!;
  const pixelValues = new Map([["pixel_values", { ...pixels, shape: [1, ...pixels.shape] }]]);
  for (const name of ["in.npz", "inputs.npz"]) await writeNpz(at(name), pixelValues);
  await writeNpz(at("llama.npz"), new Map([["input_ids", tensorOf(new BigInt64Array([0n, 5n, 6n, 7n]), [1, 4])]]));
  mkdirSync(at("sum"));
  const builder = new GraphBuilder("sum");
  for (const name of ["a", "b"]) {
    builder.input(name, "F32", [3]);
    writeFileSync(at("sum", `${name}.npy`), npyBytes(tensorOf(new Float32Array([1, 2, 3]), [3]), name));
  }
  builder.op("Add", ["a", "b"], {}, "sum");
  await writeOnnxModel(at("sum/model.onnx"), graphToOnnx(builder.build(["sum"])));
});

/** Where a line runs: the one with two named inputs has a model of its own. */
const placeOf = (line: string): string => (line.includes("a=a.npy") ? at("sum") : folder);

async function run(line: string): Promise<{ readonly code: number; readonly text: string }> {
  // in.npz is the language model's input on one line and the vision model's on another.
  const args = wordsOf(line.includes("llama") ? line.replace("in.npz", "llama.npz") : line).slice(1);
  const named = args.includes("--out") && !args.includes("--dry-run") ? join(placeOf(line), args[args.indexOf("--out") + 1]!) : undefined;
  // Another example of the same name has been here before.
  const earlier = at("earlier");
  const isAgain = named !== undefined && existsSync(named);
  if (isAgain) renameSync(named, earlier);
  const result = await start(args, placeOf(line));
  if (isAgain && result.code !== 0) {
    rmSync(named, { recursive: true, force: true });
    renameSync(earlier, named);
  }
  rmSync(earlier, { recursive: true, force: true });
  return result;
}

/** Leaves `out` as a run that was killed while it calibrated. */
async function leaveUnfinished(out: string): Promise<void> {
  rmSync(out, { recursive: true, force: true });
  const args = ["./llama", "--method", "smoothquant", "--data", "calib.txt", "--out", out];
  const child = spawn(process.execPath, ["--import", import.meta.resolve("tsx"), join(ROOT, "cli/main.ts"), ...args], { cwd: folder });
  const ended = new Promise((resolve) => child.on("close", resolve));
  while (child.exitCode === null && !(existsSync(out) && readdirSync(out).length > 0)) await setTimeout(20);
  // The directory is there a moment before what a resumed run reads.
  await setTimeout(200);
  child.kill("SIGKILL");
  await ended;
}

function start(args: readonly string[], cwd: string): Promise<{ readonly code: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--import", import.meta.resolve("tsx"), join(ROOT, "cli/main.ts"), ...args], {
      cwd,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let text = "";
    child.stdout.on("data", (part) => (text += String(part)));
    child.stderr.on("data", (part) => (text += String(part)));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? -1, text }));
  });
}

/** Patterns of a command line, not lines to type. */
const isPattern = (line: string): boolean => /[<…]|\.\.\.|\|/.test(line.replace(/#.*/, ""));
const LINES = [...new Set([...documentedCommands().map(({ line }) => line), ...helpExamples()])].filter((line) => !isPattern(line));

test.each(LINES)("%s", async (line) => {
  if (line.startsWith("bitwright resume ")) await leaveUnfinished(at(wordsOf(line)[2]!));
  const { code, text } = await run(line);
  expect(code, text).toBe(0);
});
