import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CarriedValues } from "./carried.ts";
import type { HostTensor } from "./engines/engine.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "carried-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const nothing: ReadonlySet<string> = new Set();
const vector = (...values: number[]): HostTensor => ({ dtype: "F32", shape: [values.length], data: Float32Array.from(values) });
const create = (maxMemory: number): CarriedValues => new CarriedValues({ maxMemory, scratchDirectory: folder });

test("values equal in name, shape and content are kept once, and outlive each other", async () => {
  const carried = create(1000);
  for (const batch of [0, 1, 2]) await carried.replace(batch, [["cos", vector(1, 2, 3)]], nothing);
  expect(carried.memoryBytes).toBe(12);
  await carried.replace(0, [["cos", vector(9, 9, 9)]], nothing);
  expect(carried.memoryBytes).toBe(24);
  expect(await carried.get(1, "cos")).toEqual(vector(1, 2, 3));
  for (const batch of [0, 1, 2]) await carried.replace(batch, [], nothing);
  expect(carried.memoryBytes).toBe(0);
});

test("new values may be views over the old ones", async () => {
  const carried = create(1000);
  await carried.replace(0, [["a", vector(1, 2)], ["b", vector(3, 4)]], nothing); // prettier-ignore
  const [a, b] = [await carried.get(0, "a"), await carried.get(0, "b")];
  await carried.replace(0, [["a", b!], ["b", a!]], nothing); // prettier-ignore
  expect([await carried.get(0, "a"), await carried.get(0, "b")]).toEqual([vector(3, 4), vector(1, 2)]);
});

test("the scratch file reuses room and is gone after close", async () => {
  const carried = create(0);
  for (let round = 0; round < 5; round++) {
    await carried.replace(0, [["x", vector(round, 1)]], nothing);
    await carried.replace(1, [["x", vector(round, 2)]], nothing);
  }
  expect(carried.memoryBytes).toBe(0);
  // Two values, and one more while a new value is written before the old one is dropped.
  expect(carried.scratchBytes).toBe(3 * 8);
  expect(await carried.get(1, "x")).toEqual(vector(4, 2));
  await carried.close();
  expect(readdirSync(folder)).toEqual([]);
});

test("gives back what was stored for any limit and any order of replacing, keeping and dropping", async () => {
  const step = fc.record({
    batch: fc.nat(2),
    name: fc.constantFrom("x", "y"),
    values: fc.array(fc.nat(3), { maxLength: 3 }),
    keep: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 60 }), fc.array(step, { maxLength: 25 }), async (maxMemory, steps) => {
      const carried = create(maxMemory);
      const expected = new Map<string, HostTensor>();
      try {
        for (const { batch, name, values, keep } of steps) {
          const other = name === "x" ? "y" : "x";
          await carried.replace(batch, [[name, vector(...values)]], keep ? new Set([other]) : nothing);
          expected.set(`${batch}${name}`, vector(...values));
          if (!keep) expected.delete(`${batch}${other}`);
          expect(carried.memoryBytes).toBeLessThanOrEqual(maxMemory);
        }
        for (const batch of [0, 1, 2]) {
          for (const name of ["x", "y"]) expect(await carried.get(batch, name)).toEqual(expected.get(`${batch}${name}`));
        }
      } finally {
        await carried.close();
      }
    }),
    { seed: 3, numRuns: 100 },
  );
});
