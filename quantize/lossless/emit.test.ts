import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { goldenUnits, type GoldenUnit } from "../../tests/support/golden-units.ts";
import { quantize } from "../quantize.ts";
import { checkKernels, emitKernels, type SelfTest } from "./emit.ts";
import { restore } from "./restore.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures/lossless/df11");
const hasCompiler = spawnSync("cc", ["--version"]).status === 0;
const hasCompilerOfCxx = spawnSync("c++", ["--version"]).status === 0;
let work: string;
let out: string;

beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), "emit-"));
  out = join(work, "out");
  await quantize(join(FIXTURES, "llama-slice/source"), {
    recipe: { method: ["dfloat11"], kernels: ["c", "wasm", "wgsl", "cuda"] },
    out,
    workers: 0,
  });
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

/** Damages one byte of the self-test's unit. */
function damaged(run: () => { readonly status: number | null }): number | null {
  const { file, arrays } = JSON.parse(readFileSync(join(out, "kernels/df11_selftest.json"), "utf8")) as {
    file: string;
    arrays: Record<string, [number, number]>;
  };
  const path = join(out, file);
  const good = readFileSync(path);
  const bad = Buffer.from(good);
  bad[arrays["sign_mantissa"]![0] + 5]! ^= 1;
  writeFileSync(path, bad);
  try {
    return run().status;
  } finally {
    writeFileSync(path, good);
  }
}

test("decoders lie in one folder with a README, and restore leaves them out", async () => {
  expect(readdirSync(join(out, "kernels")).toSorted()).toEqual([
    "README.md",
    "df11-unit.mjs",
    "df11-webgpu.mjs",
    "df11.c",
    "df11.cu",
    "df11.mjs",
    "df11.wasm",
    "df11.wgsl",
    "df11_host.h",
    "df11_selftest.h",
    "df11_selftest.json",
    "index.html",
    "page.mjs",
    "restore.mjs",
    "sha256.h",
  ]);
  const back = join(work, "back");
  await restore(out, { out: back });
  expect(readdirSync(back).toSorted()).toEqual(["config.json", "model.safetensors"]);
});

test("the JavaScript module decodes a unit of the artifact, and says so when a byte has changed", () => {
  const run = (): ReturnType<typeof spawnSync> =>
    spawnSync(process.execPath, ["df11.mjs", ".."], { cwd: join(out, "kernels"), encoding: "utf8" });
  expect(run().stdout).toMatch(/^ok: unit /);
  expect(damaged(run)).toBe(1);
});

test("each language brings what it needs and nothing else; the README names its command", async () => {
  const facts: SelfTest = {
    file: "model.safetensors",
    unit: "unit",
    arrays: { luts: [0, 1], encoded_exponent: [1, 1], sign_mantissa: [2, 1], output_positions: [3, 1], gaps: [4, 1] },
    members: [{ name: "unit.weight", elements: 1, sha256: "" }],
  };
  const files = async (...names: readonly string[]): Promise<string[]> => [...(await emitKernels(names, facts)).keys()].toSorted();
  expect(await files("c")).toEqual(["README.md", "df11.c", "df11_host.h", "df11_selftest.h", "sha256.h"].map((name) => `kernels/${name}`));
  expect(await files("cuda")).toEqual(
    ["README.md", "df11.cu", "df11_host.h", "df11_selftest.h", "sha256.h"].map((name) => `kernels/${name}`),
  );
  expect(await files("wgsl")).toEqual(
    ["README.md", "df11-unit.mjs", "df11-webgpu.mjs", "df11.wgsl", "df11_selftest.json"].map((name) => `kernels/${name}`),
  );
  const readme = new TextDecoder().decode((await emitKernels(["c", "wasm", "wgsl", "cuda"], facts)).get("kernels/README.md"));
  for (const command of ["cc -O2", "node df11.mjs ..", "node df11-webgpu.mjs ..", "nvcc -O3"]) expect(readme).toContain(command);
  expect(() => checkKernels(["c", "metal"])).toThrow("--kernels metal: decoders there are: c, wasm, wgsl, cuda");
});

test("the JavaScript module decodes every golden unit", async () => {
  const { createDecoder } = (await import(pathToFileURL(join(out, "kernels/df11.mjs")).href)) as {
    createDecoder: (wasm: Uint8Array) => Promise<(unit: GoldenUnit) => Uint16Array>;
  };
  const decode = await createDecoder(readFileSync(join(out, "kernels/df11.wasm")));
  const units = goldenUnits();
  expect(units.length).toBe(24);
  for (const unit of units) expect(Buffer.compare(Buffer.from(decode(unit).buffer), unit.expected), unit.name).toBe(0);
});

