/**
 * `--bits`: names of number formats for weights and activations, as data.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { NumberFormat } from "../core/scheme.ts";

/** What a `--bits` name asks for. `symmetric` of an int format is a default the scheme may change. */
export interface BitsChoice {
  readonly name: string;
  readonly weight: NumberFormat;
  /** Absent: activations stay float. */
  readonly activation?: NumberFormat;
}

/** One family of names: to add a format, add a line to `FAMILIES`. */
interface BitsFamily {
  /** How the names look, for messages. */
  readonly form: string;
  parse(name: string): BitsChoice | undefined;
}

const int = (bits: number): NumberFormat => ({ kind: "int", bits, symmetric: true });
const E4M3_FORMAT: NumberFormat = { kind: "float", format: "e4m3" };

const FAMILIES: readonly BitsFamily[] = [
  {
    form: "w<2-8>a<2-8|16>",
    parse(name) {
      const match = /^w([2-8])a(1?[2-8]|16)$/.exec(name);
      if (match === null) return undefined;
      const activation = Number(match[2]);
      if (activation > 8 && activation !== 16) return undefined;
      return { name, weight: int(Number(match[1])), ...(activation === 16 ? {} : { activation: int(activation) }) };
    },
  },
  { form: "fp8", parse: (name) => (name === "fp8" ? { name, weight: E4M3_FORMAT, activation: E4M3_FORMAT } : undefined) },
];

/** Names worth suggesting; `parseBits` takes every width of the forms. */
export const COMMON_BITS: readonly string[] = ["w8a8", "w8a16", "w4a16", "w4a8", "w6a6", "w4a4", "w3a16", "w2a16", "fp8"];

/** @throws {InputError} `input.option` naming the forms; `details.known` holds common names. */
export function parseBits(name: string): BitsChoice {
  for (const family of FAMILIES) {
    const choice = family.parse(name);
    if (choice !== undefined) return choice;
  }
  throw new InputError(
    "input.option",
    `--bits "${name}" is not known; forms: ${FAMILIES.map(({ form }) => form).join(", ")} (e.g. ${COMMON_BITS.join(", ")})`,
    { option: "bits", given: name, known: COMMON_BITS },
  );
}
