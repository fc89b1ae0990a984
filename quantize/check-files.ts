/**
 * The files of an artifact beside what its manifest says of them.
 * @module
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { throwIfAborted } from "../core/errors.ts";
import { hashFile } from "./manifest.ts";
import type { VerifyReport } from "./types.ts";

/** What a manifest says of a file. */
export interface ExpectedFile {
  readonly bytes: number;
  /** Hex; without it only the size counts. */
  readonly sha256?: string;
}

/** @param files - by name relative to the directory. @returns what is missing or has changed. @throws {InterruptedError} */
export async function checkFiles(
  directory: string,
  files: Iterable<readonly [name: string, expected: ExpectedFile]>,
  signal?: AbortSignal,
): Promise<VerifyReport["problems"][number][]> {
  const problems: VerifyReport["problems"][number][] = [];
  for (const [name, { bytes, sha256 }] of files) {
    throwIfAborted(signal);
    const path = join(directory, name);
    const facts = await stat(path).catch(() => undefined);
    if (facts?.isFile() !== true) problems.push({ tensor: name, problem: "file is missing" });
    else if (facts.size !== bytes) problems.push({ tensor: name, problem: `file has ${facts.size} bytes, written were ${bytes}` });
    else if (sha256 !== undefined && (await hashFile(path)) !== sha256)
      problems.push({ tensor: name, problem: "file has changed (sha256)" });
  }
  return problems;
}
