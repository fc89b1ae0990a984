/**
 * hadamard: the normalised Walsh–Hadamard transform of each row, in Sylvester order.
 *
 *   out = H x / √size,  H[i, j] = (−1)^popcount(i & j)
 *
 * By butterflies of span 1, 2, 4, ... in f32, (a, b) → (a + b, a − b), and one
 * multiplication by f32(1/√size) at the end: that order is the definition.
 * Applying it twice gives x back up to rounding.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { wasm } from "../generated/hadamard.wasm.ts";
import { threadWorkspace } from "../load-wasm.ts";

/**
 * @param x - rows of `size` values; receives the result.
 * @param size - a power of two that divides `x.length`.
 * @throws {InputError} `input.shape` for another size.
 */
export function hadamard(x: Float32Array, size: number): void {
  checkHadamard(x, size);
  const norm = Math.fround(1 / Math.sqrt(size));
  for (let start = 0; start < x.length; start += size) {
    const row = x.subarray(start, start + size);
    for (let span = 1; span < size; span *= 2) {
      for (let i = 0; i < size; i++) {
        if (i % (2 * span) >= span) continue;
        const [a, b] = [row[i]!, row[i + span]!];
        row[i] = a + b;
        row[i + span] = a - b;
      }
    }
    for (let i = 0; i < size; i++) row[i]! *= norm;
  }
}

function checkHadamard(x: Float32Array, size: number): void {
  if (!Number.isInteger(size) || size < 1 || 2 ** Math.floor(Math.log2(size) + 0.5) !== size || x.length % size !== 0) {
    throw new InputError("input.shape", `hadamard: size (${size}) must be a power of two that divides ${x.length}`, {
      size,
      length: x.length,
    });
  }
}

interface HadamardKernel {
  readonly hadamard: (x: number, rows: number, size: number, norm: number) => void;
}

/** Bytes of rows per trip through the workspace, when one row is not longer. */
const TILE_BYTES = 262144;

/** SIMD twin of `hadamard`, through the workspace of this thread. */
export function hadamardFast(x: Float32Array, size: number): void {
  checkHadamard(x, size);
  const rows = Math.max(1, Math.floor(TILE_BYTES / (4 * size)));
  const workspace = threadWorkspace();
  const mark = workspace.mark();
  const region = workspace.take(4 * size * rows);
  for (let start = 0; start < x.length; start += rows * size) {
    const tile = x.subarray(start, start + rows * size);
    const inside = workspace.f32(region).subarray(0, tile.length);
    inside.set(tile);
    workspace.kernel<HadamardKernel>(wasm).hadamard(region.at, tile.length / size, size, Math.fround(1 / Math.sqrt(size)));
    tile.set(inside);
  }
  workspace.release(mark);
}
