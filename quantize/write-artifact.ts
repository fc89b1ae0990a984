/**
 * The write phase: tensors stream into partial files, small files follow, then all become the artifact.
 * @module
 */
import { mkdir, open, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { byteLength, type DType } from "../core/dtype.ts";
import { schemeName } from "../core/scheme.ts";
import { replaceFile, writeFileAtomic, writeFully } from "../formats/containers/atomic.ts";
import { INDEX_FILE } from "../formats/shards.ts";
import { version } from "../core/version.ts";
import { carriedFiles } from "./carry-over.ts";
import { CommitQueue } from "./commit.ts";
import type { Decisions } from "./decisions.ts";
import { foldRecords } from "./fold-records.ts";
import { blockKernelFiles } from "./kernels/artifact.ts";
import { hashBytes, MANIFEST_FILE, type Manifest, type ManifestTensor } from "./manifest.ts";
import { exportSites, type OutputLayout } from "./output-layout.ts";
import { PARTIAL, publish, type ClaimedOutput } from "./output-directory.ts";
import { planTasks, type PlannedTask } from "./output-tasks.ts";
import type { Prepared, Target } from "./prepare.ts";
import { sharedScales } from "./shared-scales.ts";
import { runTasks } from "./streaming/run.ts";
import type { TaskResult, TensorTask } from "./streaming/task.ts";
import type { Plan, QuantizeOptions, SiteReport } from "./types.ts";

/** Source bytes that lie in no file and are held for tasks at one time. */
const HELD_BYTES = 256 * 2 ** 20;

/** What the journal keeps of a finished task. */
interface TaskRecord {
  readonly outputs: Readonly<Record<string, string>>;
  readonly sumSquares: number;
  readonly sumSquaredError: number;
}

/** A written artifact. */
export interface WrittenArtifact {
  readonly directory: string;
  readonly files: readonly string[];
  readonly bytes: number;
  readonly sites: readonly SiteReport[];
}

/** What to write, with every choice made. */
export interface WriteRequest {
  readonly prepared: Prepared;
  readonly plan: Plan;
  readonly decisions: Decisions;
  readonly target: Target;
  readonly output: ClaimedOutput;
  readonly options: QuantizeOptions;
}

/**
 * Write one target.
 *
 * @throws {InterruptedError} after finished tensors were recorded.
 */
export async function writeArtifact(request: WriteRequest): Promise<WrittenArtifact> {
  const { prepared, decisions, target, output, options } = request;
  const { directory, journal } = output;
  const globalScales = await sharedScales(prepared, decisions, options);
  const tasks = planTasks(prepared, target.layout, decisions, directory, globalScales);
  const finished = new Map(
    tasks.flatMap(({ name }) => (journal.finished.has(name) ? [[name, journal.finished.get(name) as unknown as TaskRecord]] : [])),
  );
  const rest = tasks.filter(({ name }) => !finished.has(name));
  await preparePartials(directory, target.layout, new Set(rest.flatMap(({ stored }) => [...stored.values()])));
  await runAll(rest, tasks, finished, request);
  const sites = reportSites(prepared, decisions, finished);
  const files = await writeSmallFiles(request, tasks, finished, sites);
  await publish(directory, files);
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(directory, name))).size));
  options.onProgress?.({ phase: "quantize", done: 1, total: 1, unit: "tensors", detail: "written" });
  return { directory, files, bytes: sizes.reduce((sum, size) => sum + size, 0), sites };
}

