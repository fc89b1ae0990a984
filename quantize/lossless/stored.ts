/**
 * The artifact's side: where the stored tensors of each component lie, checked against the manifest.
 * @module
 */
import { join } from "node:path";
import { FormatError } from "../../core/errors.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import type { FileRange, LosslessTask, Place } from "./job.ts";
import type { ComponentRecord, LosslessRecord } from "./manifest.ts";

/** Stored tensors of a component by name. */
export type StoredComponent = ReadonlyMap<string, FileRange>;

/** @throws {FormatError} `format.missing` / `format.duplicate`, and what the reader throws for damaged headers. */
export async function openStored(
  directory: string,
  { prefix }: ComponentRecord,
  { shards, components }: LosslessRecord,
): Promise<StoredComponent> {
  const longer = components.map((component) => component.prefix).filter((other) => other !== prefix && other.startsWith(prefix));
  const stored = new Map<string, FileRange>();
  for (const name of Object.keys(shards)) {
    if (!name.startsWith(prefix) || longer.some((other) => name.startsWith(other))) continue;
    const path = join(directory, name);
    const source = await openFileSource(path);
    try {
      for (const { name: tensor, dtype, shape, byteLength, location } of (await openSafetensors(source)).tensors.values()) {
        if (stored.has(tensor))
          throw new FormatError("format.duplicate", `${directory}: tensor ${tensor} is in two files, one is ${name}`, { tensor });
        stored.set(tensor, { name: tensor, dtype, shape, byteLength, ...location! });
      }
    } finally {
      await source.close();
    }
  }
  return stored;
}

/** Work that decodes or copies every tensor of a component. */
export interface DecodeWork {
  readonly task: LosslessTask;
  readonly bytes: number;
  /** For messages: the unit, or the first tensor. */
  readonly name: string;
  readonly tensors: readonly string[];
}

const COPY_GROUP_BYTES = 2 ** 26;

/**
 * @param to - where a tensor's decoded bytes go; nowhere, they are only checked.
 * @throws {FormatError} `format.missing` naming a tensor that is not stored; `format.field` for one of another dtype or shape.
 */
export function decodeWork(
  component: ComponentRecord,
  stored: StoredComponent,
  to: (tensor: string) => Place | undefined,
): readonly DecodeWork[] {
  const { units, tensors, codec } = component;
  const inside = new Set(units.flatMap((unit) => unit.tensors));
  const member = (name: string): Extract<LosslessTask, { kind: "decode" }>["members"][number] => {
    const { dtype, shape, sha256 } = tensors[name]!;
    const place = to(name);
    return { spec: { name, dtype, shape }, sha256, ...(place && { to: place }) };
  };
  const work = units.map((unit): DecodeWork => {
    const parts = [...stored.values()].filter(({ name }) => name.startsWith(`${unit.name}.`) && !Object.hasOwn(tensors, name));
    const bytes = parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
    return {
      task: { kind: "decode", codec, name: unit.name, stored: parts, members: unit.tensors.map(member) },
      bytes,
      name: unit.name,
      tensors: unit.tensors,
    };
  });
  let copies: { readonly from: FileRange; readonly to?: Place; readonly sha256: string }[] = [];
  let bytes = 0;
  const flush = (): void => {
    if (copies.length === 0) return;
    work.push({ task: { kind: "copy", copies }, bytes, name: copies[0]!.from.name, tensors: copies.map(({ from }) => from.name) });
    [copies, bytes] = [[], 0];
  };
  for (const [name, { dtype, shape, sha256 }] of Object.entries(tensors)) {
    if (inside.has(name)) continue;
    const from = stored.get(name);
    if (from === undefined)
      throw new FormatError("format.missing", `tensor ${component.prefix}${name} is not in the artifact`, { tensor: name });
    if (from.dtype !== dtype || from.shape.join() !== shape.join()) {
      throw new FormatError(
        "format.field",
        `tensor ${component.prefix}${name} is ${from.dtype} [${from.shape.join(", ")}], the manifest says ${dtype} [${shape.join(", ")}]`,
        { tensor: name },
      );
    }
    const place = to(name);
    copies.push({ from, sha256, ...(place && { to: place }) });
    bytes += from.byteLength;
    if (bytes >= COPY_GROUP_BYTES) flush();
  }
  flush();
  return work.toSorted((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1));
}
