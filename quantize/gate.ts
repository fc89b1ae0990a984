/**
 * Quality gates: `--gate perplexity=1.01,sqnr=30`.
 * @module
 */
import { InputError, VerifyError, type ErrorDetails } from "../core/errors.ts";
import type { Gate } from "./types.ts";

/** What each gate key compares, and in which direction. */
const GATES = {
  perplexity: { atMost: true, unit: "times the source's" },
  kl: { atMost: true, unit: "nats" },
  sqnr: { atMost: false, unit: "dB" },
  cosine: { atMost: false, unit: "to the source's outputs" },
} as const;

/** @throws {InputError} `input.option` for an unknown key or a value that is not a number. */
export function parseGate(pairs: Readonly<Record<string, string>>): Gate {
  const gate = new Map<string, number>();
  for (const [key, text] of Object.entries(pairs)) {
    const value = text.trim() === "" ? NaN : Number(text);
    if (!Object.hasOwn(GATES, key)) {
      const known = Object.keys(GATES);
      throw new InputError("input.option", `--gate has no key "${key}"; keys: ${known.join(", ")}`, { option: "gate", given: key, known });
    }
    if (!Number.isFinite(value))
      throw new InputError("input.option", `--gate ${key}=${text} is not a number`, { option: "gate", given: text });
    gate.set(key, value);
  }
  return Object.fromEntries(gate);
}

/**
 * Compare measured figures with the gate.
 *
 * @param details - added to those of the error.
 * @throws {VerifyError} `verify.gate` naming every figure that misses, and `input.option` when one was not measured.
 */
export function checkGate(gate: Gate, measured: Gate, details: ErrorDetails = {}): void {
  const missed = Object.entries(GATES).flatMap(([key, { atMost, unit }]) => {
    const limit = gate[key as keyof Gate];
    const value = measured[key as keyof Gate];
    if (limit === undefined) return [];
    if (value === undefined)
      throw new InputError(
        "input.option",
        `--gate ${key}=${limit} needs data to measure it on: add ${key === "cosine" ? "--data <inputs.npz> (.onnx sources)" : "--eval <file>"}`,
        { gate: key },
      );
    const holds = atMost ? value <= limit : value >= limit;
    return holds ? [] : [`${key} ${value.toPrecision(5)} ${unit}, wanted ${atMost ? "at most" : "at least"} ${limit}`];
  });
  if (missed.length > 0) throw new VerifyError("verify.gate", `quality gate missed: ${missed.join("; ")}`, { ...details, gate, measured });
}
