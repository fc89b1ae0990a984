/**
 * Keys of a cache in blocks: score error and perplexity by format, block size, order and centre. Values and queries stay float.
 *
 *   node --import tsx bench/kv-blocks.ts --model <directory> --data <calibration text> --eval <held-out text>
 *     [--formats bfp12] [--blocks 16,32,64] [--choices ",order=norm,order=score,centre=mean,centre=mean;order=score"]
 *     [--window 512] [--max-tokens 2048] [--calibration-tokens 4096]
 *
 * One JSON line a scheme on stdout, the float model first.
 */
import { parseArgs } from "node:util";
import { observeKeys } from "../calibrate/keys.ts";
import { loadTokenIds } from "../calibrate/samples.ts";
import { createEngine } from "../model/engines/index.ts";
import { evaluate } from "../model/evaluate.ts";
import { tokenSample } from "../model/inputs.ts";
import { withKvCache } from "../model/kv/apply.ts";
import { scoreErrors } from "../model/kv/score-error.ts";
import { openModel } from "../model/sources/open.ts";
import type { Sample } from "../model/walk-types.ts";
import { schemeFrom } from "../quantize/kv/scheme.ts";
import { parseKv } from "../quantize/kv/spec.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    data: { type: "string" },
    eval: { type: "string" },
    formats: { type: "string", default: "bfp12" },
    blocks: { type: "string", default: "16,32,64" },
    choices: { type: "string", default: ",order=norm,order=absmax,order=score,centre=mean,centre=mean;order=score" },
    window: { type: "string", default: "512" },
    "max-tokens": { type: "string", default: "2048" },
    "calibration-tokens": { type: "string", default: "4096" },
  },
});
const { model: directory, data, eval: text } = values;
if (directory === undefined || data === undefined || text === undefined) {
  throw new Error("needs --model <directory>, --data <calibration text> and --eval <held-out text>");
}
const [window, maxTokens, calibrationTokens] = [Number(values.window), Number(values["max-tokens"]), Number(values["calibration-tokens"])];
const model = await openModel(directory);
const engine = await createEngine("auto");
const load = async (file: string, most: number): Promise<readonly number[]> =>
  loadTokenIds([file], { directory, vocabularySize: model.facts.vocabularySize, maxTokens: most });
const windows = (ids: readonly number[]): Sample[] =>
  Array.from({ length: Math.floor(ids.length / window) }, (_, i) => tokenSample(model, ids.slice(i * window, (i + 1) * window)));
const ids = await load(text, maxTokens);
const statistics = await observeKeys(model, windows(await load(data, calibrationTokens)), { engine });

const print = (line: Readonly<Record<string, unknown>>): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const float = (await evaluate(model, ids, { engine, window, maxTokens })).perplexity;
print({ scheme: "float", perplexity: float });
for (const format of values.formats.split(",")) {
  for (const block of values.blocks.split(",")) {
    for (const choice of values.choices.split(",")) {
      const scheme = [`${format}:block=${block}`, "v=f16", ...choice.split(";").filter((part) => part !== "")].join(",");
      const cache = await schemeFrom(model, parseKv(scheme), statistics);
      const [scoreError] = await scoreErrors(model, [cache], windows(ids), { engine });
      const { perplexity } = await evaluate(withKvCache(model, cache).model, ids, { engine, window, maxTokens });
      print({ scheme, scoreError, perplexity, gap: perplexity - float });
    }
  }
}
await engine.close();
