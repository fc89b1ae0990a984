/**
 * The write phase of a lossless run: units and copies stream into partial files, small files follow, then all become the artifact.
 * @module
 */
import { mkdir, open, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { replaceFile, writeFileAtomic, writeFully } from "../../formats/containers/atomic.ts";
import { layoutSafetensors } from "../../formats/containers/safetensors/write.ts";
import { dfloat11Config } from "../../formats/layouts/dfloat11/config.ts";
import { byteLength } from "../../core/dtype.ts";
import { InputError } from "../../core/errors.ts";
import { version } from "../../core/version.ts";
import { CommitQueue } from "../commit.ts";
import { hashBytes, MANIFEST_FILE } from "../manifest.ts";
import { PARTIAL, publish, type ClaimedOutput } from "../output-directory.ts";
import type { Plan, QuantizeOptions } from "../types.ts";
import { emitKernels, smallestUnit, testMember } from "./emit.ts";
import type { LosslessTask } from "./job.ts";
import { pack, type ComponentRecord, type LosslessManifest } from "./manifest.ts";
import type { LosslessPool, PreparedComponent, PreparedLossless } from "./prepare.ts";

/** Plain tensors copied by one task, about this many bytes. */
const COPY_GROUP_BYTES = 2 ** 26;

interface NamedTask {
  /** Unique in the run; what the journal remembers. */
  readonly name: string;
  readonly prefix: string;
  readonly task: LosslessTask;
  readonly bytes: number;
  readonly files: readonly string[];
}

export interface WrittenLossless {
  readonly files: readonly string[];
  readonly bytes: number;
}

/** @throws {InterruptedError} after finished units were recorded; {VerifyError} for a unit that does not decode to its source. */
export async function writeLossless(
  prepared: PreparedLossless,
  plan: Plan,
  output: ClaimedOutput,
  options: QuantizeOptions,
  pool: LosslessPool,
): Promise<WrittenLossless> {
  const { directory, journal } = output;
  const tasks = prepared.components.flatMap((component) => tasksOf(prepared, component, directory));
  const hashes = new Map<string, Readonly<Record<string, string>>>();
  for (const { name } of tasks) {
    const record = journal.finished.get(name);
    if (record !== undefined) hashes.set(name, record["hashes"] as Readonly<Record<string, string>>);
  }
  const rest = tasks.filter(({ name }) => !hashes.has(name));
  await preparePartials(prepared, directory, new Set(rest.flatMap(({ files }) => files)));
  await runAll(tasks, rest, hashes, journal, options, pool);
  const files = await writeSmallFiles(prepared, plan, tasks, hashes, directory, options);
  await publish(directory, files);
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(directory, name))).size));
  return { files, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}

function tasksOf(
  { codec }: PreparedLossless,
  { component, units, plain, layout }: PreparedComponent,
  directory: string,
): readonly NamedTask[] {
  const { prefix } = component;
  const tasks = units.flatMap(({ ref, survey, elements }): NamedTask[] => {
    if ("refusal" in survey) return [];
    const places = new Map(survey.stored.map(({ name }) => [name, layout.placeOf(name, directory, PARTIAL)]));
    const files = [...new Set([...places.values()].map(({ path }) => path))];
    return [
      {
        name: `unit ${prefix}${ref.name}`,
        prefix,
        task: { kind: "encode", codec: codec.name, unit: ref, survey, places },
        bytes: 2 * elements,
        files,
      },
    ];
  });
  let group: { copies: Extract<LosslessTask, { kind: "copy" }>["copies"][number][]; bytes: number } = { copies: [], bytes: 0 };
  const flush = (): void => {
    if (group.copies.length === 0) return;
    const { copies, bytes } = group;
    const files = [...new Set(copies.map(({ to }) => to!.path))];
    tasks.push({ name: `copy ${prefix}${copies[0]!.from.name}`, prefix, task: { kind: "copy", copies }, bytes, files });
    group = { copies: [], bytes: 0 };
  };
  for (const from of plain) {
    group.copies.push({ from, to: layout.placeOf(from.name, directory, PARTIAL) });
    group.bytes += from.byteLength;
    if (group.bytes >= COPY_GROUP_BYTES) flush();
  }
  flush();
  return tasks;
}

