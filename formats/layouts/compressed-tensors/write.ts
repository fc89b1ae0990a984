/**
 * Writing: which tensors a module becomes, and the config that names them.
 * @module
 */
import { blockFormatOf, type BlockFormat } from "../../../core/blocks/format.ts";
import { elementCount, type DType } from "../../../core/dtype.ts";
import { InputError, UnsupportedError } from "../../../core/errors.ts";
import { unpackBits } from "../../../core/pack.ts";
import type { QuantizedTensor } from "../../../core/quantized.ts";
import { codeBits, scaleShape, schemeName, type QuantScheme } from "../../../core/scheme.ts";
import { fromFloat32, tensorOf, toFloat32, type Tensor } from "../../../core/tensor.ts";
import { SUFFIXES, type ModuleTensor, type Parts, type Site, type TensorRole, type WeightFormat } from "./format.ts";
import { inferFormat } from "./formats.ts";
import { isWritten, MAX_INT_BITS } from "./scheme.ts";

export type { ModuleTensor, Site, TensorRole } from "./format.ts";

/** Whether an artifact can hold a site, and if not, what is nearest that it can. */
export type Holding =
  /** `caution`: loads in transformers, but no kernel of vLLM runs it. */
  | { readonly ok: true; readonly format: string; readonly caution?: string }
  | { readonly ok: false; readonly reason: string; readonly nearest: string };

/** Whether compressed-tensors can hold a site. */
export function canHold(site: Site): Holding {
  const refused = refusal(site);
  if (refused !== undefined) return { ok: false, ...refused };
  const { name } = inferFormat(site.weight, site.input !== undefined);
  const caution = cautionFor(site);
  return { ok: true, format: name, ...(caution === undefined ? {} : { caution }) };
}

function refusal(site: Site): { readonly reason: string; readonly nearest: string } | undefined {
  const { weight, rows, cols, input, output } = site;
  if (site.channelAxis === 1) {
    return {
      reason: `the weight is stored [in, out] (Conv1D, as in gpt2): loaders quantize torch Linear modules [out, in] only and would take these codes for weights`,
      nearest: `leave the module in "ignore", or export to onnx or bitwright`,
    };
  }
  if (weight.timing === "dynamic") return { reason: "weights cannot be dynamic", nearest: "static weights" };
  const block = blockFormatOf(weight);
  if (block !== undefined) return blockRefusal(block, site);
  const kind = numberRefusal(weight);
  if (kind !== undefined) return kind;
  if (weight.scale === "e4m3" || weight.scale === "e8m0") {
    return { reason: `scales in ${weight.scale} belong to block formats, which this is none of`, nearest: "scales in the model's dtype" };
  }
  const { granularity } = weight;
  if (granularity.kind === "token") return { reason: "weights have no token scales", nearest: "channel" };
  if (granularity.kind === "block" && weight.format.kind === "int") {
    return { reason: "block scales are for FP8 only", nearest: `int${codeBits(weight.format)} group ${granularity.cols}` };
  }
  if (granularity.kind === "group" && cols % granularity.size !== 0) {
    return {
      reason: `group ${granularity.size} does not divide ${cols} columns (of ${rows} rows)`,
      nearest: nearestGroup(cols, granularity.size),
    };
  }
  for (const [name, activation] of Object.entries({ input, output })) {
    if (activation === undefined) continue;
    const problem = activationRefusal(activation, weight);
    if (problem !== undefined) return { reason: `${name}: ${problem.reason}`, nearest: problem.nearest };
  }
  return undefined;
}

function blockRefusal(
  block: BlockFormat,
  { rows, cols, input, output }: Site,
): { readonly reason: string; readonly nearest: string } | undefined {
  if (!isWritten(block)) return { reason: `${block.name} has no place in it`, nearest: "mxfp4, mxfp8 or nvfp4, or export to bitwright" };
  if (cols % block.block !== 0) {
    return {
      reason: `blocks of ${block.block} do not divide ${cols} columns (of ${rows} rows)`,
      nearest: 'the module in "ignore", or export to bitwright',
    };
  }
  if (output !== undefined) return { reason: `outputs cannot be quantized beside ${block.name} weights`, nearest: "inputs only" };
  if (input === undefined) return undefined;
  const other = blockFormatOf(input);
  if (other?.name !== block.name || input.timing !== "dynamic") {
    return { reason: `${schemeName(input)} activations with ${block.name} weights`, nearest: `dynamic ${block.name} activations` };
  }
  // The library computes E8M0 scales by its own rule, whatever the file says.
  if (block.family === "mx" && (input.scaleRule ?? "floor") !== "even") {
    return {
      reason: `its loaders choose the scales of ${block.name} activations by rule even, not ${input.scaleRule ?? "floor"}`,
      nearest: "scale=even",
    };
  }
  return undefined;
}

