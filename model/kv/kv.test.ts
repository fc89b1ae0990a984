import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bfp, parseBlockFormat } from "../../core/blocks/format.ts";
import { fakeQuantizeBlocks } from "../../core/blocks/quantize.ts";
import { createRandom } from "../../core/random.ts";
import type { Engine } from "../engines/engine.ts";
import { createEngine } from "../engines/index.ts";
import { evaluate, logitsOf } from "../evaluate.ts";
import { openModel } from "../sources/open.ts";
import { toFloat32 } from "../../core/tensor.ts";
import { withKvCache } from "./apply.ts";
import { decodeRows, encodeRows } from "./codes.ts";
import { KvLayer } from "./layer.ts";
import type { KvCode, KvScheme, StaticOp } from "./scheme.ts";

const MINIS = new URL("../../fixtures/models/minis", import.meta.url).pathname;
const FLOAT: KvCode = { kind: "float", dtype: "F32" };
const HEADS = { heads: 4, kvHeads: 2, headSize: 64 };

function schemeOf(parts: Partial<KvScheme>): KvScheme {
  return {
    version: 1,
    method: "test",
    k: FLOAT,
    v: FLOAT,
    q: FLOAT,
    mode: "all",
    protect: { sinks: 0, window: 0 },
    ops: new Map(),
    ...parts,
  };
}

function normals(count: number, seed: number): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length: count }, () => random.normal());
}

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(async () => engine.close());

test.each(["bfp12", "bfp16", "bfp24", "mxint8", "mxfp8", "mxfp6", "mxfp4"])("%s rows read back as the format's definition says", (name) => {
  const format = parseBlockFormat(name)!;
  const x = normals(6 * 48, 7);
  const wanted = x.slice();
  fakeQuantizeBlocks(wanted, 48, format);
  const code: KvCode = { kind: "block", format };
  expect(decodeRows(code, encodeRows(code, x, 48), 48)).toEqual(wanted);
});

test("a BFP12 row of 64 channels in blocks of 32 takes 32 bytes of mantissas and 2 exponents: 4.25 bits a value", () => {
  const { codes, scales } = encodeRows({ kind: "block", format: bfp(4, 32) }, normals(64, 1), 64);
  expect([codes.byteLength, scales.byteLength]).toEqual([32, 2]);
});

test("the golden block of the BFP definition: 1.93 clips to 1.75", () => {
  const x = Float32Array.of(0.9, -0.31, 0.07, 0.5, -1.93, 0.02, 0.11, -0.44);
  const code: KvCode = { kind: "block", format: bfp(4, 8) };
  expect([...decodeRows(code, encodeRows(code, x, 8), 8)]).toEqual([1, -0.25, 0, 0.5, -1.75, 0, 0, -0.5]);
});

test("int8 rows stay within half a step of the largest value / 127, and zeros stay zeros", () => {
  const x = normals(128, 3);
  const read = decodeRows({ kind: "int", bits: 8 }, encodeRows({ kind: "int", bits: 8 }, x, 64), 64);
  const most = x.subarray(0, 64).reduce((best, value) => Math.max(best, Math.abs(value)), 0);
  for (let i = 0; i < 64; i++) expect(Math.abs(read[i]! - x[i]!)).toBeLessThan((most / 127) * 0.51);
  expect([...decodeRows({ kind: "int", bits: 8 }, encodeRows({ kind: "int", bits: 8 }, new Float32Array(64), 64), 64)]).toEqual(
    Array.from({ length: 64 }, () => 0),
  );
});

test("a key that is not a number is refused with its channel", () => {
  const x = new Float32Array(64);
  x[5] = NaN;
  expect(() => encodeRows({ kind: "block", format: bfp(4, 32) }, x, 64)).toThrow(/channel 5/);
});

