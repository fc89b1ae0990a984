/**
 * Every on-disk format of a module, in the order in which the library infers them.
 *
 * To add one: a file beside this one and a line below.
 * @module
 */
import type { QuantScheme } from "../../../core/scheme.ts";
import { mxfp4PackQuantized, mxfp8Quantized, nvfp4PackQuantized } from "./block-quantized.ts";
import { floatQuantized, intQuantized, naiveQuantized } from "./byte-quantized.ts";
import type { WeightFormat } from "./format.ts";
import { packQuantized } from "./pack-quantized.ts";

export const WEIGHT_FORMATS: readonly WeightFormat[] = [
  mxfp4PackQuantized,
  mxfp8Quantized,
  nvfp4PackQuantized,
  intQuantized,
  packQuantized,
  floatQuantized,
  naiveQuantized,
];

/** The format with a name of config.json. */
export function findFormat(name: string): WeightFormat | undefined {
  return WEIGHT_FORMATS.find((format) => format.name === name);
}

/** The format the library would choose. */
export function inferFormat(weight: QuantScheme, hasInput: boolean): WeightFormat {
  return WEIGHT_FORMATS.find((format) => format.isFor(weight, hasInput))!;
}
