import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { DType } from "../../../core/dtype.ts";
import { encodeBf16, encodeFloat, F16 } from "../../../core/float.ts";
import { createRandom } from "../../../core/random.ts";
import { roundHalfEven } from "../../../core/round.ts";
import { encodePayload } from "../../../formats/encodings/compact/payload.ts";
import { createCompactCoder } from "../../../kernels/compact/coder.ts";
import { encodeSafetensors } from "../../../formats/containers/safetensors/write.ts";
import { quantize } from "../../quantize.ts";
import { restore } from "../restore.ts";
import { tablesHeader } from "./emit.ts";

const hasCompiler = spawnSync("cc", ["--version"]).status === 0;
const KERNELS = join(import.meta.dirname, "../../../kernels/compact");
const FLAGS = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
let work: string;
const random = createRandom(17);

beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "compact-emit-"));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

function weights(dtype: DType, rows: number, cols: number): Uint8Array {
  const columns = Float64Array.from({ length: cols }, () => Math.exp(0.4 * random.normal()));
  const values = Float64Array.from({ length: rows * cols }, (_, i) => 0.03 * random.normal() * columns[i % cols]!);
  // Some far from what their row and column let expect.
  for (let i = 0; i < values.length; i += 501) values[i]! *= 2 ** (random.below(200) - 140);
  if (dtype === "BF16") return new Uint8Array(Uint16Array.from(values, encodeBf16).buffer);
  if (dtype === "F16") return new Uint8Array(Uint16Array.from(values, (x) => encodeFloat(F16, x)).buffer);
  return Uint8Array.from(values, (x) => Math.max(-127, Math.min(127, roundHalfEven(600 * x))) & 0xff);
}

function model(): string {
  const source = join(work, "model");
  const tensors = new Map([
    ['a "quoted"\n.weight', { dtype: "BF16" as const, shape: [300, 256], bytes: weights("BF16", 300, 256) }],
    ["b.weight", { dtype: "BF16" as const, shape: [40], bytes: weights("BF16", 1, 40) }],
  ]);
  execFileSync("mkdir", ["-p", source]);
  writeFileSync(join(source, "model.safetensors"), encodeSafetensors(tensors));
  writeFileSync(join(source, "config.json"), "{}");
  return source;
}

