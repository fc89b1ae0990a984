/**
 * Every export, by name. To add one: a file beside this one and one line below.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { bitwright } from "./bitwright.ts";
import { compressedTensors } from "./compressed-tensors.ts";
import type { Export } from "./export.ts";

export const EXPORTS: Readonly<Record<"compressed-tensors" | "bitwright", Export>> = {
  "compressed-tensors": compressedTensors,
  bitwright,
};

/** @throws {InputError} `input.option` for an unknown name; `details.known` lists all. */
export function findExport(name: string): Export {
  const found = new Map<string, Export>(Object.entries(EXPORTS)).get(name);
  if (found !== undefined) return found;
  const known = Object.keys(EXPORTS);
  throw new InputError("input.option", `--to "${name}" is not known; targets: ${known.join(", ")}`, { option: "to", given: name, known });
}
