import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FormatError } from "../../core/errors.ts";
import { encodeBf16 } from "../../core/float.ts";
import { createRandom } from "../../core/random.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { encodeSafetensors } from "../../formats/containers/safetensors/write.ts";
import { quantize } from "../quantize.ts";
import type { Recipe } from "../types.ts";
import { verifyArtifact } from "../verify.ts";
import { restore } from "./restore.ts";

const LARGE = "lm_head.weight";
const RECIPES: Readonly<Record<string, Recipe>> = {
  df11: { method: ["dfloat11"] },
  compact: { method: ["dfloat11"], codec: "compact", level: "fast" },
};
let work: string;
let source: string;
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "lossless-large-"));
  source = join(work, "model.safetensors");
  const random = createRandom(11);
  const rows = Array.from({ length: 64 }, () => Uint16Array.from({ length: 2048 }, () => encodeBf16(0.02 * random.normal())));
  // Over 16 MiB and most of the file; each row begins elsewhere in one of the others.
  const large = new Uint16Array(5000 * 2048);
  for (let r = 0; r < 5000; r++) {
    const row = rows[r % 64]!;
    large.set(row.subarray(r % 2048), 2048 * r);
    large.set(row.subarray(0, r % 2048), 2048 * (r + 1) - (r % 2048));
  }
  const small = new Uint8Array(rows[0]!.buffer.slice(0));
  const tensors = new Map([
    [LARGE, { dtype: "BF16" as const, shape: [5000, 2048], bytes: new Uint8Array(large.buffer) }],
    ["model.layers.0.mlp.up_proj.weight", { dtype: "BF16" as const, shape: [8, 256], bytes: small }],
  ]);
  writeFileSync(source, encodeSafetensors(tensors));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

const hashOf = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

test.each(Object.keys(RECIPES))(
  "%s: a tensor that is most of a file is decoded by all workers, to the same bytes; damage is named",
  async (name) => {
    const artifact = join(work, name);
    const { verified } = await quantize(source, { recipe: RECIPES[name]!, out: artifact, workers: 2 });
    expect(verified.problems).toEqual([]);
    expect((await verifyArtifact(artifact, { source, workers: 2 })).problems).toEqual([]);
    for (const workers of [1, 2]) {
      const out = join(work, `${name}-${workers}`);
      const { files } = await restore(artifact, { out, workers });
      expect(hashOf(join(out, "model.safetensors"))).toBe(hashOf(source));
      expect(files[0]!.sha256).toBe(hashOf(source));
    }
    const stored = join(artifact, name === "df11" ? "model.safetensors" : "model.safetensors.compact");
    const bytes = readFileSync(stored);
    // Mantissas: most flipped bits decode.
    bytes[(await mantissaAt(stored)) ?? Math.floor(bytes.length / 2)]! ^= 4;
    writeFileSync(stored, bytes);
    const { problems } = await verifyArtifact(artifact, { workers: 2 });
    expect(problems.map(({ tensor }) => tensor)).toEqual([name === "df11" ? "lm_head" : LARGE]);
    const out = join(work, `${name}-damaged`);
    await expect(restore(artifact, { out, workers: 2 })).rejects.toThrow(FormatError);
    expect(() => statSync(out)).toThrow("ENOENT");
  },
);

/** Of a DFloat11 file: a byte in the middle of the large unit's mantissas. */
async function mantissaAt(path: string): Promise<number | undefined> {
  if (path.endsWith(".compact")) return undefined;
  const file = await openFileSource(path);
  try {
    const { location, byteLength } = (await openSafetensors(file)).tensors.get("lm_head.sign_mantissa")!;
    return location!.offset + Math.floor(byteLength / 2);
  } finally {
    await file.close();
  }
}