describe.skipIf(!hasCompiler)("C, compiled with every warning an error and the sanitizers on", () => {
  test("the emitted self-test decodes a tensor of the artifact and fails when a byte of it has changed; restore leaves decoders out", async () => {
    const source = model();
    const out = join(work, "out");
    await quantize(source, { recipe: { method: ["dfloat11"], codec: "compact", level: "fast", kernels: ["c"] }, out, workers: 0 });
    const kernels = join(out, "kernels");
    const binary = join(work, "selftest");
    execFileSync("cc", [...FLAGS, "-DCOMPACT_SELFTEST", "compact.c", "-o", binary], { cwd: kernels });
    const run = (): ReturnType<typeof spawnSync> => spawnSync(binary, [out], { encoding: "utf8" });
    expect(run().stderr).toBe("");
    expect(run().stdout).toMatch(/^ok: tensor a /);
    const path = join(out, "model.safetensors.compact");
    const good = readFileSync(path);
    const bad = Buffer.from(good);
    bad[2000]! ^= 4;
    writeFileSync(path, bad);
    expect(run().status).toBe(1);
    writeFileSync(path, good);
    const back = join(work, "back");
    await restore(out, { out: back });
    expect(readdirSync(back).toSorted()).toEqual(["config.json", "model.safetensors"]);
    expect(readFileSync(join(back, "model.safetensors")).equals(readFileSync(join(source, "model.safetensors")))).toBe(true);
  });

  test("decodes every dtype, level and kind of payload, and of 600 damaged ones none to other bytes or out of bounds", () => {
    const coder = createCompactCoder();
    writeFileSync(join(work, "compact_tables.h"), tablesHeader());
    writeFileSync(join(work, "main.c"), HARNESS);
    const binary = join(work, "all");
    execFileSync("cc", [...FLAGS, "-I", work, "-I", KERNELS, join(work, "main.c"), "-o", binary]);
    const parts: Buffer[] = [];
    let cases = 0;
    const add = (dtype: DType, shape: readonly number[], bytes: Uint8Array): void => {
      const kind = ["BF16", "F16"].indexOf(dtype);
      const width = dtype === "I64" ? 8 : kind >= 0 ? 2 : 1;
      for (const level of ["max", "fast"] as const) {
        const payload = Buffer.concat(encodePayload(dtype, shape, bytes, level, coder));
        const facts = Buffer.from(
          Uint32Array.of(kind < 0 ? 2 : kind, width, bytes.length, shape.length > 1 ? shape[0]! : 0, payload.length).buffer,
        );
        parts.push(facts, payload, Buffer.from(bytes));
        cases++;
      }
    };
    for (const dtype of ["BF16", "F16", "I8"] as const) {
      for (const [rows, cols] of [
        [1, 384],
        [33, 129],
        [140, 1023],
        [3, 100001],
        [700, 480],
      ] as const)
        add(dtype, [rows, cols], weights(dtype, rows, cols));
    }
    add("I64", [512], new Uint8Array(BigInt64Array.from({ length: 512 }, (_, i) => BigInt(i) - 5n).buffer));
    add(
      "U8",
      [300, 300],
      Uint8Array.from({ length: 90000 }, () => random.below(256)),
    );
    add("BF16", [0, 5], new Uint8Array(0));
    writeFileSync(join(work, "cases"), Buffer.concat(parts));
    const { stdout, stderr, status } = spawnSync(binary, [join(work, "cases"), "600"], { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(stdout).toMatch(new RegExp(`^${cases} exact, 600 damaged, \\d+ of them refused\\n$`));
    expect(status).toBe(0);
  });
});

test("other languages are refused by name", async () => {
  const options = { recipe: { method: ["dfloat11"], codec: "compact" as const, kernels: ["wgsl"] }, out: join(work, "none"), workers: 0 };
  await expect(quantize(model(), options)).rejects.toMatchObject({ code: "input.option" });
});

/** Reads cases, decodes each, then damages small ones: what a damaged payload decodes to must be the exact bytes, or nothing. */
const HARNESS = `
#include <stdio.h>
#include "compact.c"
static uint32_t state = 1;
static uint32_t next(uint32_t below) { state = state * 1664525u + 1013904223u; return (state >> 8) % below; }
int main(int argc, char **argv) {
  FILE *file = fopen(argv[1], "rb");
  uint32_t facts[5];
  int exact = 0, damaged = 0, refused = 0, wanted = argc > 2 ? atoi(argv[2]) : 0;
  while (fread(facts, 4, 5, file) == 5) {
    compact_shape shape = {(enum compact_kind)facts[0], facts[1], facts[2], facts[3]};
    uint8_t *payload = malloc(facts[4] + 1), *expected = malloc(facts[2] + 1), *out = malloc(facts[2] + 1), *bad;
    int i;
    if (fread(payload, 1, facts[4], file) != facts[4] || fread(expected, 1, facts[2], file) != facts[2]) return 3;
    if (compact_decode(&shape, payload, facts[4], out) != COMPACT_OK || memcmp(out, expected, facts[2]) != 0) return 4;
    exact++;
    for (i = 0; i < 100 && facts[2] < 20000 && damaged < wanted; i++) {
      size_t size = next(4) == 0 ? next(facts[4] + 1) : facts[4];
      int changes = (int)next(4), k;
      bad = malloc(size == 0 ? 1 : size);
      memcpy(bad, payload, size);
      for (k = 0; k <= changes && size > 0; k++) bad[next(3) == 0 && size > 40 ? size - 1 - next(40) : next((uint32_t)size)] = (uint8_t)next(256);
      damaged++;
      if (compact_decode(&shape, bad, size, out) != COMPACT_OK) refused++;
      else if (memcmp(out, expected, facts[2]) != 0) return 5;
      free(bad);
    }
    free(payload);
    free(expected);
    free(out);
  }
  fclose(file);
  printf("%d exact, %d damaged, %d of them refused\\n", exact, damaged, refused);
  return damaged == wanted ? 0 : 6;
}
`;
