import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { bfp, NVFP4, parseBlockFormat, type BlockFormat } from "../../core/blocks/format.ts";
import { dequantizeBlocks, encodeScales, quantizeBlocks } from "../../core/blocks/quantize.ts";
import { createRandom } from "../../core/random.ts";
import { SCALE_RULES, type ScaleRule } from "../../core/scheme.ts";
import { packElements } from "../../formats/encodings/blocks.ts";
import { blockBits } from "../../kernels/blocks/blocks.ts";
import { gemmBlocks, gemmInt8 } from "../../kernels/gemm-int8/gemm-int8.ts";
import { blockSelfTest, checkBlockKernels, emitBlockKernels } from "./emit.ts";

const hasCompiler = spawnSync("cc", ["--version"]).status === 0;
const FLAGS = [
  "-std=c99",
  "-O1",
  "-ffp-contract=off",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-fsanitize=address,undefined",
  "-fno-sanitize-recover=all",
];
const FORMATS: readonly BlockFormat[] = [
  ...["mxint8", "mxfp8-e4m3", "mxfp8-e5m2", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4"].map((name) => parseBlockFormat(name)!),
  NVFP4,
  ...[2, 4, 5, 8, 11, 16].map((bits) => bfp(bits)),
  bfp(8, 7),
];
const folder = mkdtempSync(join(tmpdir(), "bitwright-emit-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const random = createRandom(12);
/** Ordinary values, zeros, ties, and blocks at both ends of f32. */
function values(count: number): Float32Array {
  let magnitude = 1;
  return Float32Array.from({ length: count }, (_, i) => {
    if (i % 16 === 0) magnitude = [1, 1, 2 ** -30, 2 ** -126, 2 ** -140, 2 ** 125, 0][random.below(7)]!;
    const x = random.below(3) === 0 ? (random.below(33) - 16) / 8 : random.normal();
    return Math.max(-3.4e38, Math.min(3.4e38, Math.fround(x * magnitude)));
  });
}

function artifact(format: BlockFormat): { directory: string; codes: Uint8Array; write: (names: string[]) => Promise<void> } {
  const [rows, cols] = [7, 75];
  const quantized = quantizeBlocks(
    values(rows * cols).map((x) => Math.max(-1e15, Math.min(1e15, x))),
    rows,
    cols,
    format,
  );
  const codes = packElements(quantized.codes.data, rows, cols, blockBits(format));
  const scales = encodeScales(format, quantized.scales);
  const divisor = quantized.globalScale === undefined ? new Uint8Array(0) : new Uint8Array(Float32Array.of(quantized.globalScale).buffer);
  const directory = mkdtempSync(join(folder, "artifact-"));
  writeFileSync(join(directory, "model.safetensors"), Buffer.concat([Buffer.from("head"), codes, scales, divisor]));
  const at = 4 + codes.length;
  const facts = blockSelfTest(quantized, {
    module: 'layer "0"',
    arrays: {
      codes: { file: "model.safetensors", offset: 4, length: codes.length },
      scales: { file: "model.safetensors", offset: at, length: scales.length },
      ...(divisor.length === 0 ? {} : { divisor: { file: "model.safetensors", offset: at + scales.length, length: 4 } }),
    },
  });
  return {
    directory,
    codes,
    async write(names) {
      mkdirSync(join(directory, "kernels"), { recursive: true });
      for (const [name, content] of await emitBlockKernels(names, facts)) writeFileSync(join(directory, name), content);
    },
  };
}

function damage(directory: string): void {
  const path = join(directory, "model.safetensors");
  const bytes = readFileSync(path);
  bytes[4 + 20]! ^= 1;
  writeFileSync(path, bytes);
}

describe("the emitted self-tests read a packed tensor, and say so when a byte has changed", () => {
  test.each(FORMATS)("WASM: $name, blocks of $block", async (format) => {
    const { directory, write } = artifact(format);
    await write(["wasm"]);
    const run = () => spawnSync(process.execPath, ["blocks.mjs", ".."], { cwd: join(directory, "kernels"), encoding: "utf8" });
    expect(run()).toMatchObject({ status: 0, stdout: expect.stringMatching(/^ok: layer "0", /) as string });
    damage(directory);
    expect(run()).toMatchObject({ status: 1, stdout: expect.stringContaining("sha256 is") as string });
  });

  test.skipIf(!hasCompiler)("C, with every warning an error and sanitizers on: BFP12, MXFP6, NVFP4", async () => {
    for (const format of [bfp(4), parseBlockFormat("mxfp6")!, NVFP4]) {
      const { directory, write } = artifact(format);
      await write(["c"]);
      const cwd = join(directory, "kernels");
      execFileSync("cc", [...FLAGS, "-DBW_SELFTEST", "blocks.c", "-o", "selftest"], { cwd });
      const run = () => spawnSync("./selftest", [".."], { cwd, encoding: "utf8" });
      expect(run()).toMatchObject({ status: 0, stdout: expect.stringMatching(/^ok: layer "0", /) as string });
      damage(directory);
      expect(run()).toMatchObject({ status: 1, stdout: expect.stringContaining("sha256 is") as string });
    }
  });
});

/** Reads cases from stdin: name, block, rule, rows, cols, divisor, values; writes codes, scales, values and products of row 0 with each row. */
const DRIVER = `
#include "blocks.c"
#include <stdio.h>
#include <stdlib.h>
static void get(void *p, size_t n) { if (fread(p, 1, n, stdin) != n) exit(3); }
int main(void) {
  char name[16];
  while (fread(name, 1, 16, stdin) == 16) {
    int32_t head[4];
    float divisor;
    bw_format f;
    size_t rows, cols, r, nb, ns;
    get(head, sizeof head);
    get(&divisor, 4);
    if (bw_format_named(&f, name, (size_t)head[0], head[1], divisor)) return 4;
    rows = (size_t)head[2]; cols = (size_t)head[3];
    nb = bw_row_bytes(&f, cols); ns = bw_row_blocks(&f, cols);
    {
      float *x = malloc(rows * cols * 4), *y = malloc(rows * cols * 4), *p = malloc(rows * 4);
      uint8_t *c = malloc(rows * nb), *s = malloc(rows * ns);
      if (!x || !y || !p || !c || !s) return 5;
      get(x, rows * cols * 4);
      for (r = 0; r < rows; r++) {
        bw_quantize_row(&f, x + r * cols, cols, c + r * nb, s + r * ns);
        bw_dequantize_row(&f, c + r * nb, s + r * ns, cols, y + r * cols);
        p[r] = bw_dot_rows(&f, c, s, c + r * nb, s + r * ns, cols);
      }
      fwrite(c, 1, rows * nb, stdout); fwrite(s, 1, rows * ns, stdout);
      fwrite(y, 4, rows * cols, stdout); fwrite(p, 4, rows, stdout);
      free(x); free(y); free(p); free(c); free(s);
    }
  }
  {
    int8_t a[6] = {1, 2, -3, 127, -128, 0}, b[3] = {4, 5, 6};
    int32_t c[2];
    bw_gemm_int8(a, b, 2, 1, 3, c);
    fwrite(c, 4, 2, stdout);
  }
  return 0;
}
`;

test.skipIf(!hasCompiler)("the C twin gives codes, scales, values and products of the definition, for every format and rule", () => {
  const directory = mkdtempSync(join(folder, "twin-"));
  writeFileSync(join(directory, "driver.c"), DRIVER);
  execFileSync("cc", [...FLAGS, `-I${join(import.meta.dirname, "../../kernels/blocks")}`, "driver.c", "-o", "driver"], { cwd: directory });
  const cases: { format: BlockFormat; rule: ScaleRule; rows: number; cols: number; x: Float32Array }[] = [];
  for (const format of FORMATS) {
    for (const rule of SCALE_RULES)
      for (const [rows, cols] of [
        [3, 75],
        [2, 32],
        [1, 1],
      ] as const)
        cases.push({ format, rule, rows, cols, x: values(rows * cols) });
  }
  const ORDER: readonly ScaleRule[] = ["floor", "even", "ceil", "rceil", "mse"];
  const input = cases.flatMap(({ format, rule, rows, cols, x }) => [
    Buffer.from(format.name.padEnd(16, "\0")),
    Buffer.from(Int32Array.of(format.block, ORDER.indexOf(rule), rows, cols).buffer),
    Buffer.from(Float32Array.of(1.7).buffer),
    Buffer.from(x.buffer),
  ]);
  const output = execFileSync("./driver", { cwd: directory, input: Buffer.concat(input), maxBuffer: 1e8 });
  let at = 0;
  const next = (length: number): Uint8Array => new Uint8Array(output.subarray(at, (at += length)));
  for (const { format, rule, rows, cols, x } of cases) {
    const expected = quantizeBlocks(x, rows, cols, format, { rule, ...(format === NVFP4 ? { globalScale: 1.7 } : {}) });
    const codes = packElements(expected.codes.data, rows, cols, blockBits(format));
    const scales = encodeScales(format, expected.scales);
    const label = `${format.name} ${format.block} ${rule} ${rows}x${cols}`;
    expect([label, next(codes.length)]).toEqual([label, codes]);
    expect([label, next(scales.length)]).toEqual([label, scales]);
    expect([label, new Float32Array(next(rows * cols * 4).buffer)]).toEqual([label, dequantizeBlocks(expected)]);
    const first = quantizeBlocks(x.subarray(0, cols), 1, cols, format, { rule, ...(format === NVFP4 ? { globalScale: 1.7 } : {}) });
    expect([label, new Float32Array(next(rows * 4).buffer)]).toEqual([label, gemmBlocks(first, expected)]);
  }
  const product = gemmInt8(Int8Array.of(1, 2, -3, 127, -128, 0), Int8Array.of(4, 5, 6), { m: 2, n: 1, k: 3 });
  expect(new Int32Array(next(8).buffer)).toEqual(product);
  expect(at).toBe(output.length);
});

test("a language without kernels is refused with those there are", () => {
  expect(() => checkBlockKernels(["c", "fortran"])).toThrow(
    expect.objectContaining({ code: "input.option", details: { option: "kernels", given: "fortran", known: ["c", "wasm"] } }),
  );
});
