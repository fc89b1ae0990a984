/**
 * Tensors that hold no file open: a Model has no end at which files could be closed,
 * so each read opens its file, checks it and closes it again.
 * @module
 */
import type { LazyTensor } from "../../core/tensor.ts";
import type { Checkpoint } from "../../formats/checkpoint.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";

/** The checkpoint with its files closed and its tensors still readable. */
export async function detachCheckpoint(checkpoint: Checkpoint): Promise<Checkpoint> {
  const tensors = new Map([...checkpoint.tensors].map(([name, tensor]) => [name, detach(tensor)]));
  await checkpoint.close();
  return { ...checkpoint, tensors, close: async () => {} };
}

function detach(tensor: LazyTensor): LazyTensor {
  const { location, dtype, shape, byteLength } = tensor;
  if (location === undefined) return tensor;
  return {
    ...tensor,
    read: async () => ({ dtype, shape, bytes: await readRange(location.path, location.offset, byteLength) }),
  };
}

/** @throws {FormatError} `format.truncated` when the file no longer reaches that far. */
export async function readRange(path: string, offset: number, length: number): Promise<Uint8Array> {
  const source = await openFileSource(path);
  try {
    return await source.read(offset, length);
  } finally {
    await source.close();
  }
}
