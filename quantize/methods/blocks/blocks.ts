/**
 * Block formats as methods: round to nearest in BFP, MX or NVFP4. `--method nvfp4` says the same as `--method rtn --bits nvfp4`.
 *
 * Sources: arXiv:2403.20137 (BFP), OCP Microscaling Formats v1.0 §6.3, compressed-tensors (NVFP4).
 * @module
 */
import type { Method } from "../../method.ts";

/** What a block format adds to the method that rounds to nearest. */
export interface BlockMethod {
  readonly summary: string;
  readonly source: string;
  readonly defaultBits: string;
}

/** Names that are methods: what their `--bits` begin with. */
export const BLOCK_METHODS = {
  bfp: {
    summary: "block floating point: mantissas of 2 to 16 bits under one 8-bit exponent a block, weights and activations",
    source: "arXiv:2403.20137 §2",
    defaultBits: "bfp16",
  },
  mxint8: {
    summary: "OCP MXINT8, blocks of 32, weights and activations",
    source: "arXiv:2310.10537 (OCP Microscaling Formats v1.0)",
    defaultBits: "mxint8",
  },
  mxfp8: {
    summary: "OCP MXFP8 (e4m3; e5m2 as mxfp8-e5m2), blocks of 32",
    source: "arXiv:2310.10537 (OCP Microscaling Formats v1.0)",
    defaultBits: "mxfp8",
  },
  mxfp6: {
    summary: "OCP MXFP6 (e2m3; e3m2 as mxfp6-e3m2), blocks of 32",
    source: "arXiv:2310.10537 (OCP Microscaling Formats v1.0)",
    defaultBits: "mxfp6",
  },
  mxfp4: {
    summary: "OCP MXFP4, blocks of 32, weights and activations",
    source: "arXiv:2310.10537 (OCP Microscaling Formats v1.0)",
    defaultBits: "mxfp4",
  },
  nvfp4: {
    summary: "NVFP4, blocks of 16 with e4m3 scales, weights and activations",
    source: "https://github.com/vllm-project/compressed-tensors, nvfp4-pack-quantized",
    defaultBits: "nvfp4",
  },
} as const satisfies Readonly<Record<string, BlockMethod>>;

export type BlockMethodName = keyof typeof BLOCK_METHODS;

/** The methods, over the one that rounds to nearest. */
export function blockMethods(rounding: Method): Readonly<Record<BlockMethodName, Method>> {
  const make = (name: BlockMethodName): Method => ({ ...rounding, ...BLOCK_METHODS[name], name, family: name });
  return {
    bfp: make("bfp"),
    mxint8: make("mxint8"),
    mxfp8: make("mxfp8"),
    mxfp6: make("mxfp6"),
    mxfp4: make("mxfp4"),
    nvfp4: make("nvfp4"),
  };
}
