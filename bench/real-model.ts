/**
 * Quality and cost of W8A8 on a real model: plain RTN, SmoothQuant as published, SmoothQuant with searched alpha and protected sites.
 *
 *   node --import tsx bench/real-model.ts --model <directory> --data <calibration text> --eval <held-out text> [--eval <another>]
 *     [--samples 16] [--seq-len 512] [--window 512] [--max-tokens 5120] [--only rtn,smoothquant,auto]
 *
 * Every run is a process of its own, so CPU seconds and peak memory are those of the run; evaluation is another process and not counted.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import type { QuantizeReport } from "../quantize/types.ts";

const RECIPES: Readonly<Record<string, readonly string[]>> = {
  rtn: ["--method", "rtn", "--bits", "w8a8"],
  smoothquant: ["--method", "smoothquant"],
  auto: ["--method", "smoothquant", "--scheme", "alpha=auto", "--protect", "auto"],
};

interface EvalResult {
  readonly perplexity: number;
  readonly referencePerplexity: number;
  readonly kl: number;
  readonly top1: number;
}

const root = join(import.meta.dirname, "..");
const built = join(root, "dist/cli/main.js");
const cli = existsSync(built) ? [built] : ["--import", "tsx", join(root, "cli/main.ts")];

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    data: { type: "string" },
    eval: { type: "string", multiple: true },
    samples: { type: "string", default: "16" },
    "seq-len": { type: "string", default: "512" },
    window: { type: "string", default: "512" },
    "max-tokens": { type: "string", default: "5120" },
    only: { type: "string", default: Object.keys(RECIPES).join(",") },
  },
});
const { model, data, eval: texts } = values;
if (model === undefined || data === undefined || texts === undefined) {
  throw new Error("needs --model <directory>, --data <calibration text> and --eval <held-out text>");
}

async function bitwright(args: readonly string[]): Promise<unknown> {
  const { stdout } = await promisify(execFile)(process.execPath, [...cli, ...args, "--json", "--no-progress"], {
    cwd: root,
    maxBuffer: 2 ** 28,
  });
  return JSON.parse(stdout);
}

const folder = await mkdtemp(join(tmpdir(), "bitwright-real-model-"));
try {
  for (const name of values.only.split(",")) {
    const recipe = Object.hasOwn(RECIPES, name) ? RECIPES[name] : undefined;
    if (recipe === undefined) throw new Error(`--only ${name}: choose from ${Object.keys(RECIPES).join(", ")}`);
    const out = join(folder, name);
    const calibration = name === "rtn" ? [] : ["--data", data, "--samples", values.samples, "--seq-len", values["seq-len"]];
    const report = (await bitwright([model, ...recipe, ...calibration, "--out", out])) as QuantizeReport;
    const quantized = report.plan.sites.filter(({ weight }) => weight !== undefined);
    const shielded = quantized.filter(({ input }) => input === undefined);
    console.log(`\n${name}: ${recipe.join(" ")} ${calibration.slice(2).join(" ")}`);
    console.log(
      `  ${report.cpuSeconds.toFixed(1)} CPU-seconds, ${report.seconds.toFixed(1)} s, peak ${(report.peakMemoryBytes / 2 ** 20).toFixed(0)} MiB`,
    );
    console.log(
      `  ${shielded.length} of ${quantized.length} sites weight-only${shielded.length === 0 ? "" : `: ${shielded.map((site) => site.name).join(" ")}`}`,
    );
    for (const text of texts) {
      const flags = ["--data", text, "--window", values.window, "--max-tokens", values["max-tokens"], "--reference", model];
      const result = (await bitwright(["eval", out, ...flags])) as EvalResult;
      const gap = 100 * (result.perplexity / result.referencePerplexity - 1);
      const gain = `${result.referencePerplexity.toFixed(4)} → ${result.perplexity.toFixed(4)} (${gap >= 0 ? "+" : ""}${gap.toFixed(2)} %)`;
      console.log(`  ${text}: perplexity ${gain}, KL ${result.kl.toFixed(4)}, top-1 ${(100 * result.top1).toFixed(1)} %`);
    }
    await rm(out, { recursive: true, force: true });
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
