/**
 * `--kernels c,wasm` beside a compact artifact: decoders of `kernels/compact/`, the constants of the format, and a self-test on a tensor of the artifact.
 * @module
 */
import { readFile } from "node:fs/promises";
import { DTYPES } from "../../../core/dtype.ts";
import { InputError } from "../../../core/errors.ts";
import type { LazyTensor } from "../../../core/tensor.ts";
import type { CompactFile, StoredTensor } from "../../../formats/containers/compact/read.ts";
import { FREQUENCIES, LENGTHS } from "../../../formats/encodings/compact/frequencies.ts";
import { wasm } from "../../../kernels/generated/compact.wasm.ts";
import { privateMemory } from "../../../kernels/private-memory.ts";
import { cString } from "../../c-string.ts";

const KERNELS_FOLDER = "kernels/";
/** Self-tests prefer tensors of this many bytes and more: smaller ones have one stream and no columns. */
const ENOUGH_BYTES = 65536;

type NamedFile = readonly [name: string, content: Uint8Array];

interface Language {
  readonly files: (test: TestTensor) => Promise<readonly NamedFile[]>;
  /** How to build and run the self-test. */
  readonly usage: string;
}

const source = async (...names: readonly string[]): Promise<NamedFile[]> =>
  Promise.all(
    names.map(
      async (name) =>
        [name.split("/").pop()!, new Uint8Array(await readFile(new URL(`../../../kernels/compact/${name}`, import.meta.url)))] as const,
    ),
  );
const text = (content: string): Uint8Array => new TextEncoder().encode(content);

/** A page that decodes the artifact beside it, or files dropped on it. */
const PAGE = ["../df11/browser/index.html", "../df11/browser/page.mjs", "browser/restore.mjs"];

/** To add one: its files in `kernels/compact/` and an entry here. */
const LANGUAGES: ReadonlyMap<string, Language> = new Map([
  [
    "c",
    {
      files: async (test) => [
        ...(await source("compact.c", "compact_block.h", "compact_codes.h", "compact_host.h", "../sha256.h")),
        ["compact_selftest.h", text(testHeader(test))],
        ["compact_tables.h", text(tablesHeader())],
      ],
      usage: `C99, no dependencies. \`compact_decode\` in \`compact.c\` gives the bytes of one tensor from its payload; where payloads lie, and dtypes and
shapes, is in the directory at the end of a file (deflated).

    cc -O2 -DCOMPACT_SELFTEST compact.c -o selftest && ./selftest ..`,
    },
  ],
  [
    "wasm",
    {
      files: async (test) => [
        ...(await source("compact.mjs", "compact-block.mjs", "compact-tail.mjs", ...PAGE)),
        ["compact-tables.mjs", text(tablesModule())],
        ["compact.wasm", privateMemory(Buffer.from(wasm, "base64"))],
        ["compact_selftest.json", text(testJson(test))],
      ],
      usage: `WASM SIMD with a small JavaScript module, for Node 20 and browsers; a page needs no special headers. \`openCompact\` in \`compact.mjs\` lists the
tensors of a file and decodes each by its name:

    node compact.mjs ..

  \`index.html\` decodes the artifact, or files dropped on it, in a browser, shows SHA-256 and gives source files back. Any static server
  of the artifact's folder will do, on localhost or with https:

    npx http-server ..        # then open http://localhost:8080/kernels/`,
    },
  ],
]);

/** @throws {InputError} `input.option` for a language there is no decoder of compact artifacts in. */
export function checkCompactKernels(names: readonly string[]): void {
  const unknown = names.find((name) => !LANGUAGES.has(name));
  if (unknown === undefined) return;
  const known = [...LANGUAGES.keys()];
  throw new InputError("input.option", `--kernels ${unknown}: decoders of compact artifacts there are: ${known.join(", ")}`, {
    option: "kernels",
    given: unknown,
    known,
  });
}

/**
 * Files to put into the artifact, by relative name.
 *
 * @param names - languages.
 * @param name - of the compact file that the self-tests read, relative to the artifact.
 */