/** Partial files at full length with their headers; those an earlier process made stay. */
async function preparePartials({ components }: PreparedLossless, directory: string, needed: ReadonlySet<string>): Promise<void> {
  for (const { name, layout } of components.flatMap((component) => component.layout.files)) {
    const path = join(directory, name + PARTIAL);
    const size = await sizeOf(path);
    if (size === layout.fileBytes) continue;
    // Renamed by a process that was killed after it had begun to publish.
    if (size === undefined && !needed.has(`${directory}/${name}${PARTIAL}`) && (await sizeOf(join(directory, name))) === layout.fileBytes)
      continue;
    await mkdir(dirname(path), { recursive: true });
    const handle = await open(path, "w");
    try {
      await writeFully(handle, layout.header);
      await handle.truncate(layout.fileBytes);
    } finally {
      await handle.close();
    }
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    ({ size }) => size,
    () => undefined,
  );
}

async function runAll(
  all: readonly NamedTask[],
  rest: readonly NamedTask[],
  hashes: Map<string, Readonly<Record<string, string>>>,
  journal: ClaimedOutput["journal"],
  { signal, onProgress }: QuantizeOptions,
  pool: LosslessPool,
): Promise<void> {
  const queue = new CommitQueue(journal);
  const total = all.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = total - rest.reduce((sum, { bytes }) => sum + bytes, 0);
  // Large ones first, so that the workers end within one unit of each other.
  const order = rest.toSorted((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1));
  try {
    await pool.map(
      order.map(({ task }) => task),
      {
        ...(signal && { signal }),
        onProgress: (bytes) => onProgress?.({ phase: "quantize", done: Math.min(total, (done += bytes)), total, unit: "bytes" }),
        onResult(result, position) {
          const { name, bytes, files } = order[position]!;
          hashes.set(name, result.hashes!);
          queue.add({ task: name, record: { hashes: result.hashes! }, bytes, files });
        },
      },
    );
    // Whatever ended the loop, what is finished is recorded, so that the next process need not do it again.
  } finally {
    try {
      await queue.flush();
    } finally {
      await queue.close();
    }
  }
}

/** Everything but the weights, each under its partial name. @returns all files in the order in which they appear. */
async function writeSmallFiles(
  prepared: PreparedLossless,
  plan: Plan,
  tasks: readonly NamedTask[],
  hashes: ReadonlyMap<string, Readonly<Record<string, string>>>,
  directory: string,
  { recipe }: QuantizeOptions,
): Promise<readonly string[]> {
  const { source, components } = prepared;
  const files = new Map<string, { bytes: number; sha256: string }>();
  const originals = new Map<string, string>();
  const add = async (name: string, content: Uint8Array): Promise<void> => {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await replaceFile(join(directory, name + PARTIAL), (handle) => writeFully(handle, content));
    files.set(name, { bytes: content.byteLength, sha256: hashBytes(content) });
  };
  const configs = new Set(components.map(({ component }) => `${component.prefix}config.json`));
  for (const name of source.others) {
    const content = await readFile(join(source.root, name));
    // The index names files that the artifact does not have; a manifest of an earlier run is not ours.
    if (configs.has(name) || name.endsWith(".safetensors.index.json") || name === MANIFEST_FILE) originals.set(name, pack(content));
    else await add(name, content);
  }
  for (const { component, units } of components) {
    if (units.length === 0) {
      const kept = originals.get(`${component.prefix}config.json`);
      if (kept === undefined) continue;
    }
    const held = units.filter(({ survey }) => !("refusal" in survey));
    const dfloat11 = units.length === 0 || prepared.codec.name !== "df11" ? {} : { dfloat11_config: dfloat11Config(held) };
    await add(`${component.prefix}config.json`, jsonBytes({ ...component.config, ...dfloat11 }));
  }
  const shards = components.flatMap(({ layout }) => layout.files);
  const emitted = recipe.kernels === undefined ? [] : [...(await kernelFiles(recipe.kernels, components, tasks, hashes, directory))];
  for (const [name, content] of emitted) await add(name, content);
  const manifest: LosslessManifest = {
    tool: "bitwright",
    version: version(),
    format: recipe.method[0]!,
    plan,
    sites: [],
    pairs: [],
    factors: {},
    folds: {},
    replaced: [],
    tensors: {},
    files: Object.fromEntries([...files].toSorted(([a], [b]) => (a < b ? -1 : 1))),
    lossless: {
      version: 1,
      components: components.map((component) => recordOf(prepared, component, tasks, hashes)),
      shards: Object.fromEntries(shards.map(({ name, layout }) => [name, layout.fileBytes])),
      originals: Object.fromEntries(originals),
      emitted: emitted.map(([name]) => name),
      ...(recipe.cast !== undefined && { cast: recipe.cast }),
    },
  };
  await writeFileAtomic(join(directory, MANIFEST_FILE + PARTIAL), jsonBytes(manifest));
  const small = [...files.keys()].filter((name) => name !== "config.json");
  return [...shards.map(({ name }) => name), ...small, ...(files.has("config.json") ? ["config.json"] : []), MANIFEST_FILE];
}

