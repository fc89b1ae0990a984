/**
 * Codes of an artifact put into an ONNX model as they are: rewrites give the operators, these are the numbers they get.
 * @module
 */
import { UnsupportedError } from "../../../core/errors.ts";
import type { QuantizedTensor } from "../../../core/quantized.ts";
import { schemeName, type QuantScheme } from "../../../core/scheme.ts";
import type { OnnxModel } from "../../../formats/containers/onnx/model.ts";
import { makeOnnxTensor, type OnnxTensor } from "../../../formats/containers/onnx/tensor.ts";
import type { StoredModule } from "../../../formats/layouts/compressed-tensors/read.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { findOnnxSites } from "../../../model/onnx/sites.ts";
import { makeLazyParts, type PartSpec } from "../../onnx/lazy-parts.ts";
import { RewriteContext } from "../../onnx/rewrites/context.ts";
import { rewriteDynamic } from "../../onnx/rewrites/dynamic.ts";
import { NBITS_BLOCKS, rewriteNBits } from "../../onnx/rewrites/weight-only.ts";
import { packRows } from "../../onnx/row-codes.ts";

/** What a module's codes become. */
type KeptForm =
  | { readonly kind: "nbits"; readonly bits: 4 | 8; readonly block: number; readonly symmetric: boolean }
  | { readonly kind: "dynamic"; readonly activation: "tensor" | "token" };

/**
 * The model with every node that is called as a module of the artifact in integer form, its codes, scales and zero points those of the artifact.
 *
 * @param model - of float weights, nodes named after modules.
 * @throws {UnsupportedError} `unsupported.scheme` for codes that no operator of ONNX Runtime multiplies.
 */
export function keepCodes(model: OnnxModel, modules: ReadonlyMap<string, StoredModule>): OnnxModel {
  const context = new RewriteContext(model);
  const kept = new Map<string, OnnxTensor>();
  for (const site of findOnnxSites(model)) {
    const module = modules.get(site.node.name);
    if (module === undefined || site.kind !== "linear") continue;
    const form = formOf(module);
    const outcome =
      form.kind === "nbits"
        ? rewriteNBits(context, site, { ...form, search: false })
        : rewriteDynamic(context, site, {
            activation: form.activation,
            unsignedWeights: true,
            perChannel: true,
            search: false,
            reduced: false,
          });
    if (!outcome.done) throw refused(module, outcome.reason);
    const parts = form.kind === "nbits" ? nbitsParts(site, module, form) : channelParts(site, module);
    for (const [name, tensor] of parts) kept.set(name, tensor);
  }
  const written = context.edits.apply();
  const { graph } = written;
  const initializers = new Map([...graph.initializers].map(([name, tensor]) => [name, kept.get(name) ?? tensor]));
  const lost = [...kept].filter(([name, tensor]) => {
    const place = graph.initializers.get(name);
    return place === undefined || place.dtype !== tensor.dtype || place.byteLength !== tensor.byteLength;
  });
  if (lost.length > 0) {
    throw new UnsupportedError(
      "unsupported.scheme",
      `${lost[0]![0]} has no place in the exported model; export from the float model instead`,
      {
        tensor: lost[0]![0],
      },
    );
  }
  return { ...written, graph: { ...graph, initializers } };
}

function formOf(module: StoredModule): KeptForm {
  const { weight, activations, cols } = module;
  const { format, granularity } = weight;
  if (format.kind !== "int" || format.bits > 8) throw refused(module, "its codes are no integers of at most 8 bits");
  const input = activations.input?.scheme;
  if (input === undefined) {
    const block = blockOf(weight, cols);
    if (block === undefined) throw refused(module, `MatMulNBits has blocks of ${NBITS_BLOCKS.join(", ")} input channels`);
    return { kind: "nbits", bits: format.bits <= 4 ? 4 : 8, block, symmetric: format.symmetric };
  }
  if (activations.output !== undefined) throw refused(module, "its output is quantized as well");
  if (input.timing === "static")
    throw refused(module, "its activations have a calibrated scale; --scheme act=token or act=tensor makes one as the model runs");
  if (input.format.kind !== "int" || input.format.bits !== 8)
    throw refused(module, `activations are ${schemeName(input)}; integer products take 8 bits`);
  if (format.bits !== 8 || !format.symmetric)
    throw refused(module, "beside quantized activations, weights must be symmetric 8-bit integers");
  if (granularity.kind !== "channel" && granularity.kind !== "tensor")
    throw refused(module, "MatMulInteger has one scale an output channel");
  return { kind: "dynamic", activation: input.granularity.kind === "token" ? "token" : "tensor" };
}

/** Input channels a block; a scale that covers more is repeated. */
function blockOf({ granularity }: QuantScheme, cols: number): number | undefined {
  if (granularity.kind === "group") return NBITS_BLOCKS.findLast((block) => granularity.size % block === 0);
  if (granularity.kind !== "channel" && granularity.kind !== "tensor") return undefined;
  return NBITS_BLOCKS.find((block) => block >= cols) ?? NBITS_BLOCKS.at(-1);
}