test("a prompt stored at once and token by token leave the same bytes and read the same: prefill and decode are one path", () => {
  const scheme = schemeOf({ k: { kind: "block", format: bfp(4, 32) }, v: { kind: "int", bits: 8 } });
  const [k, v] = [normals(9 * 128, 1), normals(9 * 128, 2)];
  const [whole, stepwise] = [new KvLayer(scheme, HEADS, "layer"), new KvLayer(scheme, HEADS, "layer")];
  whole.append(k, v);
  for (let t = 0; t < 9; t++) stepwise.append(k.subarray(t * 128, (t + 1) * 128), v.subarray(t * 128, (t + 1) * 128));
  expect(stepwise.bytes()).toEqual(whole.bytes());
  expect(stepwise.materialize()).toEqual(whole.materialize());
});

test("scores of ordered keys are those of plain ones; of centred keys the same up to one constant a row", () => {
  const index = Int32Array.from({ length: 128 }, (_, i) => (i < 64 ? 63 - i : 64 + ((i - 64 + 17) % 64)));
  const mean = normals(128, 9);
  const ops: readonly StaticOp[] = [
    { op: "centre", mean },
    { op: "perm", index },
  ];
  const [k, v, q] = [normals(5 * 128, 1), normals(5 * 128, 2), normals(4 * 64, 3)];
  const scoresOf = (scheme: KvScheme): Float32Array => {
    const cache = new KvLayer(scheme, HEADS, "layer");
    cache.append(k, v);
    const out = new Float32Array(4 * 5);
    cache.scores(q, out);
    return out;
  };
  const plain = scoresOf(schemeOf({}));
  const ordered = scoresOf(schemeOf({ ops: new Map([["layer", [ops[1]!]]]) }));
  const both = scoresOf(schemeOf({ ops: new Map([["layer", ops]]) }));
  for (let i = 0; i < 20; i++) expect(ordered[i]).toBeCloseTo(plain[i]!, 4);
  for (let h = 0; h < 4; h++) {
    const shift = both[h * 5]! - plain[h * 5]!;
    for (let t = 1; t < 5; t++) expect(both[h * 5 + t]! - plain[h * 5 + t]!).toBeCloseTo(shift, 3);
  }
});

test.each(["llama", "llama-linear-rope", "qwen3", "gemma2", "phi3", "gpt2", "opt", "mixtral", "mistral"])(
  "%s: a float cache changes no logit, all at once and in streaming form",
  async (mini) => {
    const model = await openModel(join(MINIS, mini));
    const ids = [Array.from({ length: 24 }, (_, i) => (i * 7 + 3) % model.facts.vocabularySize)];
    const plain = toFloat32((await logitsOf(model, ids, { engine })).get("logits.0")!);
    for (const scheme of [schemeOf({}), schemeOf({ mode: "stream", protect: { sinks: 2, window: 5 } })]) {
      const cached = toFloat32((await logitsOf(withKvCache(model, scheme).model, ids, { engine })).get("logits.0")!);
      for (let i = 0; i < plain.length; i++) expect(Math.abs(cached[i]! - plain[i]!)).toBeLessThan(2e-4);
    }
  },
);

test("bytes are counted from buffers: BFP12 keys and values of a mini, every layer and token", async () => {
  const model = await openModel(join(MINIS, "llama"));
  const code: KvCode = { kind: "block", format: bfp(4, 32) };
  const { model: cached, use } = withKvCache(model, schemeOf({ k: code, v: code }));
  await evaluate(
    cached,
    Array.from({ length: 40 }, (_, i) => i % 50),
    { engine, window: 20 },
  );
  const [place] = model.blocks[1]!.attentions!;
  const perHead = Math.ceil(place!.headSize / 2) + Math.ceil(place!.headSize / 32);
  expect(use()).toMatchObject({ tokens: 40, layers: 2, bytes: 40 * 2 * 2 * place!.kvHeads * perHead });
});

test("an encoder keeps no cache; statistics of another model are refused", async () => {
  expect(() => withKvCache({ facts: { output: "last_hidden_state", className: "BertModel" } } as never, schemeOf({}))).toThrow(/BertModel/);
  const model = await openModel(join(MINIS, "llama"));
  const ops = new Map(model.blocks.map(({ name }) => [name, [{ op: "centre", mean: new Float32Array(3) }] as const]));
  expect(() => withKvCache(model, schemeOf({ ops }))).toThrow(/3 channels/);
});
