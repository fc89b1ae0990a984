/**
 * Reorders the axes of raw tensor bytes.
 * @module
 */

/**
 * @param bytes - row-major elements of `width` bytes in `shape`.
 * @param perm - axis of `shape` that becomes each axis of the result.
 * @returns a fresh array.
 */
export function transposeBytes(bytes: Uint8Array, shape: readonly number[], perm: readonly number[], width: number): Uint8Array {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
  const sizes = perm.map((axis) => shape[axis]!);
  const steps = perm.map((axis) => strides[axis]!);
  const out = new Uint8Array(bytes.byteLength);
  const count = bytes.byteLength / width;
  const [from, to] = [wordsOf(bytes, width), wordsOf(out, width)];
  const place = new Uint32Array(shape.length);
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (from !== undefined && to !== undefined) to[i] = from[at]!;
    else out.set(bytes.subarray(at * width, (at + 1) * width), i * width);
    // The next place, as an odometer counts.
    for (let axis = sizes.length - 1; axis >= 0; axis--) {
      at += steps[axis]!;
      if (++place[axis]! < sizes[axis]!) break;
      at -= steps[axis]! * sizes[axis]!;
      place[axis] = 0;
    }
  }
  return out;
}

/** The bytes as words of the width, where there are such words and they lie at a multiple of it. */
function wordsOf(bytes: Uint8Array, width: number): Uint8Array | Uint16Array | Uint32Array | undefined {
  if (bytes.byteOffset % width !== 0) return undefined;
  const { buffer, byteOffset } = bytes;
  const length = bytes.byteLength / width;
  if (width === 1) return bytes;
  if (width === 2) return new Uint16Array(buffer, byteOffset, length);
  return width === 4 ? new Uint32Array(buffer, byteOffset, length) : undefined;
}
