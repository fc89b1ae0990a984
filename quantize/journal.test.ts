import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createJournal, journalPath, readJournalHead, resumeJournal } from "./journal.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "journal-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

test("finished tasks survive, a line cut short does not, and another key sees nothing", async () => {
  const out = join(directory, "a");
  const journal = await createJournal(out, "key", { source: "s" });
  await journal.append([{ task: "one", record: { n: 1 } }]);
  await journal.close();
  await writeFile(journalPath(out), '{"task":"two","rec', { flag: "a" });
  const resumed = (await resumeJournal(out, "key"))!;
  expect([...resumed.finished]).toEqual([["one", { n: 1 }]]);
  await resumed.append([{ task: "two", record: {} }]);
  await resumed.close();
  expect((await resumeJournal(out, "key"))!.finished.size).toBe(2);
  expect(await resumeJournal(out, "other")).toBeUndefined();
});

test("a new run keeps nothing of the one it replaces, decisions and statistics least of all", async () => {
  const out = join(directory, "b");
  await (await createJournal(out, "old", {})).close();
  await writeFile(journalPath(out, "decisions.safetensors"), "of the old run");
  await (await createJournal(out, "new", {})).close();
  expect(await readdir(join(out, ".bitwright"))).toEqual(["journal.ndjson"]);
  expect((await readJournalHead(out))!.key).toBe("new");
});
