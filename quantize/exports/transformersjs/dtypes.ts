/**
 * The dtypes of transformers.js: what each file is called and what is in it.
 * @module
 */
import { InputError } from "../../../core/errors.ts";
import type { OnnxModel } from "../../../formats/containers/onnx/model.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { findOnnxSites } from "../../../model/onnx/sites.ts";
import { rewriteBnb4 } from "../../onnx/rewrites/bnb4.ts";
import { RewriteContext } from "../../onnx/rewrites/context.ts";
import { rewriteDynamic } from "../../onnx/rewrites/dynamic.ts";
import { planFloat16 } from "../../onnx/rewrites/float16-plan.ts";
import { convertToFloat16 } from "../../onnx/rewrites/float16.ts";
import { rewriteEmbedding, rewriteNBits } from "../../onnx/rewrites/weight-only.ts";

export const TRANSFORMERSJS_DTYPES = ["fp32", "fp16", "q8", "int8", "uint8", "q4", "q4f16", "bnb4"] as const;
export type TransformersJsDType = (typeof TRANSFORMERSJS_DTYPES)[number];

/** A file of the layout. */
export interface DTypeFile {
  /** Behind the session's name: `onnx/model<suffix>.onnx`. */
  readonly suffix: string;
  readonly summary: string;
  /** @param keep - nodes whose weight stays float (routers of experts). */
  readonly make: (model: OnnxModel, keep: ReadonlySet<string>) => Promise<OnnxModel>;
}

/** As the official conversion script: blocks of 32 without zero points, no accuracy level. */
const Q4 = { bits: 4, block: 32, symmetric: true, search: false } as const;
const EMBEDDING = { bits: 8, symmetric: true, block: 32, search: false } as const;
/** Operators whose presence makes q8 unsigned, as in the official script: their integer forms want unsigned weights. */
const UNSIGNED_BESIDE: ReadonlySet<string> = new Set(["Conv", "GroupQueryAttention", "MultiHeadAttention"]);

export const DTYPE_FILES: Readonly<Record<TransformersJsDType, DTypeFile>> = {
  fp32: { suffix: "", summary: "float32", make: async (model) => model },
  fp16: { suffix: "_fp16", summary: "float16, inputs and outputs float32", make: async (model) => half(model) },
  q8: {
    suffix: "_quantized",
    summary: "int8 weights, activations quantized as the model runs; unsigned beside Conv and fused attention",
    make: async (model, keep) =>
      dynamic(
        model,
        keep,
        model.graph.nodes.some(({ op }) => UNSIGNED_BESIDE.has(op)),
      ),
  },
  int8: { suffix: "_int8", summary: "as q8, weights signed", make: async (model, keep) => dynamic(model, keep, false) },
  uint8: { suffix: "_uint8", summary: "as q8, weights unsigned", make: async (model, keep) => dynamic(model, keep, true) },
  q4: { suffix: "_q4", summary: "4-bit weights in blocks of 32, the rest float32", make: async (model, keep) => fourBits(model, keep) },
  q4f16: {
    suffix: "_q4f16",
    summary: "4-bit weights in blocks of 32, the rest float16",
    make: async (model, keep) => half(fourBits(model, keep)),
  },
  bnb4: {
    suffix: "_bnb4",
    summary: "NF4 weights in blocks of 64, the rest float32",
    make: async (model, keep) => normalFloats(model, keep),
  },
};

/** @throws {InputError} `input.option` naming the known ones. */
export function readDTypes(text: string | undefined): readonly TransformersJsDType[] {
  if (text === undefined) return TRANSFORMERSJS_DTYPES;
  const names = text.split(",").map((name) => name.trim());
  return [...new Set(names)].map((name) => {
    const found = TRANSFORMERSJS_DTYPES.find((known) => known === name);
    if (found !== undefined) return found;
    throw new InputError("input.option", `--dtypes "${name}" is not one of transformers.js; known: ${TRANSFORMERSJS_DTYPES.join(", ")}`, {
      option: "dtypes",
      given: name,
      known: TRANSFORMERSJS_DTYPES,
    });
  });
}

/** Weights that a builder made are in range, and may be codes that are computed when they are read. */
async function half(model: OnnxModel): Promise<OnnxModel> {
  return convertToFloat16(model, await planFloat16(model, { checkWeights: false }));
}

function rewriteSites(model: OnnxModel, keep: ReadonlySet<string>, rewrite: (context: RewriteContext, site: OnnxSite) => void): OnnxModel {
  const context = new RewriteContext(model);
  for (const site of findOnnxSites(model)) if (!keep.has(site.node.name)) rewrite(context, site);
  return context.edits.apply();
}

function dynamic(model: OnnxModel, keep: ReadonlySet<string>, unsignedWeights: boolean): OnnxModel {
  // Processors without VNNI add pairs of u8 × s8 products in 16 bits, which saturates unless a bit is left free; u8 × u8 they widen first.
  const scheme = { activation: "tensor", unsignedWeights, perChannel: true, search: false, reduced: !unsignedWeights } as const;
  return rewriteSites(model, keep, (context, site) => {
    if (site.kind === "embedding") rewriteEmbedding(context, site, EMBEDDING);
    else if (site.kind === "linear") rewriteDynamic(context, site, scheme);
  });
}

function fourBits(model: OnnxModel, keep: ReadonlySet<string>): OnnxModel {
  return rewriteSites(model, keep, (context, site) => {
    if (site.kind === "linear") rewriteNBits(context, site, Q4);
  });
}

function normalFloats(model: OnnxModel, keep: ReadonlySet<string>): OnnxModel {
  return rewriteSites(model, keep, (context, site) => {
    if (site.kind === "linear") rewriteBnb4(context, site);
  });
}
