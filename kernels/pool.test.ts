import { describe, expect, test } from "vitest";
import { createPool } from "./pool.ts";
import { run, type Probe } from "../tests/support/pool-job.ts";

const module = new URL("../tests/support/pool-job.ts", import.meta.url);
const start = (workers: number): ReturnType<typeof createPool<Probe, number>> => createPool<Probe, number>({ workers, module, run });

describe.each([0, 1, 3])("a pool of %i workers", (workers) => {
  test("gives results in task order", async () => {
    const pool = start(workers);
    const tasks = Array.from({ length: 12 }, (_, i): Probe => ({ kind: "square", value: i }));
    expect(await pool.map(tasks)).toEqual(tasks.map((_, i) => i * i));
    await pool.close();
  });
  test("passes on class, code and details of an error, and goes on", async () => {
    const pool = start(workers);
    await expect(pool.run({ kind: "throw" })).rejects.toMatchObject({
      name: "InputError",
      code: "input.value",
      details: { given: 7 },
      message: "seven is not allowed",
    });
    expect(await pool.run({ kind: "square", value: 5 })).toBe(25);
    await pool.close();
  });
  test("stops a running task when the signal aborts", async () => {
    const pool = start(workers);
    const stop = new AbortController();
    const forever = pool.run({ kind: "forever" }, { signal: stop.signal, onProgress: () => stop.abort() });
    await expect(forever).rejects.toMatchObject({ name: "InterruptedError" });
    expect(await pool.run({ kind: "square", value: 3 })).toBe(9);
    await pool.close();
  });
});

describe("a worker that ends instead of answering", () => {
  test.each(["exit", "crash"] as const)("fails its task and those that wait: %s", async (kind) => {
    const pool = start(1);
    const [first, second] = await Promise.allSettled([pool.run({ kind }), pool.run({ kind: "square", value: 1 })]);
    expect(first).toMatchObject({ status: "rejected", reason: { code: "worker.crashed" } });
    expect(second).toMatchObject({ status: "rejected", reason: { code: "worker.crashed" } });
    await expect(pool.run({ kind: "square", value: 1 })).rejects.toMatchObject({ code: "worker.crashed" });
    await pool.close();
  });
  test("closing the pool interrupts what runs", async () => {
    const pool = start(1);
    const forever = pool.run({ kind: "forever" });
    const [outcome] = await Promise.allSettled([forever, pool.close()]);
    expect(outcome).toMatchObject({ status: "rejected", reason: { code: "interrupted" } });
  });
});

test.each([-1, 1.5, 1e9])("%f workers are refused", (workers) => {
  expect(() => start(workers)).toThrow("workers must be a whole number from 0 to 256");
});
