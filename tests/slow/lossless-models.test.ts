/**
 * Two real models against the hashes of the official encoder's tensors. The models are not in the repository (45 and 269 MB):
 * BITWRIGHT_LOSSLESS_SOURCES names a directory with the files of `fixtures/lossless/df11/models.json`.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import { restore } from "../../quantize/lossless/restore.ts";
import { quantize } from "../../quantize/quantize.ts";

interface Golden {
  readonly source_sha256: string;
  readonly pattern_dict: Readonly<Record<string, readonly string[]>>;
  readonly bits_per_weight: number;
  readonly units: Readonly<
    Record<string, { readonly tensors: Readonly<Record<string, { readonly shape: readonly number[]; readonly sha256: string }>> }>
  >;
}

const models = JSON.parse(readFileSync(join(import.meta.dirname, "../../fixtures/lossless/df11/models.json"), "utf8")) as Readonly<
  Record<string, Golden>
>;
const folder = process.env["BITWRIGHT_LOSSLESS_SOURCES"];
const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe.skipIf(folder === undefined)("real models, when BITWRIGHT_LOSSLESS_SOURCES names their directory", () => {
  test.each(Object.entries(models))("%s: every tensor of every unit as the official encoder writes it, and back", async (name, golden) => {
    const source = join(folder!, name);
    expect(existsSync(source), `${source} is there`).toBe(true);
    expect(hash(readFileSync(source)), "it is the file the goldens were made from").toBe(golden.source_sha256);
    const directory = mkdtempSync(join(tmpdir(), "bitwright-lossless-models-"));
    try {
      const [artifact, back] = [join(directory, "artifact"), join(directory, "back")];
      // The official tool skips patterns without a module; here one is an error.
      const patterns = Object.entries(golden.pattern_dict)
        .filter(([pattern]) => Object.keys(golden.units).some((unit) => new RegExp(`^${pattern}$`).test(unit)))
        .map(([pattern, attributes]) => (attributes.length === 0 ? { pattern } : { pattern, attributes }));
      expect(patterns.length).toBeGreaterThan(1);
      await quantize(source, { recipe: { method: ["dfloat11"], patterns }, out: artifact, workers: 2 });
      const checkpoint = await openCheckpoint(join(artifact, "model.safetensors"));
      const found: Record<string, Record<string, { shape: readonly number[]; sha256: string }>> = {};
      for (const [unit, { tensors: parts }] of Object.entries(golden.units)) {
        found[unit] = {};
        for (const suffix of Object.keys(parts)) {
          const { shape, bytes } = await checkpoint.tensors.get(`${unit}.${suffix}`)!.read();
          found[unit][suffix] = { shape, sha256: hash(bytes) };
        }
      }
      await checkpoint.close();
      expect(found).toEqual(Object.fromEntries(Object.entries(golden.units).map(([unit, { tensors: parts }]) => [unit, parts])));
      const { files } = await restore(artifact, { out: back });
      expect(files.map(({ sha256 }) => sha256)).toEqual([golden.source_sha256]);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