function refused(module: StoredModule, reason: string): UnsupportedError {
  return new UnsupportedError(
    "unsupported.scheme",
    `${module.module} (${schemeName(module.weight)}) cannot be kept in ONNX: ${reason}; export from the float model, or quantize with --bits w4a16 or w8a8`,
    { module: module.module, scheme: schemeName(module.weight) },
  );
}

function nbitsParts(site: OnnxSite, module: StoredModule, form: KeptForm & { readonly kind: "nbits" }): readonly [string, OnnxTensor][] {
  const { rows, cols } = module;
  const { bits, block, symmetric } = form;
  const groups = Math.ceil(cols / block);
  const specs: Record<"codes" | "scales" | "zeros", PartSpec> = {
    codes: { dtype: "U8", shape: [rows, groups, (block * bits) / 8] },
    scales: { dtype: "F32", shape: [rows * groups] },
    zeros: { dtype: "U8", shape: [rows * Math.ceil((groups * bits) / 8)] },
  };
  const middle = 2 ** (bits - 1);
  const compute = async (): Promise<Record<"codes" | "scales" | "zeros", Uint8Array>> => {
    const stored = await module.readQuantized();
    const codes = new Uint8Array(rows * groups * block);
    const read = codeReader(stored, module);
    for (let row = 0; row < rows; row++) for (let col = 0; col < cols; col++) codes[row * groups * block + col] = read(row, col) + middle;
    const own = stored.scales.length / rows;
    const place = (row: number, group: number): number =>
      stored.scales.length === 1 ? 0 : row * own + Math.min(own - 1, Math.floor((group * block * own) / paddedWidth(module)));
    const scales = new Float32Array(rows * groups);
    const zeros = new Uint8Array(rows * groups);
    for (let row = 0; row < rows; row++) {
      for (let group = 0; group < groups; group++) {
        scales[row * groups + group] = stored.scales[place(row, group)]!;
        zeros[row * groups + group] = (stored.zeros?.[place(row, group)] ?? 0) + middle;
      }
    }
    return {
      codes: packRows(codes, block * groups, bits, 0),
      scales: new Uint8Array(scales.buffer),
      zeros: packRows(zeros, groups, bits, middle),
    };
  };
  const base = `${site.weight.value}_Q${bits}`;
  if (symmetric) {
    const parts = makeLazyParts({ codes: specs.codes, scales: specs.scales }, compute);
    return [
      [base, parts.codes],
      [`${base}_scales`, parts.scales],
    ];
  }
  const parts = makeLazyParts(specs, compute);
  return [
    [base, parts.codes],
    [`${base}_scales`, parts.scales],
    [`${base}_zero_points`, parts.zeros],
  ];
}

/** Columns that the stored groups of a row cover. */
function paddedWidth({ weight: { granularity }, cols }: StoredModule): number {
  return granularity.kind === "group" ? Math.ceil(cols / granularity.size) * granularity.size : cols;
}

/**
 * Codes as the right factor [cols, rows] with one scale a row, moved up to 0..255 with a zero point of 128: processors without VNNI
 * saturate sums of u8 × s8 products.
 */
function channelParts(site: OnnxSite, module: StoredModule): readonly [string, OnnxTensor][] {
  const { rows, cols } = module;
  const specs: Record<"codes" | "scale", PartSpec> = {
    codes: { dtype: "U8", shape: [cols, rows] },
    scale: { dtype: "F32", shape: [rows] },
  };
  const parts = makeLazyParts(specs, async () => {
    const stored = await module.readQuantized();
    const read = codeReader(stored, module);
    const codes = new Uint8Array(rows * cols);
    for (let col = 0; col < cols; col++) for (let row = 0; row < rows; row++) codes[col * rows + row] = read(row, col) + 128;
    const scale = stored.scales.length === 1 ? new Float32Array(rows).fill(stored.scales[0]!) : stored.scales;
    return { codes, scale: new Uint8Array(Float32Array.from(scale).buffer) };
  });
  const base = site.weight.value;
  return [
    [`${base}_quantized`, parts.codes],
    [`${base}_scale`, parts.scale],
    [`${base}_zero_point`, makeOnnxTensor("U8", [rows], new Uint8Array(rows).fill(128))],
  ];
}

/** Signed code of an output row and input column. */
function codeReader({ codes, shape, channelAxis }: QuantizedTensor, module: StoredModule): (row: number, col: number) => number {
  if (codes.kind === "packed") throw refused(module, "its codes are packed in the artifact's own order");
  const { data } = codes;
  const width = shape[1]!;
  return channelAxis === 0 ? (row, col) => data[row * width + col]! : (row, col) => data[col * width + row]!;
}