function numberRefusal({ format }: QuantScheme): { readonly reason: string; readonly nearest: string } | undefined {
  if (format.kind === "int") {
    return format.bits >= 1 && format.bits <= MAX_INT_BITS
      ? undefined
      : { reason: `int${format.bits} codes do not fit the I8 it stores`, nearest: `int${MAX_INT_BITS}` };
  }
  if (format.kind === "float") {
    return format.format === "e4m3" ? undefined : { reason: `${format.format} codes are not written`, nearest: "e4m3" };
  }
  return { reason: `${format.kind} codes have no place in it`, nearest: "int8, int4 or e4m3, or export to bitwright" };
}

function activationRefusal(
  activation: QuantScheme,
  weight: QuantScheme,
): { readonly reason: string; readonly nearest: string } | undefined {
  const kind = numberRefusal(activation);
  if (kind !== undefined) return kind;
  if (activation.format.kind !== weight.format.kind) {
    return {
      reason: `${schemeName(activation)} activations with ${schemeName(weight)} weights`,
      nearest: `${weight.format.kind} activations`,
    };
  }
  const share = activation.granularity.kind;
  if (activation.timing === "static") {
    return share === "tensor" ? undefined : { reason: `static ${share} scales of activations`, nearest: "static tensor, or dynamic token" };
  }
  if (share === "token" || share === "tensor") return undefined;
  if (share === "group" && activation.format.kind === "float") return undefined;
  return { reason: `dynamic ${share} scales of ${schemeName(activation)} activations`, nearest: "dynamic token" };
}

/** The largest smaller power of two that divides the columns, if it is worth its scales. */
function nearestGroup(cols: number, size: number): string {
  for (let group = 2 ** Math.floor(Math.log2(size)); group >= 16; group /= 2) if (cols % group === 0) return `group ${group}`;
  return "channel";
}

function cautionFor({ weight, input, output }: Site): string | undefined {
  if (blockFormatOf(weight) !== undefined) return undefined;
  const bits = codeBits(weight.format);
  if (output?.timing === "dynamic") return "quantized outputs of one token at a time run in transformers; vLLM leaves them float";
  if (input === undefined) {
    if (weight.format.kind === "int" && bits !== 4 && bits !== 8)
      return `${bits}-bit weights load in transformers; vLLM has kernels for 4 and 8 bits`;
    if (weight.granularity.kind === "tensor" && weight.format.kind === "int")
      return "vLLM has weight-only kernels for group and channel scales";
    return undefined;
  }
  if (bits !== 8 || codeBits(input.format) !== 8) {
    return `${bits}-bit weights with ${codeBits(input.format)}-bit activations load in transformers; vLLM runs 8 with 8`;
  }
  if (weight.format.kind !== "int") return undefined;
  if (!weight.format.symmetric) return "vLLM needs symmetric weights with quantized activations";
  return weight.granularity.kind === "group" ? "vLLM needs tensor or channel scales with quantized activations" : undefined;
}

/** @throws {UnsupportedError} `unsupported.scheme` with the reason and the nearest scheme it can hold. */
export function formatFor(module: string, site: Site): WeightFormat {
  const holding = canHold(site);
  if (holding.ok) return inferFormat(site.weight, site.input !== undefined);
  throw new UnsupportedError(
    "unsupported.scheme",
    `compressed-tensors cannot hold ${module} (${schemeName(site.weight)}): ${holding.reason}; nearest: ${holding.nearest}`,
    { module, reason: holding.reason, nearest: holding.nearest },
  );
}

/**
 * The tensors a module becomes, bias left out, before any number is known.
 *
 * @param scaleDType - F32, BF16 or F16; the model's dtype is what the reference writes.
 * @throws {UnsupportedError} `unsupported.scheme` for what {@link canHold} refuses.
 * @throws {InputError} `input.dtype` for another scale dtype.
 */
export function moduleTensors(module: string, site: Site, scaleDType: DType): readonly ModuleTensor[] {
  const format = formatFor(module, site);
  checkScaleDType(scaleDType);
  const named = (spec: Omit<ModuleTensor, "name">): ModuleTensor => ({ name: nameOf(module, spec.role, format), ...spec });
  const activation = (kind: "input" | "output"): ModuleTensor[] => {
    const scheme = site[kind];
    if (kind === "input" && scheme?.scale === "e4m3") return [named({ role: "input-global-scale", dtype: "F32", shape: [1] })];
    if (scheme === undefined || scheme.timing === "dynamic") return [];
    const scale = named({ role: `${kind}-scale`, dtype: scaleDType, shape: [1] });
    return scheme.format.kind === "int" && !scheme.format.symmetric
      ? [scale, named({ role: `${kind}-zero`, dtype: "I8", shape: [1] })]
      : [scale];
  };
  return [...format.specs(site.weight, site.rows, site.cols, scaleDType).map(named), ...activation("input"), ...activation("output")];
}

