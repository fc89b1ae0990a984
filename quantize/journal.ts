/**
 * Journal: what an unfinished run has already put safely on disk.
 *
 * `<out>/.bitwright/` holds `journal.ndjson` (first line: the run's key, then
 * one line a finished tensor, appended only after its bytes were fsynced) and
 * `decisions.safetensors`. Data lies in `<file>.partial` until everything is
 * there. So `kill -9` leaves the old state or partials, and the same command goes on.
 * @module
 */
import { mkdir, open, readdir, readFile, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { syncDirectory, writeFileAtomic } from "../formats/containers/atomic.ts";

/** Folder inside the output that exists only while a run is unfinished. */
export const JOURNAL_DIRECTORY = ".bitwright";
const JOURNAL_FILE = "journal.ndjson";
const VERSION = 1;

/** One finished task. `record` is whatever the writer needs to skip it. */
export interface JournalEntry {
  readonly task: string;
  readonly record: Readonly<Record<string, unknown>>;
}

/** An open journal. One process at a time appends. */
export interface Journal {
  /** Tasks finished by earlier processes. */
  readonly finished: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
  /** Append entries whose data is durable, and make the lines durable. */
  append(entries: readonly JournalEntry[]): Promise<void>;
  close(): Promise<void>;
}

/** First line of a journal. */
export interface JournalHead {
  readonly version: number;
  /** Hash of plan and source: another key is another run. */
  readonly key: string;
  /** The options to go on with, for `resume`. */
  readonly request: Readonly<Record<string, unknown>>;
}

/** Path of a file inside the journal folder. */
export function journalPath(out: string, file: string = JOURNAL_FILE): string {
  return join(out, JOURNAL_DIRECTORY, file);
}

/** The head of the journal in `out`, or undefined when there is no unfinished run. */
export async function readJournalHead(out: string): Promise<JournalHead | undefined> {
  return (await readJournal(out))?.head;
}

/** Whether the unfinished run in `out` has finished a task or kept a decision, that starting over would lose. */
export async function hasProgress(out: string): Promise<boolean> {
  const names = await readdir(join(out, JOURNAL_DIRECTORY)).catch(() => []);
  if (names.some((name) => name !== JOURNAL_FILE && !name.endsWith(".tmp"))) return true;
  return ((await readJournal(out))?.entries.length ?? 0) > 0;
}

/** Start a journal, replacing any other and what it had kept: decisions of another run must not be taken for this one's. */
export async function createJournal(out: string, key: string, request: Readonly<Record<string, unknown>>): Promise<Journal> {
  await rm(join(out, JOURNAL_DIRECTORY), { recursive: true, force: true });
  await mkdir(join(out, JOURNAL_DIRECTORY), { recursive: true });
  const head: JournalHead = { version: VERSION, key, request };
  await writeFileAtomic(journalPath(out), `${JSON.stringify(head)}\n`);
  await syncDirectory(out);
  return openForAppend(out, new Map());
}

/**
 * Go on with the journal in `out`.
 *
 * A last line that a crash cut short is dropped: its task is done again.
 *
 * @returns undefined when there is none with this key.
 */
export async function resumeJournal(out: string, key: string): Promise<Journal | undefined> {
  const found = await readJournal(out);
  if (found === undefined || found.head.key !== key) return undefined;
  const finished = new Map(found.entries.map(({ task, record }) => [task, record]));
  // Rewrite without the torn tail, so that appended lines start on a line of their own.
  await writeFileAtomic(journalPath(out), [found.head, ...found.entries].map((line) => `${JSON.stringify(line)}\n`).join(""));
  return openForAppend(out, finished);
}

/** Remove the journal: the run is finished, or its state is not wanted any more. */
export async function removeJournal(out: string): Promise<void> {
  await rm(join(out, JOURNAL_DIRECTORY), { recursive: true, force: true });
  await syncDirectory(out);
}

async function openForAppend(out: string, finished: ReadonlyMap<string, Readonly<Record<string, unknown>>>): Promise<Journal> {
  const handle: FileHandle = await open(journalPath(out), "a");
  return {
    finished,
    async append(entries) {
      if (entries.length === 0) return;
      await handle.appendFile(entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
      await handle.datasync();
    },
    close: () => handle.close(),
  };
}

async function readJournal(out: string): Promise<{ head: JournalHead; entries: JournalEntry[] } | undefined> {
  let text: string;
  try {
    text = await readFile(journalPath(out), "utf8");
  } catch {
    return undefined;
  }
  const lines = text.split("\n");
  // What follows the last newline was never finished.
  lines.pop();
  const head = parseLine(lines.shift()) as JournalHead | undefined;
  if (head === undefined || head.version !== VERSION || typeof head.key !== "string") return undefined;
  const entries: JournalEntry[] = [];
  for (const line of lines) {
    const entry = parseLine(line) as JournalEntry | undefined;
    if (entry === undefined || typeof entry.task !== "string" || typeof entry.record !== "object" || entry.record === null) break;
    entries.push(entry);
  }
  return { head, entries };
}

function parseLine(line: string | undefined): unknown {
  if (line === undefined) return undefined;
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