export async function emitCompactKernels(
  names: readonly string[],
  name: string,
  file: CompactFile,
): Promise<ReadonlyMap<string, Uint8Array>> {
  checkCompactKernels(names);
  const chosen = [...LANGUAGES].filter(([language]) => names.includes(language));
  const test = await chooseTensor(name, file);
  const files: NamedFile[] = [["README.md", text(readmeText(chosen.map(([, { usage }]) => usage)))]];
  for (const [, language] of chosen) files.push(...(await language.files(test)));
  return new Map(files.map(([part, bytes]) => [KERNELS_FOLDER + part, bytes]));
}

/** The constants of `frequencies.ts` in JavaScript. */
function tablesModule(): string {
  const array = (name: string, rows: readonly (readonly number[])[]): string =>
    `export const ${name} = [\n${rows.map((row) => `  [${row.join(", ")}],`).join("\n")}\n];`;
  return [
    "// Constants of the compact format: by table and symbol, frequencies in 4096ths and bits of the Huffman codes.",
    array("FREQUENCIES", FREQUENCIES),
    array("LENGTHS", LENGTHS),
    "",
  ].join("\n");
}

/** The constants of `frequencies.ts` in C. */
export function tablesHeader(): string {
  const array = (type: string, name: string, rows: readonly (readonly number[])[]): string =>
    `static const ${type} ${name}[4][58] = {\n${rows.map((row) => `    {${row.join(", ")}},`).join("\n")}\n};`;
  return [
    "/* Constants of the compact format: by table and symbol, frequencies in 4096ths and bits of the Huffman codes. */",
    array("uint16_t", "compact_frequencies", FREQUENCIES),
    array("uint8_t", "compact_lengths", LENGTHS),
    "",
  ].join("\n");
}

const KINDS = new Map<string, string>([
  ["BF16", "COMPACT_BF16"],
  ["F16", "COMPACT_F16"],
]);

/** What the self-tests read and expect. */
interface TestTensor {
  /** File name relative to the artifact. */
  readonly file: string;
  readonly tensor: LazyTensor;
  readonly stored: StoredTensor;
}

/** The smallest tensor with streams and columns, or else the largest. */
async function chooseTensor(name: string, file: CompactFile): Promise<TestTensor> {
  const tensors = [...file.tensors.values()].toSorted((a, b) => a.byteLength - b.byteLength);
  const tensor = tensors.find(({ byteLength }) => byteLength >= ENOUGH_BYTES) ?? tensors.at(-1)!;
  return { file: name, tensor, stored: await file.stored(tensor.name) };
}

function testHeader({ file, tensor, stored: { offset, bytes, sha256 } }: TestTensor): string {
  const { name, dtype, shape, byteLength } = tensor;
  const { bits } = DTYPES[dtype];
  const width = bits >= 64 ? 8 : bits >= 32 ? 4 : bits >= 16 ? 2 : 1;
  const first = shape.length > 1 ? shape[0]! : 0;
  const facts = `{${KINDS.get(dtype) ?? "COMPACT_BYTES"}, ${width}, ${byteLength}u, ${first}u}`;
  return [
    "/* What the self-test of compact.c reads and expects. */",
    "static const compact_test compact_tests[] = {",
    `    {${cString(file)}, ${cString(name)}, ${facts}, ${offset}LL, ${bytes}LL, "${Buffer.from(sha256).toString("hex")}"},`,
    "};",
    "",
  ].join("\n");
}

function testJson({ file, tensor, stored }: TestTensor): string {
  const facts = { file, tensor: tensor.name, bytes: tensor.byteLength, sha256: Buffer.from(stored.sha256).toString("hex") };
  return `${JSON.stringify(facts, undefined, 2)}\n`;
}

function readmeText(usages: readonly string[]): string {
  return `# Decoders

The weights beside this folder are compact files: each holds a safetensors file to the byte. Each self-test decodes a tensor of the artifact and
compares its SHA-256.

${usages.join("\n\n")}
`;
}