describe.skipIf(!hasCompiler)("C, compiled with every warning an error and the sanitizers on", () => {
  const FLAGS = [
    "-std=c99",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pedantic",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
  ];

  test("the self-test decodes a unit, and fails when a byte has changed", () => {
    const binary = join(work, "selftest");
    execFileSync("cc", [...FLAGS, "-DDF11_SELFTEST", "df11.c", "-o", binary], { cwd: join(out, "kernels") });
    const run = (): ReturnType<typeof spawnSync> => spawnSync(binary, [out], { encoding: "utf8" });
    const { stdout, stderr } = run();
    expect(stderr).toBe("");
    expect(stdout).toMatch(/^ok: unit /);
    expect(damaged(run)).toBe(1);
  });

  test("damaged units give an error or other weights, never an access outside the arrays", () => {
    const harness = join(work, "harness.c");
    writeFileSync(harness, HARNESS);
    const binary = join(work, "harness");
    execFileSync("cc", [...FLAGS, "-I", join(out, "kernels"), harness, "-o", binary]);
    const { file, arrays } = JSON.parse(readFileSync(join(out, "kernels/df11_selftest.json"), "utf8")) as {
      file: string;
      arrays: Record<string, [number, number]>;
    };
    const ranges = ["luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps"].flatMap((name) => arrays[name]!.map(String));
    const { status, stdout, stderr } = spawnSync(binary, [join(out, file), ...ranges], { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout).toMatch(/^3000 cases, [1-9]\d* refused\n$/);
  });
});

describe.skipIf(!hasCompilerOfCxx)("CUDA, its steps run by the CPU under the sanitizers", () => {
  const FLAGS = [
    "-x",
    "c++",
    "-std=c++11",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
  ];

  test("the self-test decodes a unit, and fails when a byte has changed", () => {
    const binary = join(work, "selftest-cuda");
    execFileSync("c++", [...FLAGS, "df11.cu", "-o", binary], { cwd: join(out, "kernels") });
    const run = (): ReturnType<typeof spawnSync> => spawnSync(binary, [out], { encoding: "utf8" });
    const { stdout, stderr } = run();
    expect(stderr).toBe("");
    expect(stdout).toMatch(/^ok: unit /);
    expect(damaged(run)).toBe(1);
  });
});

/** Flips bits of a unit's arrays and cuts them short, 3,000 times, each array in memory of exactly its size. */
const HARNESS = `
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "df11.c"

static unsigned long long state = 88172645463325252ULL;
static size_t below(size_t n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return n == 0 ? 0 : (size_t)(state % n);
}

int main(int argc, char **argv) {
  FILE *file = fopen(argv[1], "rb");
  uint8_t *good[5];
  size_t size[5], i;
  int refused = 0, round;
  if (argc != 12 || file == NULL) return 2;
  for (i = 0; i < 5; i++) {
    size[i] = (size_t)strtoull(argv[3 + 2 * i], NULL, 10);
    good[i] = malloc(size[i]);
    if (good[i] == NULL || fseek(file, strtol(argv[2 + 2 * i], NULL, 10), SEEK_SET) != 0 || fread(good[i], 1, size[i], file) != size[i]) return 2;
  }
  fclose(file);
  for (round = 0; round < 3000; round++) {
    uint8_t *bad[5];
    size_t length[5], flips = 1 + below(4);
    df11_unit unit;
    uint16_t *out;
    memcpy(length, size, sizeof size);
    if (below(4) == 0) length[below(5)] -= 1 + below(3);
    for (i = 0; i < 5; i++) {
      bad[i] = malloc(length[i]);
      if (bad[i] == NULL) return 2;
      memcpy(bad[i], good[i], length[i]);
    }
    for (; flips > 0; flips--) {
      size_t which = below(5);
      bad[which][below(length[which])] ^= (uint8_t)(1u << below(8));
    }
    unit.luts = bad[0];
    unit.luts_bytes = length[0];
    unit.encoded_exponent = bad[1];
    unit.encoded_bytes = length[1];
    unit.sign_mantissa = bad[2];
    unit.elements = length[2];
    unit.output_positions = bad[3];
    unit.positions_bytes = length[3];
    unit.gaps = bad[4];
    unit.gaps_bytes = length[4];
    out = malloc(2 * length[2]);
    if (out == NULL) return 2;
    if (df11_decode(&unit, out) != DF11_OK) refused++;
    free(out);
    for (i = 0; i < 5; i++) free(bad[i]);
  }
  for (i = 0; i < 5; i++) free(good[i]);
  printf("3000 cases, %d refused\\n", refused);
  return 0;
}
`;
