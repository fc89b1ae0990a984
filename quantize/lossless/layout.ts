/**
 * Output files of a lossless run: which tensor lies in which file, before a byte is written.
 *
 * Directory: one file a unit, named like it, with the other tensors of that
 * block; everything else in the rest file. Single file: everything in one.
 * Source of the naming: DFloat11 0.5.0, `compress_model`.
 * @module
 */
import type { TensorSpec } from "../../formats/containers/container.ts";
import { layoutSafetensors, type SafetensorsLayout } from "../../formats/containers/safetensors/write.ts";
import { SINGLE_FILE } from "../../formats/shards.ts";
import type { FileRange, Place } from "./job.ts";
import type { Component } from "./source.ts";

/** One weight file to write. */
export interface OutputFile {
  /** Relative to the output, with "/". */
  readonly name: string;
  readonly layout: SafetensorsLayout;
}

/** A unit that will be stored compressed. */
export interface HeldUnit {
  readonly name: string;
  readonly stored: readonly TensorSpec[];
}

export interface ComponentLayout {
  readonly files: readonly OutputFile[];
  /** File and offset of every stored tensor. */
  placeOf(tensor: string, directory: string, suffix: string): Place;
  fileOf(tensor: string): string;
}

/**
 * @param plain - tensors stored as they are, in file order.
 * @param isFile - one file for everything.
 */
export function layoutComponent(
  { prefix, restFile }: Component,
  units: readonly HeldUnit[],
  plain: readonly FileRange[],
  isFile: boolean,
): ComponentLayout {
  const files: OutputFile[] = [];
  if (isFile) {
    const specs = [...units.flatMap(({ stored }) => stored), ...plain];
    files.push({ name: SINGLE_FILE, layout: layoutSafetensors(specs) });
  } else {
    const used = new Set([restFile]);
    const taken = new Set<string>();
    // The longest unit name that a tensor lies below owns it.
    const byLength = units.map(({ name }) => name).toSorted((a, b) => b.length - a.length);
    const owners = new Map<string, FileRange[]>();
    for (const tensor of plain) {
      const owner = byLength.find((name) => tensor.name.startsWith(`${name}.`));
      if (owner === undefined) continue;
      owners.set(owner, [...(owners.get(owner) ?? []), tensor]);
      taken.add(tensor.name);
    }
    for (const { name, stored } of units) {
      const base = name.replaceAll(".", "_").replaceAll(/[^\w-]/g, "_");
      let file = `${base}.safetensors`;
      for (let i = 2; used.has(file); i++) file = `${base}_${i}.safetensors`;
      used.add(file);
      files.push({ name: prefix + file, layout: layoutSafetensors([...stored, ...(owners.get(name) ?? [])]) });
    }
    const rest = plain.filter(({ name }) => !taken.has(name));
    files.push({ name: prefix + restFile, layout: layoutSafetensors(rest, { format: "pt" }) });
  }
  const home = new Map(files.flatMap((file) => [...file.layout.offsets.keys()].map((tensor) => [tensor, file] as const)));
  return {
    files,
    placeOf(tensor, directory, suffix) {
      const file = home.get(tensor)!;
      return { path: `${directory}/${file.name}${suffix}`, offset: file.layout.offsets.get(tensor)! };
    },
    fileOf: (tensor) => home.get(tensor)!.name,
  };
}
