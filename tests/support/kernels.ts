/** What kernel tests share: vectors from fixtures/kernels, arrays placed in a workspace, awkward random values. */
import { readFileSync } from "node:fs";
import { encodeBf16, roundBf16 } from "../../core/float.ts";
import { createRandom } from "../../core/random.ts";
import type { Stored } from "../../kernels/runs.ts";
import type { Workspace } from "../../kernels/load-wasm.ts";

/** The named cases of one op; the test names their fields. */
export function readVectors(op: string): readonly unknown[] {
  const { cases } = JSON.parse(readFileSync(`fixtures/kernels/${op}.json`, "utf8")) as { cases: readonly unknown[] };
  return cases;
}

type Bytes = Float32Array | Float64Array | Uint8Array | Uint16Array | Int8Array | Uint32Array;

/** Copies an array into the workspace. @returns its byte offset. */
export function place(workspace: Workspace, data: Bytes): number {
  const region = workspace.take(data.byteLength);
  workspace.bytes(region).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return region.at;
}

/** Values as kernels read them: bf16 patterns (the values must be bf16 already) or f32. */
export function placeValues(workspace: Workspace, stored: Stored, x: Float32Array): number {
  return place(workspace, stored === "bf16" ? Uint16Array.from(x, encodeBf16) : x);
}

/** Bytes of a workspace as a fresh array of `Type`. */
export function take<T>(
  workspace: Workspace,
  at: number,
  length: number,
  Type: { new (buffer: ArrayBuffer): T; readonly BYTES_PER_ELEMENT: number },
): T {
  return new Type(workspace.bytes({ at, byteLength: length * Type.BYTES_PER_ELEMENT }).slice().buffer);
}

/** Finite values of many magnitudes, with ties, zeros of both signs and runs of one value. */
export function awkward(seed: number, length: number, stored: Stored): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => {
    const kind = random.below(10);
    const x =
      kind === 0
        ? random.below(2) === 0
          ? 0
          : -0
        : kind === 1
          ? (random.below(61) - 30) / 4
          : kind === 2
            ? random.normal() * 1e-20
            : random.normal();
    return stored === "bf16" ? roundBf16(x) : x;
  });
}

/** Row and group sizes around the widths of vectors: [rows, cols, group]. */
export const SHAPES: readonly (readonly [number, number, number])[] = [
  [1, 1, 1],
  [3, 7, 7],
  [2, 8, 8],
  [5, 9, 4],
  [2, 31, 16],
  [4, 64, 32],
  [3, 130, 128],
  [2, 256, 128],
  [7, 33, 33],
  [2, 37, 5],
];
