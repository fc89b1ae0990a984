/**
 * `.npz`: named arrays; rows are samples.
 * @module
 */
import { readNpz, readNpzHeaders } from "../../formats/containers/npz/npz.ts";
import { countRows } from "./rows.ts";
import type { InputItem, SourceContext } from "./source.ts";

/** @throws {FormatError} for a file that is no sound archive of arrays; {InputError} `input.shape` for unequal rows. */
export async function listNpz(path: string, { inputs }: SourceContext): Promise<readonly InputItem[]> {
  const rows = countRows(await readNpzHeaders(path), inputs, path);
  return [{ where: path, rows, read: () => readNpz(path) }];
}
