import { expect, test } from "vitest";
import { chooseProtected, type MeasuredSites } from "./protect.ts";

const entry = (error: number, ...sites: string[]): MeasuredSites => ({ sites, error });
const calm = Array.from({ length: 9 }, (_, i) => entry(1, `calm${i}`));

test("the worst by error a site are taken, at most a tenth of all sites", () => {
  const chosen = chooseProtected([...calm, entry(100, "a"), entry(50, "b"), entry(60, "c")], 20);
  expect([...chosen.keys()]).toEqual(["a", "c"]);
});

test("sites that share an input are protected together or not at all", () => {
  const chosen = chooseProtected([...calm, entry(300, "q", "k", "v"), entry(50, "b")], 20);
  expect([...chosen.keys()]).toEqual(["b"]);
  expect([...chooseProtected([...calm, entry(300, "q", "k", "v"), entry(50, "b")], 30).keys()]).toEqual(["q", "k", "v"]);
});

test("a model without outstanding sites has none protected", () => {
  expect(chooseProtected([...calm, entry(1.9, "a")], 100).size).toBe(0);
});

test("each reason says how far the error moves the model", () => {
  expect(chooseProtected([...calm, entry(4, "a")], 10).get("a")).toMatch(/weight-only.*200 %.*4.00 times/);
});
