import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FormatError } from "../../core/errors.ts";
import { encodeBf16 } from "../../core/float.ts";
import { createRandom } from "../../core/random.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { openCompactFile } from "../../formats/containers/compact/open.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { encodeSafetensors } from "../../formats/containers/safetensors/write.ts";
import { quantize } from "../quantize.ts";
import type { Recipe } from "../types.ts";
import { createDecodePool, decodeFiles } from "./compact/tasks.ts";
import { decodeLarge, partition } from "./large-unit.ts";
import { losslessPart, readLosslessManifest } from "./manifest.ts";
import { createLosslessPool } from "./prepare.ts";
import { decodeWork, openStored } from "./stored.ts";
import { verifyLossless } from "./verify.ts";

const LARGE = "lm_head.weight";
const SMALL = "model.layers.0.mlp.up_proj.weight";
let work: string;
let source: string;
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "lossless-large-"));
  source = join(work, "model.safetensors");
  const random = createRandom(11);
  const rows = Array.from({ length: 64 }, () => Uint16Array.from({ length: 2048 }, () => encodeBf16(0.02 * random.normal())));
  // Over 16 MiB and most of the file; each row begins elsewhere in one of the others.
  const large = new Uint16Array(4200 * 2048);
  for (let r = 0; r < 4200; r++) {
    const row = rows[r % 64]!;
    large.set(row.subarray(r % 2048), 2048 * r);
    large.set(row.subarray(0, r % 2048), 2048 * (r + 1) - (r % 2048));
  }
  const small = new Uint8Array(rows[0]!.buffer.slice(0));
  const tensors = new Map([
    [LARGE, { dtype: "BF16" as const, shape: [4200, 2048], bytes: new Uint8Array(large.buffer) }],
    [SMALL, { dtype: "BF16" as const, shape: [8, 256], bytes: small }],
  ]);
  writeFileSync(source, encodeSafetensors(tensors));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

/** Bytes of the source's tensors, and where they lie in it. */
async function layout(): Promise<{ bytes: Buffer; offsetOf: (tensor: string) => number }> {
  const file = await openFileSource(source);
  try {
    const { tensors } = await openSafetensors(file);
    return { bytes: readFileSync(source), offsetOf: (tensor) => tensors.get(tensor)!.location!.offset };
  } finally {
    await file.close();
  }
}

/** An empty file of the source's size. */
function target(name: string): string {
  const path = join(work, name);
  writeFileSync(path, "");
  truncateSync(path, readFileSync(source).length);
  return path;
}

/** Flips a bit that decodes all the same. */
function damage(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 4;
  writeFileSync(path, bytes);
}

test("df11: a unit that is most of the work is decoded by all workers, to the same bytes; damage is named", async () => {
  const artifact = join(work, "df11");
  await quantize(source, { recipe: { method: ["dfloat11"] }, out: artifact, workers: 0 });
  const record = losslessPart(await readLosslessManifest(artifact))!;
  const pool = createLosslessPool(2);
  try {
    expect(await verifyLossless(artifact, {}, pool)).toMatchObject({ ok: true, tensors: 2 });
    const { bytes, offsetOf } = await layout();
    const path = target("df11-back");
    const stored = await openStored(artifact, record.components[0]!, record);
    const items = decodeWork(record.components[0]!, stored, (tensor) => ({ path, offset: offsetOf(tensor) }));
    const { large, rest } = partition(items, pool.workers);
    expect([large.map(({ name }) => name), rest.map(({ name }) => name)]).toEqual([["lm_head"], ["model.layers.0"]]);
    const written: number[] = [];
    await decodeLarge(large[0]!, pool, { onWritten: (_, offset, length) => written.push(offset, offset + length) });
    await pool.run(rest[0]!.task);
    const header = bytes.subarray(0, Math.min(offsetOf(LARGE), offsetOf(SMALL)));
    expect(Buffer.compare(readFileSync(path).subarray(header.length), bytes.subarray(header.length))).toBe(0);
    // Each piece begins where the one before it ends.
    expect(written.length).toBeGreaterThan(4);
    expect(written[0]).toBe(offsetOf(LARGE));
    expect(written.slice(1, -1).every((at, i) => i % 2 === 1 || at === written[i + 2])).toBe(true);
    const mantissas = stored.get("lm_head.sign_mantissa")!;
    damage(mantissas.path, mantissas.offset + Math.floor(mantissas.byteLength / 2));
    const { problems } = await verifyLossless(artifact, {}, pool);
    expect(problems.map(({ tensor }) => tensor)).toEqual(["lm_head"]);
    await expect(decodeLarge(large[0]!, pool, {})).rejects.toMatchObject({ code: "format.checksum", details: { tensor: LARGE } });
  } finally {
    await pool.close();
  }
});

test("compact: a tensor that is most of a file is decoded by all workers, to the same bytes; damage is named", async () => {
  const artifact = join(work, "compact");
  const recipe: Recipe = { method: ["dfloat11"], codec: "compact", level: "fast" };
  await quantize(source, { recipe, out: artifact, workers: 0 });
  const path = join(artifact, "model.safetensors.compact");
  const pool = createDecodePool(2, Infinity);
  try {
    const file = await openCompactFile(path);
    expect(await decodeFiles([{ path, file }], pool, {})).toEqual([]);
    const { bytes, offsetOf } = await layout();
    const to = target("compact-back");
    const written: number[] = [];
    await decodeFiles([{ path, file, to }], pool, { onWritten: (_, offset) => written.push(offset) });
    expect(Buffer.compare(readFileSync(to).subarray(file.header.length), bytes.subarray(file.header.length))).toBe(0);
    // In parts, and then the small one.
    expect(written.length).toBeGreaterThan(3);
    expect(written[0]).toBe(offsetOf(LARGE));
    expect(written.at(-1)).toBe(offsetOf(SMALL));
    const { offset, bytes: stored } = await file.stored(LARGE);
    damage(path, offset + Math.floor(stored / 2));
    const found = await decodeFiles([{ path, file }], pool, {});
    expect(found.map(({ tensor }) => tensor)).toEqual([LARGE]);
    await expect(decodeFiles([{ path, file, to }], pool, {})).rejects.toThrow(FormatError);
  } finally {
    await pool.close();
  }
});
