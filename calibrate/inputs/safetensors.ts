/**
 * `.safetensors`: named tensors; rows are samples.
 * @module
 */
import type { Tensor } from "../../core/tensor.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { countRows } from "./rows.ts";
import type { InputItem, SourceContext } from "./source.ts";

/** @throws what the safetensors reader throws; {InputError} `input.shape` for unequal rows. */
export async function listSafetensors(path: string, { inputs }: SourceContext): Promise<readonly InputItem[]> {
  const rows = await withFile(path, async ({ tensors }) => countRows(tensors, inputs, path));
  const read = (): Promise<ReadonlyMap<string, Tensor>> =>
    withFile(path, async ({ tensors }) => {
      const arrays = new Map<string, Tensor>();
      for (const [name, tensor] of tensors) arrays.set(name, await tensor.read());
      return arrays;
    });
  return [{ where: path, rows, read }];
}

async function withFile<T>(path: string, use: (file: Awaited<ReturnType<typeof openSafetensors>>) => Promise<T>): Promise<T> {
  const source = await openFileSource(path);
  try {
    return await use(await openSafetensors(source));
  } finally {
    await source.close();
  }
}
