/**
 * `--kernels`: decoders in other languages beside an artifact, with a self-test on one of its units.
 *
 * The files are those of `kernels/df11/`, copied as they are; only the
 * self-test's facts (where the unit lies, which hashes it must give) are written here, and the WASM module gets a memory that needs no threads.
 * @module
 */
import { readFile } from "node:fs/promises";
import { elementCount } from "../../core/dtype.ts";
import { InputError } from "../../core/errors.ts";
import { wasm } from "../../kernels/generated/df11.wasm.ts";
import { privateMemory } from "../../kernels/private-memory.ts";
import { cString } from "../c-string.ts";

/** Folder in the artifact. */
export const KERNELS_FOLDER = "kernels/";

/** Where the self-test's unit lies and what it must give. */
export interface SelfTest {
  /** File name relative to the artifact. */
  readonly file: string;
  readonly unit: string;
  /** Offset and length of each stored tensor, by suffix. */
  readonly arrays: Readonly<Record<string, readonly [offset: number, length: number]>>;
  readonly members: readonly { readonly name: string; readonly elements: number; readonly sha256: string }[];
}

interface Language {
  readonly files: (test: SelfTest) => Promise<readonly NamedFile[]>;
  /** How to build and run the self-test. */
  readonly usage: string;
}

type NamedFile = readonly [name: string, content: Uint8Array];

const source = async (...names: readonly string[]): Promise<NamedFile[]> =>
  Promise.all(
    names.map(
      async (name) =>
        [name.split("/").pop()!, new Uint8Array(await readFile(new URL(`../../kernels/df11/${name}`, import.meta.url)))] as const,
    ),
  );
const text = (content: string): Uint8Array => new TextEncoder().encode(content);
const header = (test: SelfTest): NamedFile => ["df11_selftest.h", text(headerText(test))];
const facts = (test: SelfTest): NamedFile => ["df11_selftest.json", text(`${JSON.stringify(test, undefined, 2)}\n`)];

/** A page that decodes the artifact beside it, or files dropped on it. */
const PAGE = ["browser/index.html", "browser/page.mjs", "browser/restore.mjs"];

/** To add one: its files in `kernels/df11/` and an entry here. */
const LANGUAGES: ReadonlyMap<string, Language> = new Map([
  [
    "c",
    {
      files: async (test) => [...(await source("df11.c", "df11_host.h", "../sha256.h")), header(test)],
      usage: "C99, no dependencies:\n\n    cc -O2 -DDF11_SELFTEST df11.c -o selftest && ./selftest ..",
    },
  ],
  [
    "wasm",
    {
      files: async (test) => [
        ...(await source("df11.mjs", "df11-unit.mjs", ...PAGE)),
        ["df11.wasm", privateMemory(Buffer.from(wasm, "base64"))],
        facts(test),
      ],
      usage: `WASM SIMD with a small JavaScript module, for Node 20 and browsers; a page needs no special headers:

    node df11.mjs ..

  \`index.html\` decodes the artifact, or files dropped on it, in a browser, shows SHA-256 and gives source files back. Any static server
  of the artifact's folder will do, on localhost or with https:

    npx http-server ..        # then open http://localhost:8080/kernels/`,
    },
  ],
  [
    "wgsl",
    {
      files: async (test) => [...(await source("df11.wgsl", "df11-webgpu.mjs", "df11-unit.mjs")), facts(test)],
      usage: `WebGPU, for browsers; in Node with the npm package \`webgpu\` (0.6.2), installed where Node finds it from this folder:

    npm install webgpu@0.6.2 && node df11-webgpu.mjs ..`,
    },
  ],
  [
    "cuda",
    {
      files: async (test) => [...(await source("df11.cu", "df11_host.h", "../sha256.h")), header(test)],
      usage: `CUDA, one thread for 8 bytes of the stream; the self-test prints GB/s beside those of a copy on the device:

    nvcc -O3 -o selftest df11.cu && ./selftest ..

  Without a GPU a C++11 compiler runs the same steps on the CPU:

    c++ -O2 -x c++ -o selftest df11.cu && ./selftest ..`,
    },
  ],
]);

/** @throws {InputError} `input.option` for a language there is no decoder in. */
export function checkKernels(names: readonly string[]): void {
  const unknown = names.find((name) => !LANGUAGES.has(name));
  if (unknown === undefined) return;
  const known = [...LANGUAGES.keys()];
  throw new InputError("input.option", `--kernels ${unknown}: decoders there are: ${known.join(", ")}`, {
    option: "kernels",
    given: unknown,
    known,
  });
}

/** Files to put into the artifact, by relative name. */
export async function emitKernels(names: readonly string[], test: SelfTest): Promise<ReadonlyMap<string, Uint8Array>> {
  checkKernels(names);
  const chosen = [...LANGUAGES].filter(([name]) => names.includes(name));
  const files = new Map<string, Uint8Array>();
  for (const [, language] of chosen) for (const [name, content] of await language.files(test)) files.set(KERNELS_FOLDER + name, content);
  files.set(
    `${KERNELS_FOLDER}README.md`,
    text(
      readmeText(
        test,
        chosen.map(([, { usage }]) => usage),
      ),
    ),
  );
  return files;
}

function headerText({ file, unit, arrays, members }: SelfTest): string {
  const macros = ["luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps"].map((suffix) => {
    const [offset, length] = arrays[suffix]!;
    return `#define DF11_TEST_${suffix.toUpperCase()} {${offset}LL, ${length}LL}`;
  });
  return [
    "/* What the self-tests of df11.c and df11.cu read and expect. */",
    `#define DF11_TEST_FILE ${cString(file)}`,
    `#define DF11_TEST_UNIT ${cString(unit)}`,
    ...macros,
    "static const struct { const char *name; long long elements; const char *sha256; } df11_test_members[] = {",
    ...members.map(({ name, elements, sha256 }) => `  {${cString(name)}, ${elements}LL, ${cString(sha256)}},`),
    "};",
    "",
  ].join("\n");
}

function readmeText({ unit, members }: SelfTest, usages: readonly string[]): string {
  return `# Decoders

The weights beside this folder are DFloat11: each unit is six tensors named \`<module>.luts\`, \`.encoded_exponent\`, \`.sign_mantissa\`,
\`.output_positions\`, \`.gaps\` and \`.split_positions\`. A decoder turns them back into the unit's bf16 weights, one after another;
\`split_positions\` says where each ends.

Each self-test decodes unit \`${unit}\` (${members.length} ${members.length === 1 ? "tensor" : "tensors"}) and compares the SHA-256 of every tensor with that of the source.

${usages.join("\n\n")}
`;
}

/** The smallest unit makes the shortest test. */
export function smallestUnit<T extends { readonly elements: number }>(units: readonly T[]): T | undefined {
  return units.reduce<T | undefined>((least, unit) => (least === undefined || unit.elements < least.elements ? unit : least), undefined);
}

/** Facts of a member for the self-test. */
export function testMember(name: string, shape: readonly number[], sha256: string): SelfTest["members"][number] {
  return { name, elements: elementCount(shape), sha256 };
}