function recordOf(
  { codec }: PreparedLossless,
  { component, units, tensors }: PreparedComponent,
  tasks: readonly NamedTask[],
  hashes: ReadonlyMap<string, Readonly<Record<string, string>>>,
): ComponentRecord {
  const found = new Map(tasks.filter(({ prefix }) => prefix === component.prefix).flatMap(({ name }) => Object.entries(hashes.get(name)!)));
  return {
    prefix: component.prefix,
    codec: codec.name,
    units: units.flatMap(({ ref, survey }) =>
      "refusal" in survey ? [] : [{ name: ref.name, tensors: ref.tensors.map(({ name }) => name) }],
    ),
    tensors: Object.fromEntries([...tensors.values()].map(({ name, dtype, shape }) => [name, { dtype, shape, sha256: found.get(name)! }])),
    sources: component.files.map((file) => {
      const ranges = file.tensors.map(({ name }) => tensors.get(name)!);
      if (ranges.every(({ castFrom }) => castFrom === undefined)) return { name: file.name, bytes: file.bytes, header: pack(file.header) };
      // The source as it is after rounding: what restore can give back.
      const layout = layoutSafetensors(ranges, { format: "pt" });
      return { name: file.name, bytes: layout.fileBytes, header: pack(layout.header) };
    }),
  };
}

/** Decoders and the facts of their self-test. */
async function kernelFiles(
  names: readonly string[],
  components: readonly PreparedComponent[],
  tasks: readonly NamedTask[],
  hashes: ReadonlyMap<string, Readonly<Record<string, string>>>,
  directory: string,
): Promise<ReadonlyMap<string, Uint8Array>> {
  const held = components.flatMap((component) =>
    component.units.flatMap((unit) => ("refusal" in unit.survey ? [] : [{ ...unit, survey: unit.survey, component }])),
  );
  const unit = smallestUnit(held);
  if (unit === undefined)
    throw new InputError("input.option", "--kernels: no unit is compressed, so there is nothing to decode", { option: "kernels" });
  const { component, layout } = unit.component;
  const name = unit.ref.name;
  const found = hashes.get(tasks.find((task) => task.name === `unit ${component.prefix}${name}`)!.name)!;
  return emitKernels(names, {
    file: layout.fileOf(`${name}.luts`),
    unit: name,
    arrays: Object.fromEntries(
      unit.survey.stored.map((spec) => [
        spec.name.slice(name.length + 1),
        [layout.placeOf(spec.name, directory, "").offset, byteLength(spec.dtype, spec.shape)] as const,
      ]),
    ),
    members: unit.ref.tensors.map((tensor) => testMember(tensor.name, tensor.shape, found[tensor.name]!)),
  });
}

function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`);
}
