/**
 * `--bits`: names of number formats for weights and activations, as data.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { blockScheme, parseBlockFormat, type BlockFormat } from "../core/blocks/format.ts";
import type { NumberFormat } from "../core/scheme.ts";

/** What a `--bits` name asks for. `symmetric` of an int format is a default the scheme may change. */
export interface BitsChoice {
  readonly name: string;
  readonly weight: NumberFormat;
  /** Absent: activations stay float. */
  readonly activation?: NumberFormat;
  /** Blocks that share a scale (BFP, MX, NVFP4), for weights and, unless the name ends in a16, activations. */
  readonly block?: BlockFormat;
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
  { form: "bfp<10-24>, mxint8, mxfp8, mxfp6, mxfp4, nvfp4, each also with a16 behind", parse: parseBlockBits },
  { form: "fp8", parse: (name) => (name === "fp8" ? { name, weight: E4M3_FORMAT, activation: E4M3_FORMAT } : undefined) },
];

/** "bfp12" quantizes weights and activations, "bfp12a16" weights alone. @throws {InputError} for mantissas out of range. */
function parseBlockBits(name: string): BitsChoice | undefined {
  const [, base = name, weightOnly] = /^(.+?)(a16)?$/.exec(name) ?? [];
  const block = parseBlockFormat(base);
  if (block === undefined) return undefined;
  const { format } = blockScheme(block);
  return { name, weight: format, block, ...(weightOnly === undefined ? { activation: format } : {}) };
}

/** Names worth suggesting; `parseBits` takes every width of the forms. */
export const COMMON_BITS: readonly string[] = [
  "w8a8",
  "w8a16",
  "w4a16",
  "w4a8",
  "w6a6",
  "w4a4",
  "w3a16",
  "w2a16",
  "fp8",
  "bfp12",
  "bfp16",
  "mxint8",
  "mxfp8",
  "mxfp6",
  "mxfp4",
  "nvfp4",
  "bfp12a16",
  "mxfp4a16",
  "nvfp4a16",
];

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
