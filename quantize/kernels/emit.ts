/**
 * `--kernels c,wasm` for block formats: dequantization and dot products on the packed bytes, beside an artifact, with a self-test on
 * one of its tensors.
 *
 * The files are those of `kernels/`, copied as they are; only the self-test's facts are written here, and the WASM modules get
 * a memory that needs no threads.
 * @module
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { requireBlockFormat } from "../../core/blocks/format.ts";
import { dequantizeBlocks } from "../../core/blocks/quantize.ts";
import { InputError } from "../../core/errors.ts";
import type { QuantizedTensor } from "../../core/quantized.ts";
import { wasm as blocksWasm } from "../../kernels/generated/blocks.wasm.ts";
import { wasm as gemmWasm } from "../../kernels/generated/gemm-int8.wasm.ts";
import { gemmBlocks } from "../../kernels/gemm-int8/gemm-int8.ts";
import { privateMemory } from "../../kernels/private-memory.ts";
import { cString } from "../c-string.ts";

/** Folder in the artifact. */
const FOLDER = "kernels/";
/** Languages there are kernels in. */
export const BLOCK_KERNELS: readonly string[] = ["c", "wasm"];

/** Bytes of the artifact. */
export interface Place {
  /** File name relative to the artifact. */
  readonly file: string;
  readonly offset: number;
  readonly length: number;
}

/** Where the self-test's tensor lies and what it must give. */
export interface BlockSelfTest {
  readonly module: string;
  /** As `BlockFormat.name`. */
  readonly format: string;
  readonly block: number;
  readonly rows: number;
  readonly cols: number;
  /** `divisor` for NVFP4. */
  readonly arrays: { readonly codes: Place; readonly scales: Place; readonly divisor?: Place };
  /** SHA-256 of the f32 values [rows, cols], and of the f32 products of row 0 with every row; little-endian. */
  readonly values: string;
  readonly products: string;
}

/**
 * Facts of a self-test from a tensor as it was read back from the artifact.
 *
 * @throws {UnsupportedError} `unsupported.scheme` when it is in no block format.
 */
export function blockSelfTest(quantized: QuantizedTensor, { module, arrays }: Pick<BlockSelfTest, "module" | "arrays">): BlockSelfTest {
  const format = requireBlockFormat(quantized.scheme);
  const [rows, cols] = [quantized.shape[0]!, quantized.shape[1]!];
  const perRow = Math.ceil(cols / format.block);
  const first: QuantizedTensor = {
    ...quantized,
    shape: [1, cols],
    codes: { ...quantized.codes, data: quantized.codes.data.slice(0, cols) } as QuantizedTensor["codes"],
    scales: quantized.scales.slice(0, perRow),
  };
  return {
    module,
    format: format.name,
    block: format.block,
    rows,
    cols,
    arrays,
    values: sha256(dequantizeBlocks(quantized)),
    products: sha256(gemmBlocks(first, quantized)),
  };
}

function sha256({ buffer, byteOffset, byteLength }: Float32Array): string {
  return createHash("sha256")
    .update(new Uint8Array(buffer, byteOffset, byteLength))
    .digest("hex");
}

/** @throws {InputError} `input.option` for a language there are no kernels in. */
export function checkBlockKernels(names: readonly string[]): void {
  const unknown = names.find((name) => !BLOCK_KERNELS.includes(name));
  if (unknown === undefined) return;
  throw new InputError("input.option", `--kernels ${unknown}: block formats have kernels in ${BLOCK_KERNELS.join(", ")}`, {
    option: "kernels",
    given: unknown,
    known: BLOCK_KERNELS,
  });
}

/** Files to put into the artifact, by relative name. @throws {InputError} `input.option`. */
export async function emitBlockKernels(names: readonly string[], test: BlockSelfTest): Promise<ReadonlyMap<string, Uint8Array>> {
  checkBlockKernels(names);
  const files = new Map<string, Uint8Array>();
  const text = (name: string, content: string): void => void files.set(FOLDER + name, new TextEncoder().encode(content));
  const copy = async (name: string): Promise<void> => {
    files.set(FOLDER + basename(name), new Uint8Array(await readFile(new URL(`../../kernels/blocks/${name}`, import.meta.url))));
  };
  if (names.includes("c")) {
    await copy("blocks.c");
    await copy("../sha256.h");
    text("blocks_selftest.h", headerText(test));
  }
  if (names.includes("wasm")) {
    await copy("blocks.mjs");
    files.set(`${FOLDER}blocks.wasm`, privateMemory(Buffer.from(blocksWasm, "base64")));
    files.set(`${FOLDER}gemm-int8.wasm`, privateMemory(Buffer.from(gemmWasm, "base64")));
    text("blocks_selftest.json", `${JSON.stringify(test, undefined, 2)}\n`);
  }
  text("README.md", readmeText(names, test));
  return files;
}

function headerText({ module, format, block, rows, cols, arrays, values, products }: BlockSelfTest): string {
  const place = ({ file, offset, length }: Place): string => `{${cString(file)}, ${offset}LL, ${length}LL}`;
  return [
    "/* What the self-test of blocks.c reads and expects. */",
    `#define BW_TEST_MODULE ${cString(module)}`,
    `#define BW_TEST_FORMAT ${cString(format)}`,
    `#define BW_TEST_BLOCK ${block}`,
    `#define BW_TEST_ROWS ${rows}`,
    `#define BW_TEST_COLS ${cols}`,
    `#define BW_TEST_CODES ${place(arrays.codes)}`,
    `#define BW_TEST_SCALES ${place(arrays.scales)}`,
    `#define BW_TEST_DIVISOR ${place(arrays.divisor ?? { file: "", offset: 0, length: 0 })}`,
    `#define BW_TEST_VALUES ${cString(values)}`,
    `#define BW_TEST_PRODUCTS ${cString(products)}`,
    "",
  ].join("\n");
}

function readmeText(names: readonly string[], { module, format, block }: BlockSelfTest): string {
  const usages = [
    ...(names.includes("c")
      ? ["C99, no dependencies:\n\n    cc -std=c99 -O2 -ffp-contract=off -DBW_SELFTEST blocks.c -o selftest && ./selftest .."]
      : []),
    ...(names.includes("wasm") ? ["WASM SIMD with a small JavaScript module, for Node 20 and browsers:\n\n    node blocks.mjs .."] : []),
  ];
  return `# Kernels

Dequantization and dot products on the packed bytes beside this folder: rows of codes as little-endian bit streams, one scale byte a block.
In C also quantization.

Each self-test reads \`${module}\` (${format}, blocks of ${block}) from the artifact and compares the SHA-256 of its f32 values, and of the products of
its first row with every row.

${usages.join("\n\n")}
`;
}
