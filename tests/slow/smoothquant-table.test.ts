/** Every line of the SmoothQuant/RTN table of the fixtures, over all 88 windows. Expected: fixtures/goldens/perplexity.json. */
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Engine } from "../../model/engines/engine.ts";
import { createEngine } from "../../model/engines/index.ts";
import { evaluate } from "../../model/evaluate.ts";
import { openModel } from "../../model/sources/open.ts";
import { loadTokenizer } from "../../model/tokenizer.ts";
import { quantize } from "../../quantize/quantize.ts";

const MODEL = "fixtures/models/tiny-llama";
let directory: string;
let engine: Engine;
let ids: readonly number[];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "table-"));
  engine = await createEngine("auto");
  ids = (await loadTokenizer(MODEL)).encode(readFileSync("fixtures/data/test.txt", "utf8"));
});
afterAll(async () => {
  await engine.close();
  await rm(directory, { recursive: true, force: true });
});

interface Line {
  readonly bits: string;
  readonly scheme: Readonly<Record<string, string>>;
  readonly groupSize?: number;
  readonly rtn: number;
  readonly smoothquant: number;
}

const SQ = { preset: "sq-fake" };
const LINES: readonly Line[] = [
  { bits: "w8a8", scheme: SQ, rtn: 35.6895, smoothquant: 32.6854 },
  { bits: "w8a8", scheme: { ...SQ, "qkv-outputs": "true" }, rtn: 35.865, smoothquant: 32.6992 },
  { bits: "w8a8", scheme: { ...SQ, level: "O1" }, rtn: 37.7121, smoothquant: 32.6983 },
  { bits: "w8a8", scheme: { ...SQ, level: "O2" }, rtn: 64.2841, smoothquant: 32.7483 },
  { bits: "w8a8", scheme: { ...SQ, level: "O3" }, rtn: 69.2925, smoothquant: 32.8968 },
  { bits: "w8a8", scheme: { ...SQ, act: "static" }, rtn: 64.7252, smoothquant: 32.8751 },
  { bits: "w6a6", scheme: SQ, rtn: 108.9281, smoothquant: 32.892 },
  { bits: "w4a8", scheme: SQ, rtn: 38.7581, smoothquant: 32.9799 },
  { bits: "w4a4", scheme: SQ, rtn: Infinity, smoothquant: 34.9618 },
  { bits: "w8a16", scheme: SQ, rtn: 32.7318, smoothquant: 32.6748 },
  { bits: "w4a16", scheme: { preset: "awq" }, rtn: 33.8809, smoothquant: 32.8021 },
  { bits: "w4a16", scheme: { preset: "awq" }, groupSize: 32, rtn: 33.7799, smoothquant: 32.7542 },
  { bits: "w4a16", scheme: { "scale-dtype": "f32" }, rtn: 33.8494, smoothquant: 32.8295 },
  { bits: "w3a16", scheme: { preset: "awq" }, rtn: 34.4364, smoothquant: 33.529 },
];

describe.each(LINES)("$bits $scheme $groupSize", ({ bits, scheme, groupSize, rtn, smoothquant }) => {
  const isWeightOnly = bits.endsWith("a16");

  async function perplexityOf(method: string): Promise<number> {
    const out = join(directory, [method, bits, ...Object.values(scheme), groupSize].join("-"));
    await quantize(MODEL, {
      recipe: { method: [method], bits, scheme, ...(groupSize !== undefined && { groupSize }) },
      data: ["fixtures/data/calib.txt"],
      samples: 32,
      sequenceLength: 256,
      out,
      engine,
    });
    const { perplexity } = await evaluate(await openModel(out), ids, { engine, window: 256 });
    console.log([method, bits, groupSize ?? "", JSON.stringify(scheme), perplexity.toFixed(4)].join(" "));
    return perplexity;
  }

  test("SmoothQuant within 0.1 % of the reference", async () => {
    expect(Math.abs((await perplexityOf("smoothquant")) / smoothquant - 1)).toBeLessThan(0.001);
  }, 300_000);

  test("RTN within the reference's tolerance, or broken where the reference is", async () => {
    const found = await perplexityOf("rtn");
    const holds = rtn === Infinity ? found > 1e5 : Math.abs(found / rtn - 1) < (isWeightOnly ? 0.001 : 0.01);
    expect({ found, rtn, holds }).toEqual({ found, rtn, holds: true });
  }, 300_000);
});
