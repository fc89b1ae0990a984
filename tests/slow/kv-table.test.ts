/**
 * Keys in BFP12 on the small Llama, 16 windows of 256. Expected: a NumPy prototype's figures for no order and the paper's key
 * (49.43 and 45.68 against 31.37 float), and bounds for our orders.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Engine } from "../../model/engines/engine.ts";
import { createEngine } from "../../model/engines/index.ts";
import { KvTable } from "../support/kv-table.ts";

let engine: Engine;
let table: KvTable;
beforeAll(async () => {
  engine = await createEngine("auto");
  table = await KvTable.open(engine, 16, 16);
});
afterAll(async () => engine.close());

test("blocks of 32: unsorted 49.43, the paper's key 45.68, order=score at most 32.5 with at least 40 % less score error, in as many bytes", async () => {
  expect(await table.float()).toBeCloseTo(31.37, 2);
  const [unsorted, norm, score] = [
    await table.line("bfp12:block=32,v=f32"),
    await table.line("bfp12:block=32,v=f32,order=norm"),
    await table.line("bfp12:block=32,v=f32,order=score"),
  ];
  expect(Math.abs(unsorted.perplexity - 49.43)).toBeLessThan(0.1);
  expect(Math.abs(norm.perplexity - 45.68)).toBeLessThan(0.3);
  expect(score.perplexity).toBeLessThanOrEqual(32.5);
  expect(score.scoreError).toBeLessThanOrEqual(0.6 * unsorted.scoreError);
  expect(score.bytesPerToken).toBe(unsorted.bytesPerToken);
});

test("blocks of 16: the paper's key does harm, order=score helps", async () => {
  const [unsorted, norm, score] = [
    await table.line("bfp12:block=16,v=f32"),
    await table.line("bfp12:block=16,v=f32,order=norm"),
    await table.line("bfp12:block=16,v=f32,order=score"),
  ];
  expect(Math.abs(unsorted.perplexity - 32.12)).toBeLessThan(0.1);
  expect(Math.abs(norm.perplexity - 34.81)).toBeLessThan(0.3);
  expect(score.perplexity).toBeLessThan(unsorted.perplexity);
  expect(score.scoreError).toBeLessThanOrEqual(0.6 * unsorted.scoreError);
});

test("a block that is the whole head has no order, whatever is asked for", async () => {
  const [unsorted, score] = [await table.line("bfp12:block=64,v=f32"), await table.line("bfp12:block=64,v=f32,order=score")];
  expect(score).toEqual(unsorted);
});

test("centring helps at every block size", async () => {
  for (const block of [32, 64]) {
    const unsorted = await table.line(`bfp12:block=${block},v=f32`);
    const centred = await table.line(`bfp12:block=${block},v=f32,centre=mean`);
    expect(centred.perplexity).toBeLessThan(unsorted.perplexity);
    expect(centred.scoreError).toBeLessThan(unsorted.scoreError);
  }
});
