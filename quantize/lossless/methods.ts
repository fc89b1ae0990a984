/**
 * Lossless methods, by name: what `--method` takes and this folder carries out. To add one: a line below and a codec in `codecs.ts`.
 * @module
 */
export const LOSSLESS_METHODS: Readonly<Record<"dfloat11", { readonly summary: string; readonly source: string }>> = {
  dfloat11: {
    summary:
      "lossless: bf16 in about 10.9 bits, byte-identical with the official package, or 10.5 with --codec compact; `restore` gives the source files back",
    source: "DFloat11 0.5.0; arXiv 2504.11651",
  },
};

/** What lossless runs write, and what reads it again: `inspect`, `verify`, `restore`, and every command that takes a model. */
export const LOSSLESS_FORMATS: readonly { readonly name: string; readonly summary: string }[] = [
  { name: "dfloat11", summary: "Huffman-coded bf16 that the official DFloat11 package loads (`--method dfloat11`)" },
  {
    name: "compact",
    summary: "smaller, every dtype, random access by tensor and rows; read by this tool (`--method dfloat11 --codec compact`)",
  },
];

/** Whether a name of `--method` is one of them. */
export function isLosslessMethod(name: string): boolean {
  return Object.hasOwn(LOSSLESS_METHODS, name.toLowerCase());
}
