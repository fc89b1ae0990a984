/**
 * Lossless methods, by name: what `--method` takes and this folder carries out. To add one: a line below and a codec in `codecs.ts`.
 * @module
 */
export const LOSSLESS_METHODS: Readonly<Record<"dfloat11", { readonly summary: string; readonly source: string }>> = {
  dfloat11: {
    summary: "lossless: bf16 in about 10.9 bits, byte-identical with the official package; `restore` gives the source files back",
    source: "DFloat11 0.5.0; arXiv 2504.11651",
  },
};

/** Whether a name of `--method` is one of them. */
export function isLosslessMethod(name: string): boolean {
  return Object.hasOwn(LOSSLESS_METHODS, name.toLowerCase());
}