/** Partial files at full length with their headers; those an earlier process made stay. */
async function preparePartials(directory: string, { shards, places }: OutputLayout, missing: ReadonlySet<string>): Promise<void> {
  const needed = new Set([...missing].map((name) => places.get(name)!.shard));
  for (const shard of shards) {
    const path = join(directory, shard.file + PARTIAL);
    const existing = await stat(path).catch(() => undefined);
    if (
      existing?.size === shard.layout.fileBytes ||
      (existing === undefined && !needed.has(shard) && (await isComplete(directory, shard.file, shard.layout.fileBytes)))
    )
      continue;
    const handle = await open(path, "w");
    try {
      await writeFully(handle, shard.layout.header);
      await handle.truncate(shard.layout.fileBytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
}

/** Renamed by a process that was killed after it had begun to publish. */
async function isComplete(directory: string, file: string, bytes: number): Promise<boolean> {
  const facts = await stat(join(directory, file)).catch(() => undefined);
  return facts?.size === bytes;
}

async function runAll(
  rest: readonly PlannedTask[],
  all: readonly PlannedTask[],
  finished: Map<string, TaskRecord>,
  request: WriteRequest,
): Promise<void> {
  const { options, output } = request;
  const queue = new CommitQueue(output.journal);
  const planned = new Map(all.map((task) => [task.name, task]));
  const total = all.reduce((sum, { bytes }) => sum + bytes, 0);
  let before = total - rest.reduce((sum, { bytes }) => sum + bytes, 0);
  try {
    for (const group of heldGroups(rest, request.prepared)) {
      const tasks: TensorTask[] = [];
      for (const task of group) tasks.push(await task.create());
      await runTasks(tasks, {
        workers: options.workers ?? 2,
        signal: options.signal,
        onDone(result) {
          const task = planned.get(result.name)!;
          const record = recordOf(task, result);
          finished.set(task.name, record);
          const files = tasks.find(({ name }) => name === task.name)!.outputs.map(({ path }) => path);
          queue.add({ task: task.name, record: { ...record }, bytes: task.bytes, files: [...new Set(files)] });
        },
        onProgress: (done) => options.onProgress?.({ phase: "quantize", done: Math.min(total, before + done), total, unit: "bytes" }),
      });
      before += group.reduce((sum, { bytes }) => sum + bytes, 0);
    }
  } finally {
    // Whatever ended the loop, what is finished is recorded, so that the next process need not do it again.
    try {
      await queue.flush();
    } finally {
      await queue.close();
    }
  }
}

function recordOf({ stored }: PlannedTask, { outputs, sumSquares, sumSquaredError }: TaskResult): TaskRecord {
  return {
    outputs: Object.fromEntries(outputs.map(({ role, sha256 }) => [stored.get(role)!, sha256])),
    sumSquares,
    sumSquaredError,
  };
}

/** Tasks in groups whose sources outside files fit the memory set aside for them; one group when all lie in files. */
function heldGroups(tasks: readonly PlannedTask[], { model }: Prepared): readonly (readonly PlannedTask[])[] {
  const groups: PlannedTask[][] = [[]];
  let held = 0;
  for (const task of tasks) {
    const bytes = model.tensors.get(task.from)?.location === undefined ? task.bytes : 0;
    if (held > 0 && held + bytes > HELD_BYTES) {
      groups.push([]);
      held = 0;
    }
    groups.at(-1)!.push(task);
    held += bytes;
  }
  return groups;
}

function reportSites({ choices }: Prepared, { outliers }: Decisions, finished: ReadonlyMap<string, TaskRecord>): readonly SiteReport[] {
  return choices.map(({ site, plan }) => {
    const record = finished.get(`${site.name}.weight`);
    const outlier = outliers.get(site.name);
    const scheme = [plan.weight, plan.input].flatMap((one) => (one === undefined ? [] : [schemeName(one)])).join(", ");
    return {
      name: site.name,
      scheme: scheme === "" ? "float" : scheme,
      sqnr: plan.weight === undefined || record === undefined ? Infinity : signalToNoise(record.sumSquares, record.sumSquaredError),
      ...(outlier && { outlierBefore: outlier.before, outlierAfter: outlier.after }),
      ...(plan.reason !== undefined && { note: plan.reason }),
    };
  });
}

/** dB; Infinity without noise. */
export function signalToNoise(signal: number, noise: number): number {
  return noise === 0 ? Infinity : 10 * Math.log10(signal / noise);
}

/** Everything but the tensors, each under its partial name. @returns all files in the order in which they appear. */
async function writeSmallFiles(
  {
    prepared,
    plan,
    decisions,
    target,
    output,
    options: {
      recipe: { kernels },
    },
  }: WriteRequest,
  tasks: readonly PlannedTask[],
  finished: ReadonlyMap<string, TaskRecord>,
  sites: readonly SiteReport[],
): Promise<readonly string[]> {
  const { directory } = output;
  const { model, choices } = prepared;
  const { layout } = target;
  const files = new Map<string, { bytes: number; sha256: string }>();
  const add = async (name: string, content: Uint8Array): Promise<void> => {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await replaceFile(join(directory, name + PARTIAL), (handle) => writeFully(handle, content));
    files.set(name, { bytes: content.byteLength, sha256: hashBytes(content) });
  };
  if (model.directory !== undefined) {
    for (const name of await carriedFiles(model.directory)) await add(name, await readFile(join(model.directory, name)));
  }
  if (kernels !== undefined) for (const [name, content] of await blockKernelFiles(kernels, layout, directory)) await add(name, content);
  if (layout.index !== undefined) await add(INDEX_FILE, jsonBytes(layout.index));
  const ignored = choices
    .filter(({ plan: { weight }, site }) => weight === undefined && site.kind !== "embedding")
    .map(({ site }) => site.name);
  const heads = ["lm_head"].filter((name) => !choices.some(({ site, plan: { weight } }) => site.name === name && weight !== undefined));
  const config = target.export.config(
    model.config,
    exportSites(choices, decisions),
    [...new Set([...heads, ...ignored])],
    prepared.scaleDType,
  );
  await add("config.json", jsonBytes(config));
  const axes = new Map(choices.map(({ site }) => [`${site.name}.weight`, site.channelAxis]));
  const manifest: Manifest = {
    tool: "bitwright",
    version: version(),
    format: target.export.name,
    plan,
    sites: sites.map((site) => ({ ...site, sqnr: Number.isFinite(site.sqnr) ? site.sqnr : null })),
    ...foldRecords(decisions, (name) => axes.get(name) ?? 0),
    tensors: manifestTensors(layout, tasks, finished),
    files: Object.fromEntries([...files].toSorted(([a], [b]) => (a < b ? -1 : 1))),
  };
  await writeFileAtomic(join(directory, MANIFEST_FILE + PARTIAL), jsonBytes(manifest));
  const small = [...files.keys()].filter((name) => name !== "config.json");
  return [...layout.shards.map(({ file }) => file), ...small, "config.json", MANIFEST_FILE];
}

function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`);
}

function manifestTensors(
  { places }: OutputLayout,
  tasks: readonly PlannedTask[],
  finished: ReadonlyMap<string, TaskRecord>,
): Manifest["tensors"] {
  const entries = tasks.flatMap((task) =>
    [...task.stored.values()].map((name): [string, ManifestTensor] => {
      const { shard, spec } = places.get(name)!;
      const sha256 = finished.get(task.name)!.outputs[name]!;
      const { dtype, shape }: { dtype: DType; shape: readonly number[] } = spec;
      return [name, { file: shard.file, dtype, shape, sha256, ...(task.from !== name && { from: task.from }) }];
    }),
  );
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** Bytes of all tensors in a layout, headers left out. */
export function tensorBytes({ places }: OutputLayout): number {
  return [...places.values()].reduce((sum, { spec }) => sum + byteLength(spec.dtype, spec.shape), 0);
}
