/**
 * The tensors of a compact directory, decoded when they are read.
 * @module
 */
import { dirname, join } from "node:path";
import { FormatError } from "../../../core/errors.ts";
import type { LazyTensor } from "../../../core/tensor.ts";
import { readConfig } from "../../../formats/checkpoint.ts";
import { openCompactFile } from "../../../formats/containers/compact/open.ts";
import { threadCompactCoder } from "../../../kernels/compact/thread-coder.ts";
import type { CompactRecord } from "./record.ts";

/** @throws {FormatError} `format.duplicate`, and what the reader throws. */
export async function openCompactArtifact(
  directory: string,
  { weights }: CompactRecord,
): Promise<{
  readonly tensors: ReadonlyMap<string, LazyTensor>;
  readonly configs: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
}> {
  const tensors = new Map<string, LazyTensor>();
  const configs = new Map<string, Readonly<Record<string, unknown>>>();
  for (const name of weights) {
    const prefix = name.includes("/") ? `${dirname(name)}/` : "";
    if (!configs.has(prefix)) configs.set(prefix, (await readConfig(join(directory, prefix))) ?? {});
    for (const tensor of (await openCompactFile(join(directory, name), threadCompactCoder())).tensors.values()) {
      const key = prefix + tensor.name;
      if (tensors.has(key)) throw new FormatError("format.duplicate", `tensor ${key} is in two files, one is ${name}`, { tensor: key });
      tensors.set(key, { ...tensor, name: key });
    }
  }
  return { tensors, configs };
}
