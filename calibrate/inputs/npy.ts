/**
 * `.npy`: one array, for the model's only input or for the one named before the path (`name=path.npy`).
 * @module
 */
import type { Tensor } from "../../core/tensor.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { parseNpy, parseNpyHeader } from "../../formats/containers/npz/npy.ts";
import { MAX_ENTRY } from "../../formats/containers/npz/zip.ts";
import { FormatError } from "../../core/errors.ts";
import { countRows, onlyInput } from "./rows.ts";
import type { InputItem, SourceContext } from "./source.ts";

/** Bytes that hold every header numpy writes. */
const HEAD = 2 ** 16 + 12;

/** @throws as {@link listNamedNpy}, and {InputError} `input.option` when the model has several inputs. */
export async function listNpy(path: string, context: SourceContext): Promise<readonly InputItem[]> {
  return listNamedNpy([[onlyInput(context.inputs, path, "write name=path.npy for each, or one .npz").name, path]], context);
}

/**
 * Arrays of several files that together are the model's inputs.
 *
 * @throws {FormatError} for a file that is no sound array; {InputError} `input.shape` for unequal rows.
 */
export async function listNamedNpy(
  files: readonly (readonly [name: string, path: string])[],
  { inputs }: SourceContext,
): Promise<readonly InputItem[]> {
  const headers = new Map<string, { readonly shape: readonly number[] }>();
  for (const [name, path] of files) headers.set(name, parseNpyHeader(await readPart(path, HEAD), path));
  const where = files.map(([, path]) => path).join(", ");
  const read = async (): Promise<ReadonlyMap<string, Tensor>> => {
    const arrays = new Map<string, Tensor>();
    for (const [name, path] of files) arrays.set(name, parseNpy(await readPart(path, MAX_ENTRY, true), path));
    return arrays;
  };
  return [{ where, rows: countRows(headers, inputs, where), read }];
}

async function readPart(path: string, most: number, whole = false): Promise<Uint8Array> {
  const source = await openFileSource(path);
  try {
    if (whole && source.size > most) {
      throw new FormatError("format.limit", `${path} has ${source.size} bytes; at most ${most} are read: save several files`, { path });
    }
    return await source.read(0, Math.min(most, source.size));
  } finally {
    await source.close();
  }
}
