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
export function makeLazyParts<Specs extends Readonly<Record<string, PartSpec>> | Readonly<Partial<Record<string, PartSpec>>>>(
  specs: Specs,
  compute: () => Promise<Readonly<Record<keyof Specs, Uint8Array>>>,
): { readonly [Part in keyof Specs]: OnnxTensor } {
  type Name = keyof Specs & string;
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
    names.map((name) => {
      const { dtype, shape } = specs[name]!;
      return [name, makeLazyOnnxTensor(dtype, shape, () => take(name))];
    }),
  ) as { readonly [Part in keyof Specs]: OnnxTensor };
}
