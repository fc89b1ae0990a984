import type { InferenceSession } from "onnxruntime-common";
import { expect, test } from "vitest";
import { GraphBuilder } from "../../graph/builder.ts";
import { SessionCache } from "./sessions.ts";

/** A runtime that counts: `made` models created, `released` sessions let go. */
function counting() {
  const counts = { made: 0, released: 0 };
  const cache = new SessionCache(async () => {
    counts.made++;
    return { release: async () => void counts.released++ } as InferenceSession;
  });
  return { counts, cache };
}

function graph(name: string, op = "Relu") {
  const builder = new GraphBuilder(name);
  builder.input("x", "F32", ["n"]);
  builder.op(op, ["x"], {}, "y");
  return builder.build(["y"]);
}

test("equal graphs share a session, whatever their names; other nodes or outputs do not", async () => {
  const { counts, cache } = counting();
  const [a, b] = [await cache.acquire(graph("layer 0"), ["y"]), await cache.acquire(graph("layer 1"), ["y"])];
  expect(b.session).toBe(a.session);
  await cache.acquire(graph("layer 2", "Tanh"), ["y"]);
  await cache.acquire(graph("layer 3"), ["x"]);
  expect(counts.made).toBe(3);
});

test("a session outlives its leases while it is among the last used, and none outlives close", async () => {
  const { counts, cache } = counting();
  const first = await cache.acquire(graph("g"), ["y"]);
  await first.release();
  await first.release();
  await (await cache.acquire(graph("g"), ["y"])).release();
  expect(counts).toEqual({ made: 1, released: 0 });
  for (let i = 0; i < 12; i++) await (await cache.acquire(graph("g", `Op${i}`), ["y"])).release();
  expect(counts).toEqual({ made: 13, released: 5 });
  await cache.close();
  expect(counts.released).toBe(13);
});

test("a session in use is never let go by others", async () => {
  const { counts, cache } = counting();
  await cache.acquire(graph("g", "Held"), ["y"]);
  for (let i = 0; i < 12; i++) await (await cache.acquire(graph("g", `Op${i}`), ["y"])).release();
  expect(counts.released).toBe(4);
});

test("a model that fails to load is tried again", async () => {
  let tries = 0;
  const cache = new SessionCache(async () => {
    tries++;
    throw new Error("no");
  });
  await expect(cache.acquire(graph("g"), ["y"])).rejects.toThrow("no");
  await expect(cache.acquire(graph("g"), ["y"])).rejects.toThrow("no");
  expect(tries).toBe(2);
});
