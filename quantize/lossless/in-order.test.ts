import { describe, expect, test } from "vitest";
import { isLarge, runInOrder } from "./in-order.ts";

const after = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

describe("parts of a tensor", () => {
  test.each([1, 2, 3, 20])("%i at a time: each is seen in order with what it gave, and no more are under way", async (ahead) => {
    const parts = Array.from({ length: 17 }, (_, i) => i);
    const seen: number[] = [];
    let [underWay, most] = [0, 0];
    await runInOrder(
      parts,
      ahead,
      4,
      async (part, into) => {
        most = Math.max(most, ++underWay);
        // Later ones end first.
        await after((17 - part) % 5);
        into.fill(part);
        underWay--;
      },
      (part, bytes) => seen.push(part, ...bytes),
    );
    expect(seen).toEqual(parts.flatMap((part) => [part, part, part, part, part]));
    expect(most).toBe(Math.min(ahead, 17));
  });

  test("the first failure is thrown when nothing is under way any more, and no other part is begun", async () => {
    const [begun, ended, taken]: number[][] = [[], [], []];
    const run = runInOrder(
      [0, 1, 2, 3, 4, 5, 6, 7],
      3,
      1,
      async (part) => {
        begun!.push(part);
        await after(part === 1 ? 1 : 10);
        ended!.push(part);
        if (part === 1) throw new Error(`part ${part}`);
      },
      (part) => taken!.push(part),
    );
    await expect(run).rejects.toThrow("part 1");
    expect(taken).toEqual([0]);
    expect(ended!.toSorted((a, b) => a - b)).toEqual(begun);
    expect(begun!.length).toBeLessThan(8);
  });

  test("only a tensor that would keep others waiting is taken apart", () => {
    const mib = 2 ** 20;
    expect(isLarge(1024 * mib, 4096 * mib, 2)).toBe(true);
    expect(isLarge(1024 * mib, 4096 * mib, 1)).toBe(false);
    expect(isLarge(32 * mib, 4096 * mib, 2)).toBe(false);
    expect(isLarge(8 * mib, 8 * mib, 2)).toBe(false);
  });
});
