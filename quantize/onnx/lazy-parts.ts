/**
 * Tensors that are computed together and read one by one.
 * @module
 */
import type { OnnxDType } from "../../formats/containers/onnx/dtypes.ts";
import { makeLazyOnnxTensor, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";

/** Type and shape of a part. */
export interface PartSpec {
  readonly dtype: OnnxDType;
  readonly shape: readonly number[];
}

/**
 * Tensors whose bytes come out of one computation. It runs when the first part is read; each result is held until it has been
 * read once, so that a writer that reads the parts in turn computes once and holds one weight.
 */
export function makeLazyParts<Name extends string>(
  specs: Readonly<Record<Name, PartSpec>>,
  compute: () => Promise<Readonly<Record<NoInfer<Name>, Uint8Array>>>,
): Readonly<Record<Name, OnnxTensor>> {
  const ready = new Map<Name, Uint8Array>();
  let running: Promise<void> | undefined;
  const take = async (name: Name): Promise<Uint8Array> => {
    for (;;) {
      const bytes = ready.get(name);
      if (bytes !== undefined) {
        ready.delete(name);
        return bytes;
      }
      running ??= compute().then((parts) => {
        for (const part of names) ready.set(part, parts[part]);
        running = undefined;
      });
      await running.catch((error: unknown) => {
        running = undefined;
        throw error;
      });
    }
  };
  const names = Object.keys(specs) as Name[];
  return Object.fromEntries(
    names.map((name) => [name, makeLazyOnnxTensor(specs[name].dtype, specs[name].shape, () => take(name))]),
  ) as Record<Name, OnnxTensor>;
}
