/**
 * `--cast bf16`: wider floats rounded to bf16 while they are read. The one step of a lossless run that loses something.
 * @module
 */
import { DTYPES, type DType } from "../../core/dtype.ts";
import { decodeFloat, F16 } from "../../core/float.ts";
import { UnsupportedError } from "../../core/errors.ts";

/** Dtypes that `--cast bf16` takes. */
export const CASTABLE: ReadonlySet<DType> = new Set<DType>(["F32", "F16"]);

/**
 * Reads bytes [offset, offset + out.length) of the bf16 form of a tensor.
 *
 * @param read - bytes of the stored tensor from an offset on.
 */
export async function readCast(
  from: DType,
  offset: number,
  out: Uint8Array,
  read: (offset: number, bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  if (!CASTABLE.has(from))
    throw new UnsupportedError("unsupported.dtype", `${from} is not rounded to bf16; F32 and F16 are`, { dtype: from });
  const width = DTYPES[from].bits / 8;
  const count = out.length / 2;
  const words = new Uint32Array(count);
  if (from === "F32") await read((offset / 2) * width, new Uint8Array(words.buffer));
  else {
    const halves = new Uint16Array(count);
    await read((offset / 2) * width, new Uint8Array(halves.buffer));
    const floats = new Float32Array(words.buffer);
    for (let i = 0; i < count; i++) floats[i] = decodeFloat(F16, halves[i]!);
  }
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  for (let i = 0; i < count; i++) {
    const word = words[i]!;
    const isNaN = (word & 0x7fffffff) > 0x7f800000;
    // Nearest, ties to even; a NaN keeps its upper bits and becomes quiet.
    view.setUint16(2 * i, isNaN ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16, true);
  }
}
