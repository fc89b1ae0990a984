import { afterAll, beforeAll, expect, test } from "vitest";
import type { Engine } from "../model/engines/engine.ts";
import { createEngine } from "../model/engines/index.ts";
import { KvTable } from "./support/kv-table.ts";

let engine: Engine;
let table: KvTable;
beforeAll(async () => {
  engine = await createEngine("auto", { threads: 1 });
  table = await KvTable.open(engine, 2, 2);
});
afterAll(async () => engine.close());

test("keys of the small Llama in BFP12: order=score takes most of the loss away in as many bytes, at block = head nothing changes", async () => {
  const float = await table.float();
  const unsorted = await table.line("bfp12:block=32,v=f32");
  const score = await table.line("bfp12:block=32,v=f32,order=score");
  expect(score.scoreError).toBeLessThanOrEqual(0.6 * unsorted.scoreError);
  expect(score.perplexity - float).toBeLessThan(0.2 * (unsorted.perplexity - float));
  expect(score.bytesPerToken).toBe(unsorted.bytesPerToken);
  expect(await table.line("bfp12:block=64,v=f32,order=score")).toEqual(await table.line("bfp12:block=64,v=f32"));
});
