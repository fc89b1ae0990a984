import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const venv = process.env["BITWRIGHT_PYTHON_VENV"];
const python = venv === undefined ? undefined : join(venv, "bin/python");
const reason =
  python === undefined
    ? "skipped: BITWRIGHT_PYTHON_VENV is not set; make one with tests/interop/python/setup.sh"
    : existsSync(python)
      ? `with ${python}`
      : `skipped: ${python} does not exist; tests/interop/python/setup.sh makes it`;

const MODEL = join(root, "fixtures/models/tiny-llama");
const CALIBRATION = ["--data", join(root, "fixtures/data/calib.txt"), "--samples", "8", "--seq-len", "256"];
/** Four layers of seven linears. */
const SITES = 28;

interface SchemeCase {
  readonly name: string;
  readonly flags: readonly string[];
  /** Linears whose inputs the library must quantize. */
  readonly activations: number;
  /** Linears whose weights the library must see as quantized; all by default. */
  readonly weights?: number;
  /** One tie that falls the other way moves a sequence's logits (see the script): judged by the median of the sequences, not the lowest. */
  readonly onTheEdge?: true;
}

const CASES: readonly SchemeCase[] = [
  { name: "W8A8 per-channel, per-token dynamic", flags: ["--method", "rtn", "--bits", "w8a8"], activations: SITES, onTheEdge: true },
  {
    name: "W8A8 in bf16 arithmetic",
    flags: ["--method", "rtn", "--bits", "w8a8", "--scheme", "arithmetic=bf16"],
    activations: SITES,
    onTheEdge: true,
  },
  {
    name: "W8A8 per-tensor static",
    flags: ["--method", "rtn", "--bits", "w8a8", "--group-size", "tensor", "--scheme", "act=static", ...CALIBRATION],
    activations: SITES,
  },
  { name: "SmoothQuant W8A8", flags: ["--method", "smoothquant", ...CALIBRATION], activations: SITES },
  {
    name: "SmoothQuant W8A8 static (O3)",
    flags: ["--method", "smoothquant", "--scheme", "level=O3", ...CALIBRATION],
    activations: SITES,
  },
  {
    name: "SmoothQuant with searched alpha and protected sites",
    flags: [
      "--method",
      "smoothquant",
      "--scheme",
      "alpha=auto",
      "--protect",
      "model.layers.1.mlp.down_proj,re:.*\\.[23]\\.self_attn\\.o_proj",
      ...CALIBRATION,
    ],
    activations: SITES - 3,
  },
  {
    name: "W8A8 with a block left in float",
    flags: ["--method", "rtn", "--bits", "w8a8", "--ignore", "re:model\\.layers\\.3\\..*"],
    activations: SITES - 7,
    weights: SITES - 7,
    onTheEdge: true,
  },
  { name: "W4A16 symmetric", flags: ["--method", "rtn", "--bits", "w4a16", "--group-size", "128"], activations: 0 },
  {
    name: "W4A16 asymmetric",
    flags: ["--method", "rtn", "--bits", "w4a16", "--group-size", "64", "--scheme", "symmetric=false"],
    activations: 0,
  },
  { name: "W8A16", flags: ["--method", "rtn", "--bits", "w8a16"], activations: 0 },
  { name: "FP8 dynamic", flags: ["--method", "rtn", "--bits", "fp8"], activations: SITES },
  { name: "FP8 static", flags: ["--method", "rtn", "--bits", "fp8", "--scheme", "act=static", ...CALIBRATION], activations: SITES },
  { name: "NVFP4", flags: ["--method", "nvfp4", ...CALIBRATION], activations: SITES, onTheEdge: true },
  { name: "NVFP4 weights only", flags: ["--method", "nvfp4a16"], activations: 0 },
  { name: "MXFP4 weights only", flags: ["--method", "mxfp4a16"], activations: 0 },
  { name: "MXFP4 weights only, in bf16 arithmetic", flags: ["--method", "mxfp4a16", "--scheme", "arithmetic=bf16"], activations: 0 },
  {
    name: "MXFP4, even scales",
    flags: ["--method", "mxfp4", "--scheme", "scale=even", ...CALIBRATION],
    activations: SITES,
    onTheEdge: true,
  },
  {
    name: "MXFP8, even scales",
    flags: ["--method", "mxfp8", "--scheme", "scale=even", ...CALIBRATION],
    activations: SITES,
    onTheEdge: true,
  },
  {
    name: "reorder+nvfp4 with inputs in an order of their own",
    flags: ["--method", "reorder+nvfp4", "--to", "compressed-tensors", "--scheme", "sites=all,order=absmax", ...CALIBRATION],
    activations: SITES,
    onTheEdge: true,
  },
];

interface Check {
  readonly cosine: number;
  readonly median_cosine: number;
  readonly top1_agreement: number;
  readonly quantized: { readonly weights: number; readonly activations: number };
  readonly keys: Readonly<Record<string, readonly string[]>>;
}

const run = promisify(execFile);

async function bitwright(...args: readonly string[]): Promise<void> {
  const cli = ["--import", "tsx", join(root, "cli/main.ts"), ...args, "--no-progress"];
  await run(process.execPath, cli, { cwd: root, maxBuffer: 2 ** 26 });
}

describe.skipIf(python === undefined || !existsSync(python))(`transformers + compressed-tensors give our logits (${reason})`, () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "bitwright-interop-"));
    const prompts = JSON.parse(await readFile(join(root, "fixtures/goldens/float.json"), "utf8")) as Record<string, { ids: number[] }>;
    const long = [prompts["genesis"]!.ids, prompts["ruth"]!.ids];
    const short = long.flatMap((ids) => Array.from({ length: 8 }, (_, i) => [ids[0]!, ...ids.slice(1 + 3 * i, 4 + 3 * i)]));
    await writeFile(join(folder, "ids.json"), JSON.stringify([...long, ...short]));
  });
  afterAll(async () => rm(folder, { recursive: true, force: true }));

  test.each(CASES)("$name", async ({ name, flags, activations, weights = SITES, onTheEdge = false }) => {
    const artifact = join(folder, name.replaceAll(/\W+/g, "-"));
    const [logits, ids] = [`${artifact}.safetensors`, join(folder, "ids.json")];
    await bitwright(MODEL, ...flags, "--out", artifact);
    await bitwright("eval", artifact, "--ids", ids, "--logits-out", logits);
    const script = join(root, "tests/interop/python/check_compressed_tensors.py");
    const { stdout } = await run(python!, [script, artifact, logits, ids, "--min-cosine", "-1"], {
      env: { ...process.env, OMP_NUM_THREADS: "1" },
      maxBuffer: 2 ** 26,
    });
    const check = JSON.parse(stdout.trim().split("\n").at(-1)!) as Check;
    process.stderr.write(
      `${name}: cosine ${check.cosine.toFixed(8)}, median ${check.median_cosine.toFixed(8)}, top-1 ${check.top1_agreement.toFixed(3)}\n`,
    );
    expect(onTheEdge ? check.median_cosine : check.cosine).toBeGreaterThanOrEqual(0.9999);
    expect(check.quantized).toEqual({ weights, activations });
    expect(check.keys).toEqual({});
    await rm(artifact, { recursive: true, force: true });
  });
});