function nameOf(module: string, role: TensorRole, format: WeightFormat): string {
  return module + (role === "codes" ? format.codesSuffix : SUFFIXES[role]);
}

function checkScaleDType(dtype: DType): void {
  if (dtype !== "F32" && dtype !== "BF16" && dtype !== "F16") {
    throw new InputError("input.dtype", `scales cannot be stored as ${dtype}; choose F32, BF16 or F16`, { dtype });
  }
}

/**
 * The bytes of a module's tensors.
 *
 * Codes `i8` are signed, and so are their zero points. Codes `u8` of an integer scheme are 0 to 2^bits - 1 with zero
 * points in the same range: both move down by 2^(bits-1), which changes no weight. `packed` codes are what `packBits`
 * made of offset-binary codes, with signed zero points.
 *
 * @param scaleDType - as for {@link moduleTensors}; by default what the scheme says.
 * @throws {InputError} `input.value` for scales that `scaleDType` cannot hold exactly, zero points that are not codes, or codes
 *   out of range; `input.shape` when lengths disagree; `input.no-data` when a static scale was not given.
 */
export function encodeModule(
  module: string,
  quantized: QuantizedTensor,
  site: Site,
  scaleDType: DType = dtypeOfScale(site.weight, module),
): ReadonlyMap<string, Tensor> {
  const format = formatFor(module, site);
  const { weight, rows, cols } = site;
  const specs = moduleTensors(module, site, scaleDType);
  const { codes, zeros } = signedCodes(module, quantized, weight, rows, cols);
  const parts: Parts<Tensor> = {
    ...format.encode(codes, zeros, weight, rows, cols),
    ...(format.blocks === undefined
      ? { scales: exactScales(module, quantized.scales, scaleShape(weight.granularity, rows, cols), scaleDType) }
      : format.blocks.encodeScales(quantized, rows, cols, module)),
  };
  if (site.input?.scale === "e4m3") {
    parts["input-global-scale"] = tensorOf(Float32Array.of(given(module, "input", "global scale", site.inputGlobalScale)), [1]);
  }
  for (const kind of ["input", "output"] as const) {
    const scheme = site[kind];
    if (scheme === undefined || scheme.timing === "dynamic") continue;
    parts[`${kind}-scale`] = fromFloat32(Float32Array.of(given(module, kind, "scale", site[`${kind}Scale`])), [1], scaleDType);
    if (scheme.format.kind === "int" && !scheme.format.symmetric) {
      const zero = given(module, kind, "zero point", site[`${kind}Zero`]);
      const limit = 2 ** (scheme.format.bits - 1);
      if (!Number.isInteger(zero) || zero < -limit || zero >= limit) {
        throw new InputError("input.value", `${module}: ${kind} zero point ${zero} must be an integer code of ${scheme.format.bits} bits`, {
          module,
          zero,
        });
      }
      parts[`${kind}-zero`] = tensorOf(Int8Array.of(zero), [1]);
    }
  }
  return new Map(specs.map(({ name, role }) => [name, parts[role]!]));
}

function given(module: string, kind: string, what: string, value: number | undefined): number {
  if (value !== undefined && Number.isFinite(value)) return value;
  throw new InputError("input.no-data", `${module}: static ${kind} activations need a ${what}, got ${value}`, { module, kind });
}

function dtypeOfScale({ scale }: QuantScheme, module: string): DType {
  // Scales of block formats are bytes; the dtype is that of static activations, which they do not have.
  if (scale === "e4m3" || scale === "e8m0") return "F32";
  if (scale === "f32") return "F32";
  if (scale === "bf16") return "BF16";
  if (scale === "f16") return "F16";
  throw new InputError("input.option", `${module}: scale type ${scale} does not name a dtype; pass scaleDType`, { module, scale });
}

function exactScales(module: string, scales: Float32Array, shape: readonly number[], dtype: DType): Tensor {
  const expected = elementCount(shape);
  if (scales.length !== expected) {
    throw new InputError("input.shape", `${module}: ${scales.length} scales, expected ${JSON.stringify(shape)}`, {
      module,
      found: scales.length,
      expected,
    });
  }
  const stored = fromFloat32(scales, shape, dtype);
  const kept = toFloat32(stored);
  const at = scales.findIndex((scale, i) => scale !== kept[i]);
  if (at >= 0) {
    throw new InputError(
      "input.value",
      `${module}: scale ${scales[at]} at ${at} is not a ${dtype} number; round scales before codes are chosen`,
      { module, at },
    );
  }
  // F32 is a view over the caller's scales; the map owns its bytes.
  return dtype === "F32" ? { ...stored, bytes: stored.bytes.slice() } : stored;
}

