import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { VerifyError } from "../../core/errors.ts";
import { createRandom } from "../../core/random.ts";
import { createWorkspace } from "../../kernels/load-wasm.ts";
import type { JobContext } from "../../kernels/pool.ts";
import type { HeldSurvey } from "./codec.ts";
import { run, type Place, type UnitRef } from "./job.ts";

let work: string;
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "lossless-job-"));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

const context: JobContext = { workspace: createWorkspace(), breathe: async () => {}, progress: () => undefined };
const ELEMENTS = 50_000;

/** A unit of one tensor in a file of its own, and what the codec says to it. */
async function unit(): Promise<{ unit: UnitRef; survey: HeldSurvey }> {
  const random = createRandom(3);
  const patterns = Uint16Array.from({ length: ELEMENTS }, () => ((110 + random.below(12)) << 7) | random.below(128));
  const path = join(work, "source");
  writeFileSync(path, patterns);
  const range = { name: "m.weight", dtype: "BF16" as const, shape: [100, ELEMENTS / 100], path, offset: 0, byteLength: 2 * ELEMENTS };
  const ref: UnitRef = { name: "m", tensors: [range] };
  const { survey } = await run({ kind: "survey", codec: "df11", unit: ref }, context);
  if (survey === undefined || "refusal" in survey) throw new Error("not held");
  return { unit: ref, survey };
}

/** Every stored tensor in a file of its own. */
function placesOf(survey: HeldSurvey): Map<string, Place> {
  return new Map(
    survey.stored.map(({ name, shape }) => {
      const path = join(work, name);
      writeFileSync(path, "");
      truncateSync(path, shape.reduce((product, size) => product * size, 1) + 64);
      return [name, { path, offset: 0 }];
    }),
  );
}

test("a unit is decoded from the files it was written to: bytes that another write has changed are found before it counts as written", async () => {
  const { unit: ref, survey } = await unit();
  const places = placesOf(survey);
  const task = { kind: "encode", codec: "df11", unit: ref, survey, places } as const;
  expect(Object.keys((await run(task, context)).hashes!)).toEqual(["m.weight"]);
  // Two tensors at one place: what is written later lands in what was written before.
  for (const [later, earlier] of [
    ["m.gaps", "m.sign_mantissa"],
    ["m.gaps", "m.encoded_exponent"],
    ["m.luts", "m.encoded_exponent"],
  ] as const) {
    const clash = new Map(places).set(later, { path: places.get(earlier)!.path, offset: 8 });
    await expect(run({ ...task, places: clash }, context), `${later} over ${earlier}`).rejects.toThrow(VerifyError);
  }
});
