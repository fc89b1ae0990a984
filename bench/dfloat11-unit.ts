/**
 * What a worker of `dfloat11.ts` does: encode a unit that lies in shared memory, decode what came of it, and compare.
 * @module
 */
import { decodeUnitFast } from "../kernels/df11/decode.ts";
import { encodeUnitFast } from "../kernels/df11/encode.ts";
import type { Job } from "../kernels/pool.ts";

/** Weights of a unit, and room for them to be decoded into. */
export interface UnitTask {
  readonly bytes: Uint8Array;
  readonly out: Uint8Array;
}

/** @returns whether the weights came out as they were. */
export const run: Job<UnitTask, boolean> = async ({ bytes, out }, { workspace }) => {
  const encoding = encodeUnitFast([bytes], [], workspace);
  if (!("unit" in encoding)) throw new Error(encoding.refusal.text);
  decodeUnitFast("bench", encoding.unit, out, workspace);
  return Buffer.compare(bytes, out) === 0;
};