/** Codes and zero points in the signed range; float codes stay bit patterns. */
function signedCodes(
  module: string,
  { codes, zeros, channelAxis, shape }: QuantizedTensor,
  weight: QuantScheme,
  rows: number,
  cols: number,
): { readonly codes: Int8Array | Uint8Array; readonly zeros: Int8Array | undefined } {
  if (channelAxis !== 0 || elementCount(shape) !== rows * cols || shape[0] !== rows) {
    throw new InputError(
      "input.shape",
      `${module}: codes of shape ${JSON.stringify(shape)} (channel axis ${channelAxis}), expected [${rows}, ${cols}]`,
      {
        module,
        shape,
      },
    );
  }
  if (weight.format.kind !== "int") {
    if (codes.kind === "u8") return { codes: codes.data, zeros: undefined };
    throw new InputError("input.value", `${module}: ${schemeName(weight)} codes must be u8 bit patterns, got ${codes.kind}`, { module });
  }
  const { bits, symmetric } = weight.format;
  const offset = codes.kind === "u8" ? 2 ** (bits - 1) : 0;
  const signed =
    codes.kind === "packed"
      ? unpackSigned(module, codes.data, codes.bits, bits, rows, cols)
      : Int8Array.from(codes.data, (code) => code - offset);
  checkCodes(module, signed, codes, bits, offset);
  return { codes: signed, zeros: signedZeros(module, zeros, scaleShape(weight.granularity, rows, cols), bits, symmetric, offset) };
}

function checkCodes(module: string, signed: Int8Array, codes: QuantizedTensor["codes"], bits: number, offset: number): void {
  const limit = 2 ** (bits - 1);
  const at = signed.findIndex((code, i) => code < -limit || code >= limit || (codes.kind !== "packed" && codes.data[i]! - offset !== code));
  if (at < 0) return;
  const found = codes.kind === "packed" ? signed[at] : codes.data[at];
  throw new InputError("input.value", `${module}: code ${found} at ${at} does not fit ${bits} bits`, { module, at });
}

function unpackSigned(module: string, data: Uint8Array, packedBits: number, bits: number, rows: number, cols: number): Int8Array {
  if (packedBits !== bits)
    throw new InputError("input.value", `${module}: codes packed with ${packedBits} bits for a scheme of ${bits}`, { module });
  const rowBytes = Math.ceil((cols * bits) / 8);
  if (data.length !== rows * rowBytes) {
    throw new InputError("input.shape", `${module}: ${data.length} packed bytes, expected ${rows} rows of ${rowBytes}`, { module });
  }
  const out = new Int8Array(rows * cols);
  const offset = 2 ** (bits - 1);
  const row = new Uint8Array(cols);
  for (let r = 0; r < rows; r++) {
    unpackBits(data.subarray(r * rowBytes, (r + 1) * rowBytes), bits, row);
    for (let c = 0; c < cols; c++) out[r * cols + c] = row[c]! - offset;
  }
  return out;
}

function signedZeros(
  module: string,
  zeros: Float32Array | undefined,
  shape: readonly number[],
  bits: number,
  isSymmetric: boolean,
  offset: number,
): Int8Array | undefined {
  const count = elementCount(shape);
  // Unsigned codes of a symmetric scheme mean 0 by 2^(bits-1), and have to say so.
  if (zeros === undefined) {
    if (isSymmetric && offset === 0) return undefined;
    throw new InputError("input.value", `${module}: ${isSymmetric ? "unsigned codes" : "an asymmetric scheme"} without zero points`, {
      module,
    });
  }
  if (zeros.length !== count) {
    throw new InputError("input.shape", `${module}: ${zeros.length} zero points, expected ${JSON.stringify(shape)}`, {
      module,
      found: zeros.length,
    });
  }
  const limit = 2 ** (bits - 1);
  const at = zeros.findIndex(
    (zero) => !Number.isInteger(zero) || (isSymmetric ? zero !== offset : zero - offset < -limit || zero - offset >= limit),
  );
  if (at >= 0) {
    throw new InputError(
      "input.value",
      `${module}: zero point ${zeros[at]} at ${at} ${isSymmetric ? "of a symmetric scheme must be 0" : `must be an integer code of ${bits} bits`}`,
      { module, at },
    );
  }
  return isSymmetric ? undefined : Int8Array.from(zeros, (zero) => zero - offset);
}
