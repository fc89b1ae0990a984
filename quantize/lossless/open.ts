/**
 * openDFloat11: the tensors of a DFloat11 or compact directory, decoded when they are read.
 * @module
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, InputError } from "../../core/errors.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import { readConfig } from "../../formats/checkpoint.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { readPatternDict } from "../../formats/layouts/dfloat11/config.ts";
import { readDfloat11 } from "../../formats/layouts/dfloat11/dfloat11.ts";
import { readDirectoryRecord } from "../../formats/layouts/dfloat11/record.ts";
import { decodeDfloat11 } from "../../kernels/df11/read-range.ts";
import { readRange } from "../../model/sources/detached.ts";
import { openCompactArtifact } from "./compact/open.ts";
import { readCompactRecord } from "./compact/record.ts";

export interface DFloat11Artifact {
  readonly directory: string;
  /**
   * By name; tensors of a diffusers component have its folder in front ("transformer/proj_out.weight"). A tensor is decoded when it is
   * read and compared with its checksum when the artifact has one. Members of units in official artifacts, which store no shapes, are `shapeless`.
   */
  readonly tensors: ReadonlyMap<string, LazyTensor>;
  /** config.json of each folder, without `dfloat11_config`; "" is the directory itself. */
  readonly configs: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
}

/**
 * Open an artifact of this tool (of either codec) or of the official package: a directory, or a diffusers directory with components in sub-folders. No file stays open.
 *
 * @throws {InputError} `input.path`; {FormatError} `format.missing` when nothing there is DFloat11, and what the readers throw. Reading a tensor
 *   throws {FormatError} `format.checksum` or `format.field` naming the unit when it is damaged.
 */
export async function openDFloat11(directory: string): Promise<DFloat11Artifact> {
  const facts = await stat(directory).catch((cause: unknown) => {
    throw new InputError("input.path", `${directory}: no such directory`, { path: directory }, { cause });
  });
  if (!facts.isDirectory())
    throw new InputError("input.path", `${directory} is a file; pass the artifact's directory`, { path: directory });
  const compact = await readCompactRecord(directory);
  if (compact !== undefined) return { directory, ...(await openCompactArtifact(directory, compact)) };
  const tensors = new Map<string, LazyTensor>();
  const configs = new Map<string, Readonly<Record<string, unknown>>>();
  let found = 0;
  for (const prefix of ["", ...(await subfolders(directory))]) {
    const files = (await readdir(join(directory, prefix)))
      .filter((name) => name.endsWith(".safetensors") && !name.startsWith("."))
      .toSorted();
    if (files.length === 0) continue;
    const { dfloat11_config: declared, ...config } = (await readConfig(join(directory, prefix))) ?? {};
    if (declared !== undefined) found++;
    configs.set(prefix, config);
    const stored = new Map<string, LazyTensor>();
    for (const file of files) await addFile(join(directory, prefix, file), stored);
    const record = (await readDirectoryRecord(directory, prefix)) ?? (await readDirectoryRecord(join(directory, prefix)));
    const read = await readDfloat11(stored, record, readPatternDict({ dfloat11_config: declared }), { decodeDfloat11 });
    for (const [name, tensor] of read) tensors.set(prefix + name, prefix === "" ? tensor : { ...tensor, name: prefix + name });
  }
  if (found === 0)
    throw new FormatError("format.missing", `${directory} is not a DFloat11 artifact: no config.json in it has dfloat11_config`, {
      directory,
    });
  return { directory, tensors, configs };
}

async function subfolders(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  return entries
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith("."))
    .map(({ name }) => `${name}/`)
    .toSorted();
}

async function addFile(path: string, into: Map<string, LazyTensor>): Promise<void> {
  const source = await openFileSource(path);
  try {
    for (const [name, tensor] of (await openSafetensors(source)).tensors) {
      if (into.has(name)) throw new FormatError("format.duplicate", `tensor ${name} is in two files, one is ${path}`, { tensor: name });
      const { dtype, shape, byteLength, location } = tensor;
      into.set(name, {
        ...tensor,
        read: async () => ({ dtype, shape, bytes: await readRange(location!.path, location!.offset, byteLength) }),
      });
    }
  } finally {
    await source.close();
  }
}
