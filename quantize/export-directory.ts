/**
 * The directory an export goes to.
 * @module
 */
import { mkdir, readdir } from "node:fs/promises";
import { InputError } from "../core/errors.ts";

/**
 * Makes the directory where there is none.
 *
 * @param files - names in it that this export writes.
 * @param ignored - a name that counts as nothing.
 * @throws {InputError} `input.output-exists` unless it is empty, or holds only such files and `force` is set.
 */
export async function claimExport(out: string, files: readonly string[], force: boolean, ignored?: string): Promise<void> {
  await mkdir(out, { recursive: true });
  const names = (await readdir(out)).filter((name) => name !== ignored);
  const foreign = names.filter((name) => !files.includes(name));
  if (names.length === 0 || (force && foreign.length === 0)) return;
  throw new InputError(
    "input.output-exists",
    foreign.length > 0
      ? `${out} holds other files (${foreign.slice(0, 3).join(", ")}); choose an empty directory`
      : `${out} holds an earlier export; pass --force to replace it`,
    { directory: out },
  );
}
