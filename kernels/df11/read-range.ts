/**
 * What readers of DFloat11 directories decode with.
 * @module
 */
import type { LayoutTools } from "../../formats/layouts/layout.ts";
import { blocksOf, decodeRange } from "./decode.ts";

/** Reads the blocks that hold a range, and decodes them in this thread's workspace. */
export const decodeDfloat11: NonNullable<LayoutTools["decodeDfloat11"]> = async (index, range, read) => {
  if (range.from === range.to) return new Uint8Array(0);
  const { stream, elements } = blocksOf(index, range.from, range.to);
  const bytes = {
    stream: await read("encoded_exponent", stream.from, stream.to),
    signMantissa: await read("sign_mantissa", elements.from, elements.to),
  };
  return decodeRange(index.name, index, range, bytes);
};
