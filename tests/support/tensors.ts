/** Reading goldens, and how far something is from them. */
import { toFloat32, type Tensor } from "../../core/tensor.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import type { HostTensor } from "../../model/engines/engine.ts";

/** Every tensor of a safetensors file. */
export async function readTensors(path: string): Promise<Map<string, Tensor>> {
  const source = await openFileSource(path);
  try {
    const { tensors } = await openSafetensors(source);
    return new Map(await Promise.all([...tensors].map(async ([name, tensor]) => [name, await tensor.read()] as const)));
  } finally {
    await source.close();
  }
}

/** The same as floats. */
export async function readFloats(path: string): Promise<Map<string, Float32Array>> {
  return new Map([...(await readTensors(path))].map(([name, tensor]) => [name, toFloat32(tensor)]));
}

/** Those whose names start with a prefix, without it. */
export function withPrefix(tensors: ReadonlyMap<string, Tensor>, prefix: string): Map<string, Tensor> {
  return new Map([...tensors].flatMap(([name, tensor]) => (name.startsWith(prefix) ? [[name.slice(prefix.length), tensor] as const] : [])));
}

/** Largest difference; infinite where a value is missing or not a number. */
export function farthest(actual: HostTensor | ArrayLike<number | bigint> | undefined, expected: Float32Array): number {
  const values = (actual !== undefined && "data" in actual ? actual.data : actual) ?? [];
  if (values.length !== expected.length) return Infinity;
  return expected.reduce((worst, value, i) => {
    const difference = Math.abs(Number(values[i]) - value);
    return Number.isNaN(difference) ? Infinity : Math.max(worst, difference);
  }, 0);
}
