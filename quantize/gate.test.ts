import { expect, test } from "vitest";
import { checkGate, parseGate } from "./gate.ts";

test("keys and numbers are read, others refused", () => {
  expect(parseGate({ perplexity: "1.01", sqnr: "30" })).toEqual({ perplexity: 1.01, sqnr: 30 });
  expect(() => parseGate({ perplexty: "1" })).toThrow(/perplexity, kl, sqnr/);
  expect(() => parseGate({ kl: "" })).toThrow(/not a number/);
});

test("perplexity and KL have ceilings, SQNR a floor; a figure on the limit holds", () => {
  expect(() => checkGate({ perplexity: 1.01, kl: 0.01, sqnr: 30 }, { perplexity: 1.01, kl: 0.01, sqnr: 30 })).not.toThrow();
  expect(() => checkGate({ perplexity: 1.01 }, { perplexity: 1.0101 })).toThrow(expect.objectContaining({ code: "verify.gate" }));
  expect(() => checkGate({ sqnr: 30 }, { sqnr: 29.9 })).toThrow(/sqnr 29.900 dB, wanted at least 30/);
});

test("every missed figure is named", () => {
  expect(() => checkGate({ perplexity: 1, kl: 0.1 }, { perplexity: 2, kl: 1 })).toThrow(/perplexity.*; kl/);
});

test("a gate on what was not measured is refused", () => {
  expect(() => checkGate({ kl: 1 }, { sqnr: 30 })).toThrow(expect.objectContaining({ code: "input.option" }));
});
