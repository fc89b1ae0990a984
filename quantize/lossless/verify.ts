/**
 * Verify a lossless artifact: every unit decoded, every byte compared with its checksum, and with the source when there is one.
 * @module
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { QuantError, InterruptedError, throwIfAborted } from "../../core/errors.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import { hashBytes, hashFile } from "../manifest.ts";
import type { VerifyReport } from "../types.ts";
import type { VerifyOptions } from "../verify.ts";
import { losslessPart, readLosslessManifest, type ComponentRecord, type LosslessManifest } from "./manifest.ts";
import { createLosslessPool, type LosslessPool } from "./prepare.ts";
import { openLosslessSource } from "./source.ts";
import { decodeWork, openStored } from "./stored.ts";

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
  const problems: Problem[] = await checkFiles(directory, manifest);
  const total = Object.values(record.shards).reduce((sum, size) => sum + size, 0);
  const pool = given ?? createLosslessPool(total < THREADED_BYTES ? 0 : 2);
  let done = 0;
  let tensors = 0;
  try {
    for (const component of record.components) {
      tensors += Object.keys(component.tensors).length;
      try {
        const work = decodeWork(component, await openStored(directory, component, record), () => undefined);
        // All damage is reported, so one damaged unit does not stop the others.
        await Promise.all(
          work.map(async ({ task, name, bytes }) => {
            try {
              await pool.run(task, { ...(options.signal && { signal: options.signal }) });
            } catch (error) {
              if (!(error instanceof QuantError) || error instanceof InterruptedError) throw error;
              problems.push({ tensor: `${component.prefix}${name}`, problem: error.message });
            }
            options.onProgress?.({ phase: "verify", done: (done += bytes), total, unit: "bytes" });
          }),
        );
      } catch (error) {
        if (!(error instanceof QuantError) || error instanceof InterruptedError) throw error;
        problems.push({ tensor: component.prefix || directory, problem: error.message });
      }
    }
    if (options.source !== undefined) problems.push(...(await compareSource(record.components, options)));
  } finally {
    if (given === undefined) await pool.close();
  }
  return { ok: problems.length === 0, tensors, problems: problems.toSorted((a, b) => (a.tensor < b.tensor ? -1 : 1)) };
}

/** The files of an artifact whose units and copies were compared one by one: names, sizes, headers, and the checksums of all that is not weights. */
export async function verifyWritten(directory: string): Promise<VerifyReport> {
  const manifest = await readLosslessManifest(directory);
  const { components } = manifest.lossless;
  const problems = await checkFiles(directory, manifest);
  let tensors = 0;
  for (const component of components) {
    tensors += Object.keys(component.tensors).length;
    // Refuses headers that do not fit their file, and stored tensors that do not make the component's.
    decodeWork(component, await openStored(directory, component, manifest.lossless), () => undefined);
  }
  return { ok: problems.length === 0, tensors, problems };
}

async function checkFiles(directory: string, manifest: LosslessManifest): Promise<Problem[]> {
  const problems: Problem[] = [];
  const expected = new Map([
    ...Object.entries(manifest.files).map(([name, { bytes }]) => [name, bytes] as const),
    ...Object.entries(manifest.lossless.shards),
  ]);
  for (const [name, bytes] of expected) {
    const facts = await stat(join(directory, name)).catch(() => undefined);
    if (facts?.isFile() !== true) problems.push({ tensor: name, problem: "file is missing" });
    else if (facts.size !== bytes) problems.push({ tensor: name, problem: `file has ${facts.size} bytes, written were ${bytes}` });
    else if (Object.hasOwn(manifest.files, name) && (await hashFile(join(directory, name))) !== manifest.files[name]!.sha256) {
      problems.push({ tensor: name, problem: "file has changed (sha256)" });
    }
  }
  for (const { prefix } of manifest.lossless.components) {
    for (const name of await readdir(join(directory, prefix)).catch(() => [])) {
      if (name.endsWith(".safetensors") && !expected.has(prefix + name))
        problems.push({ tensor: prefix + name, problem: "a weight file that is not in the manifest; loaders would read it" });
    }
  }
  return problems;
}

/** Source tensors against the checksums of the decoded ones. */
async function compareSource(components: readonly ComponentRecord[], { source, signal }: VerifyOptions): Promise<readonly Problem[]> {
  const problems: Problem[] = [];
  const originals = typeof source === "string" ? await sourceTensors(source) : new Map([["", source!.tensors]]);
  for (const { prefix, tensors } of components) {
    const there = originals.get(prefix) ?? new Map<string, LazyTensor>();
    for (const [name, tensor] of there) {
      throwIfAborted(signal);
      if (!Object.hasOwn(tensors, name)) problems.push({ tensor: prefix + name, problem: "of the source is not in the artifact" });
      else if ((await hashOf(tensor)) !== tensors[name]!.sha256)
        problems.push({ tensor: prefix + name, problem: "differs from the source" });
    }
    for (const name of Object.keys(tensors))
      if (!there.has(name)) problems.push({ tensor: prefix + name, problem: "is not in the source" });
  }
  return problems;
}

async function sourceTensors(path: string): Promise<ReadonlyMap<string, ReadonlyMap<string, LazyTensor>>> {
  const { components } = await openLosslessSource(path);
  return new Map(
    components.map(({ prefix, files }) => [
      prefix,
      new Map(files.flatMap(({ tensors }) => tensors.map((tensor) => [tensor.name, tensor] as const))),
    ]),
  );
}

async function hashOf(tensor: LazyTensor): Promise<string> {
  const { location, byteLength } = tensor;
  if (location === undefined || byteLength === 0) return hashBytes(byteLength === 0 ? new Uint8Array(0) : (await tensor.read()).bytes);
  const hash = createHash("sha256");
  const range = { start: location.offset, end: location.offset + byteLength - 1, highWaterMark: 2 ** 20 };
  for await (const chunk of createReadStream(location.path, range)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
