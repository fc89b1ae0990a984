/**
 * The tensors of an artifact beside those of a model it may have been made from.
 * @module
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { throwIfAborted } from "../../core/errors.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import { hashBytes } from "../manifest.ts";
import type { VerifyReport } from "../types.ts";
import { openLosslessSource } from "./source.ts";

/** By component folder: "" or e.g. "transformer/". */
type ByFolder<T> = ReadonlyMap<string, ReadonlyMap<string, T>>;

/**
 * @param stored - sha256 of each decoded tensor, hex.
 * @param source - a path, or tensors of a model with one folder.
 * @throws {InterruptedError}
 */
export async function compareSource(
  stored: ByFolder<string>,
  source: string | { readonly tensors: ReadonlyMap<string, LazyTensor> },
  signal: AbortSignal | undefined,
): Promise<readonly VerifyReport["problems"][number][]> {
  const problems: VerifyReport["problems"][number][] = [];
  const originals: ByFolder<LazyTensor> = typeof source === "string" ? await sourceTensors(source) : new Map([["", source.tensors]]);
  for (const folder of new Set([...originals.keys(), ...stored.keys()])) {
    const own = stored.get(folder) ?? new Map<string, string>();
    const there = originals.get(folder) ?? new Map<string, LazyTensor>();
    for (const [name, tensor] of there) {
      throwIfAborted(signal);
      const hash = own.get(name);
      if (hash === undefined) problems.push({ tensor: folder + name, problem: "of the source is not in the artifact" });
      else if ((await hashOf(tensor)) !== hash) problems.push({ tensor: folder + name, problem: "differs from the source" });
    }
    for (const name of own.keys()) if (!there.has(name)) problems.push({ tensor: folder + name, problem: "is not in the source" });
  }
  return problems;
}

async function sourceTensors(path: string): Promise<ByFolder<LazyTensor>> {
  const { components } = await openLosslessSource(path);
  return new Map(
    components.map(({ prefix, files }) => [
      prefix,
      new Map(files.flatMap(({ tensors }) => tensors.map((tensor) => [tensor.name, tensor] as const))),
    ]),
  );
}

async function hashOf(tensor: LazyTensor): Promise<string> {
  const { location, byteLength } = tensor;
  if (location === undefined || byteLength === 0) return hashBytes(byteLength === 0 ? new Uint8Array(0) : (await tensor.read()).bytes);
  const hash = createHash("sha256");
  const range = { start: location.offset, end: location.offset + byteLength - 1, highWaterMark: 2 ** 20 };
  for await (const chunk of createReadStream(location.path, range)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
