/**
 * Verify a lossless artifact: every unit decoded, every byte compared with its checksum, and with the source when there is one.
 * @module
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { QuantError, InterruptedError } from "../../core/errors.ts";
import { checkFiles, type ExpectedFile } from "../check-files.ts";
import type { VerifyReport } from "../types.ts";
import type { VerifyOptions } from "../verify.ts";
import { compareSource } from "./compare-source.ts";
import { losslessPart, readLosslessManifest, type ComponentRecord, type LosslessManifest } from "./manifest.ts";
import { createLosslessPool, type LosslessPool } from "./prepare.ts";
import { decodeLarge, partition } from "./large-unit.ts";
import { decodeWork, openStored, type DecodeWork } from "./stored.ts";

/** Below this, starting threads takes longer than decoding. */
export const THREADED_BYTES: number = 2 ** 25;

type Problem = VerifyReport["problems"][number];

/**
 * @param given - a pool to work on; without one, its own.
 * @returns problems as data; a damaged artifact is a report, not an error.
 */
export async function verifyLossless(directory: string, options: VerifyOptions = {}, given?: LosslessPool): Promise<VerifyReport> {
  const manifest = await readLosslessManifest(directory);
  const record = losslessPart(manifest)!;
  const problems: Problem[] = await checkListed(directory, manifest);
  const total = Object.values(record.shards).reduce((sum, size) => sum + size, 0);
  const pool = given ?? createLosslessPool(total < THREADED_BYTES ? 0 : (options.workers ?? 2));
  let done = 0;
  let tensors = 0;
  try {
    for (const component of record.components) {
      tensors += Object.keys(component.tensors).length;
      try {
        const work = decodeWork(component, await openStored(directory, component, record), () => undefined);
        // All damage is reported, so one damaged unit does not stop the others.
        const decode = async ({ name, bytes }: DecodeWork, running: Promise<unknown>): Promise<void> => {
          try {
            await running;
          } catch (error) {
            if (!(error instanceof QuantError) || error instanceof InterruptedError) throw error;
            problems.push({ tensor: `${component.prefix}${name}`, problem: error.message });
          }
          options.onProgress?.({ phase: "verify", done: (done += bytes), total, unit: "bytes" });
        };
        const { large, rest } = partition(work, pool.workers);
        const runOptions = { ...(options.signal && { signal: options.signal }) };
        for (const item of large) await decode(item, decodeLarge(item, pool, runOptions));
        await Promise.all(rest.map(async (item) => decode(item, pool.run(item.task, runOptions))));
      } catch (error) {
        if (!(error instanceof QuantError) || error instanceof InterruptedError) throw error;
        problems.push({ tensor: component.prefix || directory, problem: error.message });
      }
    }
    if (options.source !== undefined) problems.push(...(await compareSource(hashesOf(record.components), options.source, options.signal)));
  } finally {
    if (given === undefined) await pool.close();
  }
  return { ok: problems.length === 0, tensors, problems: problems.toSorted((a, b) => (a.tensor < b.tensor ? -1 : 1)) };
}

/** The files of an artifact whose units and copies were compared one by one: names, sizes, headers, and the checksums of all that is not weights. */
export async function verifyWritten(directory: string): Promise<VerifyReport> {
  const manifest = await readLosslessManifest(directory);
  const { components } = manifest.lossless;
  const problems = await checkListed(directory, manifest);
  let tensors = 0;
  for (const component of components) {
    tensors += Object.keys(component.tensors).length;
    // Refuses headers that do not fit their file, and stored tensors that do not make the component's.
    decodeWork(component, await openStored(directory, component, manifest.lossless), () => undefined);
  }
  return { ok: problems.length === 0, tensors, problems };
}

/** Hashes by component folder. */
function hashesOf(components: readonly ComponentRecord[]): ReadonlyMap<string, ReadonlyMap<string, string>> {
  return new Map(
    components.map(({ prefix, tensors }) => [prefix, new Map(Object.entries(tensors).map(([name, { sha256 }]) => [name, sha256]))]),
  );
}

async function checkListed(directory: string, manifest: LosslessManifest): Promise<Problem[]> {
  const expected = new Map<string, ExpectedFile>(Object.entries(manifest.files));
  for (const [name, bytes] of Object.entries(manifest.lossless.shards)) expected.set(name, { bytes });
  const problems = await checkFiles(directory, expected);
  for (const { prefix } of manifest.lossless.components) {
    for (const name of await readdir(join(directory, prefix)).catch(() => [])) {
      if (name.endsWith(".safetensors") && !expected.has(prefix + name))
        problems.push({ tensor: prefix + name, problem: "a weight file that is not in the manifest; loaders would read it" });
    }
  }
  return problems;
}
