/**
 * The output directory: who may write there, and how it becomes an artifact.
 *
 * States: absent or empty → unfinished (journal + partials) → finished
 * (manifest). Only what this tool wrote is ever replaced.
 * @module
 */
import { mkdir, readdir, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { InputError } from "../core/errors.ts";
import { syncDirectory } from "../formats/containers/atomic.ts";
import type { Model } from "../model/model.ts";
import { createJournal, hasProgress, JOURNAL_DIRECTORY, readJournalHead, removeJournal, resumeJournal, type Journal } from "./journal.ts";
import { compactFiles } from "./lossless/compact/record.ts";
import { listedFiles, MANIFEST_FILE, readManifest } from "./manifest.ts";

/** Ending of files that are not complete yet. */
export const PARTIAL = ".partial";

/** A directory that this run may write to. */
export interface ClaimedOutput {
  readonly directory: string;
  readonly journal: Journal;
  /** Whether an earlier process had begun. */
  readonly resumed: boolean;
}

/** What claiming needs to know of the run. */
export interface Claim {
  readonly directory: string;
  readonly key: string;
  /** Stored for `resume`. */
  readonly request: Readonly<Record<string, unknown>>;
  readonly force: boolean;
}

/**
 * Refuse outputs that are, contain, or lie in the source. Links are resolved.
 *
 * @throws {InputError} `input.path` naming both.
 */
export async function checkSeparate({ directory, tensors }: Model, out: string): Promise<void> {
  const target = await realPlace(out);
  for (const path of new Set([...tensors.values()].flatMap(({ location }) => (location === undefined ? [] : [location.path])))) {
    if (isInside(await realpath(path), target)) {
      throw new InputError("input.path", `the source file ${path} lies in the output ${out}; choose another --out`, {
        source: path,
        target,
      });
    }
  }
  if (directory === undefined) return;
  const source = await realpath(directory);
  if (isInside(source, target) || isInside(target, source)) {
    throw new InputError("input.path", `the output ${out} and the source ${directory} must not lie in each other`, { source, target });
  }
}

function isInside(inner: string, outer: string): boolean {
  const path = relative(outer, inner);
  return path === "" || (path !== ".." && !path.startsWith(`..${sep}`) && resolve(outer, path) === inner && !path.startsWith(sep));
}

/** The real path that `path` would have: its nearest existing ancestor's, and the rest as written. */
export async function realPlace(path: string): Promise<string> {
  const whole = resolve(path);
  try {
    return await realpath(whole);
  } catch {
    const parent = dirname(whole);
    return parent === whole ? whole : join(await realPlace(parent), basename(whole));
  }
}

/**
 * Take the directory for a run, going on with an unfinished one of the same key.
 *
 * Another run that stopped before it had anything to show (bad data, say) gives way.
 *
 * @throws {InputError} `input.output-exists` for a finished artifact or another unfinished run without `force`, and for files this tool did
 *   not write; `input.path` for a place that cannot be a directory.
 */
export async function claimOutput({ directory, key, request, force }: Claim): Promise<ClaimedOutput> {
  await makeDirectory(directory);
  const resumed = await resumeJournal(directory, key);
  if (resumed !== undefined) return { directory, journal: resumed, resumed: true };
  const names = await readdir(directory);
  const head = await readJournalHead(directory);
  const isBegun = head !== undefined && ((await hasProgress(directory)) || names.some((name) => name.endsWith(PARTIAL)));
  if (isBegun && !force) {
    throw exists(directory, "holds an unfinished run of another recipe or source; finish it, or pass --force to discard it");
  }
  if (names.includes(MANIFEST_FILE) && !force) throw exists(directory, "holds a finished artifact; pass --force to replace it");
  if (names.length > 0) {
    const own = await ownFiles(directory);
    const foreign = names.filter((name) => !own.has(name));
    if (foreign.length > 0) {
      throw exists(directory, `holds files this tool did not write (${foreign.slice(0, 3).join(", ")}); choose an empty directory`);
    }
  }
  for (const name of names) if (name.endsWith(PARTIAL)) await rm(join(directory, name), { force: true });
  return { directory, journal: await createJournal(directory, key, request), resumed: false };
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true });
  } catch (cause) {
    const reason = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
    const why = reason === "EEXIST" || reason === "ENOTDIR" ? "a file is in the way" : reason;
    throw new InputError(
      "input.path",
      `the output ${directory} cannot be made (${why}); choose another --out`,
      { directory, reason },
      { cause },
    );
  }
}

function exists(directory: string, why: string): InputError {
  return new InputError("input.output-exists", `${directory} ${why}`, { directory });
}

/** Names in a directory that this tool wrote: the manifest and what it lists, the journal, partials. */
async function ownFiles(directory: string): Promise<ReadonlySet<string>> {
  const names = await readdir(directory);
  const own = new Set(names.filter((name) => name === JOURNAL_DIRECTORY || name.endsWith(PARTIAL) || name.endsWith(".tmp")));
  const listed = await artifactFiles(directory);
  if (listed !== undefined) {
    own.add(MANIFEST_FILE);
    // A folder is ours when the manifest lists a file in it.
    for (const name of listed) own.add(name.split("/")[0]!);
  }
  // A run that was killed while it finished has written some of its files under their final names.
  if ((await readJournalHead(directory)) !== undefined) for (const name of names) own.add(name);
  return own;
}

/**
 * Put complete files in place: an older artifact's manifest goes first, so that no mixture ever looks finished; the files named last come
 * last. Safe to repeat after a crash.
 *
 * @param files - final names, in the order in which they appear; each lies at `<name>.partial` unless it has been renamed already.
 */
export async function publish(directory: string, files: readonly string[]): Promise<void> {
  if (await isThere(join(directory, `${MANIFEST_FILE}${PARTIAL}`))) {
    // The old manifest lists what to remove, so it goes last; without config.json nothing loads the rest.
    await rm(join(directory, "config.json"), { force: true });
    for (const name of await staleFiles(directory, files)) await rm(join(directory, name), { force: true });
    await rm(join(directory, MANIFEST_FILE), { force: true });
    await syncDirectory(directory);
  }
  for (const name of files) {
    const partial = join(directory, name + PARTIAL);
    if (await isThere(partial)) await rename(partial, join(directory, name));
  }
  await syncDirectory(directory);
}

/** Files of an older artifact that the new one does not have. */
async function staleFiles(directory: string, files: readonly string[]): Promise<readonly string[]> {
  return ((await artifactFiles(directory)) ?? []).filter((name) => !files.includes(name));
}

/** What the manifest lists, of either kind; undefined without one that can be read. */
async function artifactFiles(directory: string): Promise<readonly string[] | undefined> {
  const compact = await compactFiles(directory);
  if (compact !== undefined) return compact;
  const manifest = await readManifest(directory).catch(() => undefined);
  return manifest === undefined ? undefined : listedFiles(manifest);
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Forget the journal: the artifact is finished. */
export async function finishOutput({ directory, journal }: ClaimedOutput): Promise<void> {
  await journal.close();
  await removeJournal(directory);
}
