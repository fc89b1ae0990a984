import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { goldenUnits } from "../../tests/support/golden-units.ts";

const hasCompiler = spawnSync("c++", ["--version"]).status === 0;
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
let work: string;

beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "df11-cuda-"));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

test.skipIf(!hasCompiler)(
  "CUDA, its steps run by the CPU under the sanitizers: every golden unit decodes, with and without the staging buffer; damaged ones never leave the arrays",
  () => {
    const folder = join(work, "golden");
    mkdirSync(folder);
    const units = goldenUnits();
    units.forEach((unit, i) => {
      const arrays = [unit.luts, unit.encodedExponent, unit.signMantissa, unit.outputPositions, unit.gaps, unit.expected];
      writeFileSync(
        join(folder, String(i)),
        Buffer.concat([Buffer.from(Uint32Array.from(arrays, ({ length }) => length).buffer), ...arrays]),
      );
    });
    const harness = join(work, "harness.cu");
    writeFileSync(harness, CUDA_HARNESS);
    const binary = join(work, "harness-cuda");
    execFileSync("c++", [...FLAGS, "-I", import.meta.dirname, harness, "-o", binary]);
    const paths = units.map((_, i) => join(folder, String(i)));
    const { status, stdout, stderr } = spawnSync(binary, paths, { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout).toMatch(/^24 units, 720 damaged, [1-9]\d* flagged\n$/);
  },
);

/** Decodes units from files of six sizes and six arrays, the last of them the weights, then 30 damaged copies of each. */
const CUDA_HARNESS = `
#define DF11_NO_MAIN
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "df11.cu"

typedef std::vector<uint8_t> bytes;
static unsigned long long state = 88172645463325252ULL;
static size_t below(size_t n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (size_t)(state % n);
}

static uint32_t decode(bytes *arrays, std::vector<uint16_t> &out, uint32_t staged) {
  uint32_t status = 0, blocks = (uint32_t)(arrays[4].size() / 320);
  std::vector<uint32_t> positions(blocks + 1);
  memcpy(positions.data(), arrays[3].data(), arrays[3].size());
  if (staged) staged = df11_staged_elements(positions.data(), blocks);
  df11_gpu_unit unit = {arrays[0].data(), arrays[1].data(), arrays[2].data(), positions.data(), arrays[4].data(), out.data(), &status,
                        (uint32_t)(arrays[0].size() / 256), (uint32_t)arrays[1].size(), (uint32_t)arrays[2].size()};
  df11_decode_on_cpu(unit, blocks, staged);
  return status;
}

int main(int argc, char **argv) {
  int flagged = 0, damaged = 0;
  for (int i = 1; i < argc; i++) {
    uint32_t sizes[6];
    bytes arrays[6];
    FILE *file = fopen(argv[i], "rb");
    if (file == NULL || fread(sizes, 4, 6, file) != 6) return 2;
    for (int a = 0; a < 6; a++) {
      arrays[a].resize(sizes[a]);
      if (fread(arrays[a].data(), 1, sizes[a], file) != sizes[a]) return 2;
    }
    fclose(file);
    for (uint32_t staged = 0; staged < 2; staged++) {
      std::vector<uint16_t> out(sizes[2]);
      uint32_t status = decode(arrays, out, staged);
      if (status != 0 || memcmp(out.data(), arrays[5].data(), sizes[5]) != 0) {
        printf("unit %d: status %u or other weights\\n", i - 1, status);
        return 1;
      }
    }
    for (int round = 0; round < 30; round++, damaged++) {
      bytes bad[6];
      for (int a = 0; a < 6; a++) bad[a] = arrays[a];
      for (size_t flips = 1 + below(4); flips > 0; flips--) {
        size_t which = below(5);
        bad[which][below(bad[which].size())] ^= (uint8_t)(1u << below(8));
      }
      std::vector<uint16_t> out(sizes[2]);
      if (decode(bad, out, (uint32_t)below(2)) != 0) flagged++;
    }
  }
  printf("%d units, %d damaged, %d flagged\\n", argc - 1, damaged, flagged);
  return 0;
}
`;
