import { observeKeys, type KeyStatistics } from "../../calibrate/keys.ts";
import { loadTokenIds } from "../../calibrate/samples.ts";
import type { Engine } from "../../model/engines/engine.ts";
import { evaluate } from "../../model/evaluate.ts";
import { tokenSample } from "../../model/inputs.ts";
import { withKvCache } from "../../model/kv/apply.ts";
import { scoreErrors } from "../../model/kv/score-error.ts";
import type { Model } from "../../model/model.ts";
import { openModel } from "../../model/sources/open.ts";
import type { Sample } from "../../model/walk-types.ts";
import { schemeFrom } from "../../quantize/kv/scheme.ts";
import { parseKv } from "../../quantize/kv/spec.ts";

const MODEL = "fixtures/models/tiny-llama";
const WINDOW = 256;

export interface KvLine {
  readonly perplexity: number;
  readonly scoreError: number;
  readonly bytesPerToken: number;
}

/** Keys of the small Llama in blocks, values and queries float: windows of 256 of test.txt, calibrated on calib.txt. */
export class KvTable {
  readonly #model: Model;
  readonly #engine: Engine;
  readonly #ids: readonly number[];
  readonly #statistics: ReadonlyMap<string, KeyStatistics>;

  private constructor(model: Model, engine: Engine, ids: readonly number[], statistics: ReadonlyMap<string, KeyStatistics>) {
    this.#model = model;
    this.#engine = engine;
    this.#ids = ids;
    this.#statistics = statistics;
  }

  static async open(engine: Engine, windows: number, calibrationWindows: number): Promise<KvTable> {
    const model = await openModel(MODEL);
    const load = async (name: string, count: number): Promise<readonly number[]> =>
      loadTokenIds([`fixtures/data/${name}`], {
        directory: MODEL,
        vocabularySize: model.facts.vocabularySize,
        maxTokens: count * WINDOW,
      });
    const statistics = await observeKeys(model, cut(model, await load("calib.txt", calibrationWindows)), { engine });
    return new KvTable(model, engine, await load("test.txt", windows), statistics);
  }

  async float(): Promise<number> {
    return (await evaluate(this.#model, this.#ids, { engine: this.#engine, window: WINDOW })).perplexity;
  }

  async line(scheme: string): Promise<KvLine> {
    const kv = await schemeFrom(this.#model, parseKv(scheme), this.#statistics);
    const [scoreError = NaN] = await scoreErrors(this.#model, [kv], cut(this.#model, this.#ids), { engine: this.#engine });
    const { model, use } = withKvCache(this.#model, kv);
    const { perplexity } = await evaluate(model, this.#ids, { engine: this.#engine, window: WINDOW });
    return { perplexity, scoreError, bytesPerToken: use().bytesPerToken };
  }
}

function cut(model: Model, ids: readonly number[]): Sample[] {
  return Array.from({ length: Math.floor(ids.length / WINDOW) }, (_, i) => tokenSample(model, ids.slice(i * WINDOW, (i + 1) * WINDOW)));
}
