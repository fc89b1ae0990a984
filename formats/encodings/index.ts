/**
 * Every encoding, by name. To add one: a file beside this one and a line below.
 * @module
 */
import { blockEncodings } from "./blocks.ts";
import { fp8E4M3, int8 } from "./bytes.ts";
import type { CodeEncoding } from "./encoding.ts";
import { intPacked } from "./int-packed.ts";

export const encodings: ReadonlyMap<string, CodeEncoding> = new Map(
  [int8, fp8E4M3, ...[1, 2, 3, 4, 5, 6, 7, 8].map(intPacked), ...blockEncodings].map((encoding) => [encoding.name, encoding]),
);
