/**
 * `--kernels c` beside a compact artifact: the decoder of `kernels/compact/`, the constants of the format, and a self-test on tensors of the artifact.
 * @module
 */
import { readFile } from "node:fs/promises";
import { DTYPES } from "../../../core/dtype.ts";
import { InputError } from "../../../core/errors.ts";
import type { CompactFile } from "../../../formats/containers/compact/read.ts";
import { FREQUENCIES, LENGTHS } from "../../../formats/encodings/compact/frequencies.ts";

const KERNELS_FOLDER = "kernels/";
/** Languages there is a decoder in. */
const LANGUAGES: readonly string[] = ["c"];
/** Self-tests prefer tensors of this many bytes and more: smaller ones have one stream and no columns. */
const ENOUGH_BYTES = 65536;

/** @throws {InputError} `input.option` for a language there is no decoder of compact artifacts in. */
export function checkCompactKernels(names: readonly string[]): void {
  const unknown = names.find((name) => !LANGUAGES.includes(name));
  if (unknown === undefined) return;
  throw new InputError("input.option", `--kernels ${unknown}: decoders of compact artifacts there are: ${LANGUAGES.join(", ")}`, {
    option: "kernels",
    given: unknown,
    known: LANGUAGES,
  });
}

const source = async (name: string): Promise<Uint8Array> =>
  new Uint8Array(await readFile(new URL(`../../../kernels/compact/${name}`, import.meta.url)));
const text = (content: string): Uint8Array => new TextEncoder().encode(content);

/**
 * Files to put into the artifact, by relative name.
 *
 * @param name - of the compact file that the self-test reads, relative to the artifact.
 */
export async function emitCompactKernels(name: string, file: CompactFile): Promise<ReadonlyMap<string, Uint8Array>> {
  const content: readonly (readonly [string, Uint8Array])[] = [
    ["README.md", text(README)],
    ["compact.c", await source("compact.c")],
    ["compact_host.h", await source("compact_host.h")],
    ["compact_selftest.h", text(await selfTest(name, file))],
    ["compact_tables.h", text(tablesHeader())],
  ];
  return new Map(content.map(([part, bytes]) => [KERNELS_FOLDER + part, bytes]));
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

/** The smallest tensor with streams and columns, or else the largest. */
async function selfTest(name: string, file: CompactFile): Promise<string> {
  const tensors = [...file.tensors.values()].toSorted((a, b) => a.byteLength - b.byteLength);
  const tensor = tensors.find(({ byteLength }) => byteLength >= ENOUGH_BYTES) ?? tensors.at(-1)!;
  const { dtype, shape, byteLength } = tensor;
  const { offset, bytes, sha256 } = await file.stored(tensor.name);
  const { bits } = DTYPES[dtype];
  const width = bits >= 64 ? 8 : bits >= 32 ? 4 : bits >= 16 ? 2 : 1;
  const first = shape.length > 1 ? shape[0]! : 0;
  const facts = `{${KINDS.get(dtype) ?? "COMPACT_BYTES"}, ${width}, ${byteLength}u, ${first}u}`;
  return [
    "/* What the self-test of compact.c reads and expects. */",
    "static const compact_test compact_tests[] = {",
    `    {${cString(name)}, ${cString(tensor.name)}, ${facts}, ${offset}LL, ${bytes}LL, "${Buffer.from(sha256).toString("hex")}"},`,
    "};",
    "",
  ].join("\n");
}

/** Names come from the source file: everything but plain characters becomes an octal escape. */
function cString(value: string): string {
  const escaped = [...text(value)].map((byte) =>
    /[\w .,:/()[\]-]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, "0")}`,
  );
  return `"${escaped.join("")}"`;
}

const README = `# Decoder

The weights beside this folder are compact files: each holds a safetensors file to the byte. \`compact_decode\` in \`compact.c\` gives the bytes of one
tensor from its payload; where payloads lie, and dtypes and shapes, is in the directory at the end of a file (deflated).

C99, no dependencies. The self-test decodes a tensor of the artifact and compares its SHA-256:

    cc -O2 -DCOMPACT_SELFTEST compact.c -o selftest && ./selftest ..
`;
