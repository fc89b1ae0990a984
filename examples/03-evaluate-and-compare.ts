// Perplexity of a model, and what 4-bit weights cost: KL divergence and agreement with the source.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEngine, evaluate, loadTokenizer, openModel, quantize } from "bitwright";

const source = "fixtures/models/tiny-llama";
const work = await mkdtemp(join(tmpdir(), "bitwright-example-"));
const out = join(work, "w4a16");
await quantize(source, { recipe: { method: ["rtn"], bits: "w4a16", groupSize: 128 }, out });

const engine = await createEngine("auto");
const tokenizer = await loadTokenizer(source);
const ids = tokenizer.encode(await readFile("fixtures/data/test.txt", "utf8")).slice(0, 2048);
const reference = await openModel(source);
const before = await evaluate(reference, ids, { window: 256, engine });
const after = await evaluate(await openModel(out), ids, { window: 256, engine, reference });
console.log(`perplexity ${before.perplexity.toFixed(3)} → ${after.perplexity.toFixed(3)} over ${after.tokens} predictions`);
console.log(`KL ${after.kl?.toFixed(4)} nats, top-1 agreement ${(100 * (after.top1 ?? 0)).toFixed(1)} %`);
await engine.close();
await rm(work, { recursive: true });
