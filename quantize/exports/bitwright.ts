/**
 * Export to our own directory: what holds every scheme, true BFP and permuted rotary tables. Thin: the layout in `formats/` knows bytes and names.
 * @module
 */
import { blockFormatOf } from "../../core/blocks/format.ts";
import type { DType } from "../../core/dtype.ts";
import type { ActivationScheme, QuantScheme, ScaleType } from "../../core/scheme.ts";
import { bitwrightConfig, bitwrightTensors, type BitwrightModule } from "../../formats/layouts/bitwright/bitwright.ts";
import { refusalOf } from "../../formats/layouts/bitwright/stored.ts";
import type { Export, ExportSite } from "./export.ts";

/** Stored scales have a dtype of their own: "the model's" is settled when the directory is written. */
const SCALE_TYPES: ReadonlyMap<DType, ScaleType> = new Map([
  ["F32", "f32"],
  ["BF16", "bf16"],
  ["F16", "f16"],
]);

function settled(scheme: QuantScheme, scaleDType: DType): QuantScheme {
  return scheme.scale === "model" ? { ...scheme, scale: SCALE_TYPES.get(scaleDType) ?? "f32" } : scheme;
}

function moduleOf(site: ExportSite & { readonly weight: QuantScheme }, scaleDType: DType): BitwrightModule {
  const { module, rows, cols, channelAxis, input, output, inputScale, outputScale } = site;
  const activation = (scheme: QuantScheme, scale: number | undefined): ActivationScheme => ({
    scheme: settled(scheme, scaleDType),
    ...(scale !== undefined && (scheme.scale === "e4m3" ? { globalScale: scale } : { scale })),
  });
  return {
    name: module,
    shape: channelAxis === 1 ? [cols, rows] : [rows, cols],
    channelAxis,
    weight: settled(site.weight, scaleDType),
    activations: {
      ...(input && { input: activation(input, inputScale) }),
      ...(output && { output: activation(output, outputScale) }),
    },
  };
}

const hasWeight = (site: ExportSite): site is ExportSite & { readonly weight: QuantScheme } => site.weight !== undefined;

export const bitwright: Export = {
  name: "bitwright",
  summary: "our own directory: every scheme, true BFP, ordered keys; read by bitwright, exported onwards from it",
  canHold(site) {
    if (!hasWeight(site)) return { ok: true, format: "dense" };
    const refused = refusalOf(settled(site.weight, "F32"));
    if (refused !== undefined) return { ok: false, reason: refused, nearest: "bfp16, mxfp8 or w8a8" };
    if (site.channelAxis === 1 && blockFormatOf(site.weight) === undefined) {
      return { ok: false, reason: "weights stored [in, out] are written in block formats only", nearest: "bfp16" };
    }
    return { ok: true, format: "bitwright" };
  },
  siteTensors: (site, scaleDType) => (hasWeight(site) ? bitwrightTensors(moduleOf(site, scaleDType)) : []),
  config(source, sites, _ignore, scaleDType = "F32") {
    // Declared without a quantized site too: a loader that knows nothing of ordered keys must not take them for plain ones.
    return { ...source, quantization_config: bitwrightConfig(sites.filter(hasWeight).map((site) => moduleOf(site, scaleDType))) };
  },
};
