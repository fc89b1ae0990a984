/**
 * Block formats, bit exact: the definition that kernels repeat.
 *
 *   integers   code = clamp(round(x / 2^(s − f)), ±(2^(p−1) − 1)), half to even, f = p − 2;  value = code · 2^(s − f)
 *   floats     code = nearest element to x / 2^s, ties to even, clamped to ±max;             value = element · 2^s
 *   nvfp4      code = nearest e2m1 to f32(x / f32(S / g)), clamped to ±6;                    value = f32(e2m1 · f32(S / g))
 *
 * with 2^s or S by `scale.ts`. Integers lose the sign of zero, floats keep it (−0.1 may become −0).
 * g is f32(2688 / absmax) of the tensor, 1 when that is 0, at most the largest f32; in bf16 arithmetic it is
 * S(2688 · S(1 / S(absmax))), S rounding to bf16: torch divides a number by a tensor that way.
 *
 * Denormals are numbers like others; a block of zeros has scale byte 0 (nvfp4: 2^-3) and codes 0. A block with a NaN or
 * an infinity has the NaN scale (byte 0xFF, nvfp4 0x7F) and codes 0, so that every value of it reads as NaN; where
 * weights are written that is refused instead.
 *
 * Sources: OCP MX v1.0 §6.3, d-Matrix BFP, compressed-tensors 0.19 (nvfp4), and the rules of `scale.ts`.
 * @module
 */
import { roundStep, type Arithmetic } from "../dialect.ts";
import { InputError, NumericError } from "../errors.ts";
import { decodeFloat, decodeE8M0, E2M1, E4M3, E8M0_NAN, encodeE8M0, encodeFloat, exponentOf, FLOAT_FORMATS } from "../float.ts";
import type { QuantizedTensor } from "../quantized.ts";
import { clamp, roundHalfEven } from "../round.ts";
import type { ScaleRule } from "../scheme.ts";
import { blockScheme, elementFacts, requireBlockFormat, type BlockFormat } from "./format.ts";
import { scaleCodes, scaleExponents, squaredError } from "./scale.ts";

/** Largest e4m3 times largest e2m1: what the largest value of an NVFP4 tensor is brought to. */
const NVFP4_RANGE = 448 * 6;
const F32_MAX = 3.4028234663852886e38;
/** e4m3 NaN. */
const NAN_SCALE_CODE = 0x7f;

export interface BlockOptions {
  /** Default: floor; nvfp4: even. */
  readonly rule?: ScaleRule;
  /** Of nvfp4's scales: `bf16` repeats llm-compressor on a bf16 model to the byte. Powers of two do not depend on it. */
  readonly arithmetic?: Arithmetic;
  /** nvfp4: the tensor's divisor, for layers that must share one; by default from the tensor's largest magnitude. */
  readonly globalScale?: number;
  /** A last block that is shorter: `pad` (as if with zeros) or `refuse`. Default pad. */
  readonly partial?: "pad" | "refuse";
  /** NaN and infinities: `refuse`, or `nan`, which makes their whole block NaN. Default refuse; fake quantization: nan. */
  readonly notFinite?: "refuse" | "nan";
}

/** The rule a format has when none is asked for. */
export function defaultRule({ family }: BlockFormat): ScaleRule {
  return family === "nvfp4" ? "even" : "floor";
}

/**
 * nvfp4: the divisor of a tensor, or of tensors that share one.
 *
 * @param absMax - largest magnitude, finite, ≥ 0.
 */
export function nvfp4GlobalScale(absMax: number, arithmetic: Arithmetic = "f32"): number {
  const step = roundStep(arithmetic);
  const most = step(absMax);
  if (most === 0) return 1;
  const exact = arithmetic === "bf16" ? step(NVFP4_RANGE * step(1 / most)) : Math.fround(NVFP4_RANGE / most);
  return Number.isFinite(exact) ? exact : arithmetic === "bf16" ? 2 ** 128 - 2 ** 120 : F32_MAX;
}

/** What one block becomes. */
interface BlockCoder {
  /** Stored form of the scale: an E8M0 byte or an e4m3 code. */
  readonly scaleByte: number;
  /** Unit the codes are in, as `QuantizedTensor.scales` has it. */
  readonly scale: number;
  code(x: number): number;
  value(code: number): number;
}

/** Codes and values of blocks of one format at given scales. */
interface Coders {
  /** Coders to try for a block whose largest magnitude is `absMax`. */
  candidates(absMax: number): readonly BlockCoder[];
  readonly notANumber: BlockCoder;
}

function powerCoders(format: BlockFormat, rule: ScaleRule): Coders {
  const facts = elementFacts(format);
  const { float, fractionBits } = facts;
  const limit = format.element.kind === "int" ? 2 ** (format.element.bits - 1) - 1 : 0;
  const coder = (s: number): BlockCoder => {
    const unit = 2 ** (s - fractionBits);
    return {
      scaleByte: encodeE8M0(s),
      scale: unit,
      code: float === undefined ? (x) => clamp(roundHalfEven(x / unit), -limit, limit) + 0 : (x) => encodeFloat(float, x / unit, true),
      value: float === undefined ? (code) => Math.fround(code * unit) : (code) => Math.fround(decodeFloat(float, code) * unit),
    };
  };
  const cache = new Map<number, BlockCoder>();
  const cached = (s: number): BlockCoder => {
    let found = cache.get(s);
    if (found === undefined) cache.set(s, (found = coder(s)));
    return found;
  };
  return {
    candidates: (absMax) => scaleExponents(facts, rule, absMax).map(cached),
    notANumber: { scaleByte: E8M0_NAN, scale: NaN, code: () => 0, value: () => NaN },
  };
}

function nvfp4Coders(globalScale: number, rule: ScaleRule, arithmetic: Arithmetic): Coders {
  const step = roundStep(arithmetic);
  return {
    candidates: (absMax) =>
      scaleCodes(rule, Math.fround(globalScale * step(absMax / E2M1.max))).map((scaleByte): BlockCoder => {
        const scale = decodeFloat(E4M3, scaleByte);
        const unit = Math.fround(scale / globalScale);
        return {
          scaleByte,
          scale,
          code: (x) => encodeFloat(E2M1, Math.fround(x / unit), true),
          value: (code) => Math.fround(decodeFloat(E2M1, code) * unit),
        };
      }),
    notANumber: { scaleByte: NAN_SCALE_CODE, scale: NaN, code: () => 0, value: () => NaN },
  };
}

/** Visits blocks in order with the coder chosen for each. */
function forEachBlock(
  values: Float32Array,
  cols: number,
  format: BlockFormat,
  options: BlockOptions & { readonly notFinite: "refuse" | "nan" },
  visit: (block: number, start: number, end: number, coder: BlockCoder) => void,
): number | undefined {
  const { rule = defaultRule(format), arithmetic = "f32", partial = "pad", notFinite } = options;
  const size = format.block;
  if (partial === "refuse" && cols % size !== 0) {
    throw new InputError("input.shape", `${format.name} has blocks of ${size}, which do not divide ${cols} columns`, { cols, block: size });
  }
  if (notFinite === "refuse") {
    const index = values.findIndex((x) => !Number.isFinite(x));
    if (index >= 0) throw new NumericError("numeric.not-finite", `${format.name}: value ${index} is ${values[index]}`, { index });
  }
  const globalScale = format.family === "nvfp4" ? checkedGlobalScale(values, options.globalScale, arithmetic) : undefined;
  const coders = globalScale === undefined ? powerCoders(format, rule) : nvfp4Coders(globalScale, rule, arithmetic);
  let block = 0;
  for (let row = 0; row < values.length; row += cols) {
    for (let c = 0; c < cols; c += size) {
      const [start, end] = [row + c, row + Math.min(c + size, cols)];
      const absMax = absMaxOf(values, start, end);
      const coder = Number.isFinite(absMax) ? best(coders.candidates(absMax), values, start, end) : coders.notANumber;
      visit(block++, start, end, coder);
    }
  }
  return globalScale;
}

function best(candidates: readonly BlockCoder[], values: Float32Array, start: number, end: number): BlockCoder {
  let found = candidates[0]!;
  if (candidates.length === 1) return found;
  let least = Infinity;
  for (const candidate of candidates) {
    const error = squaredError(values, start, end, (x) => candidate.value(candidate.code(x)));
    if (error < least) [found, least] = [candidate, error];
  }
  return found;
}

/** NaN when there is one. */
function absMaxOf(values: Float32Array, start: number, end: number): number {
  let most = 0;
  for (let i = start; i < end; i++) {
    const magnitude = Math.abs(values[i]!);
    if (!(magnitude <= most)) most = magnitude;
    if (Number.isNaN(most)) return NaN;
  }
  return most;
}

function checkedGlobalScale(values: Float32Array, given: number | undefined, arithmetic: Arithmetic): number {
  if (given === undefined) {
    let most = 0;
    for (const x of values) if (Math.abs(x) > most && Math.abs(x) < Infinity) most = Math.abs(x);
    return nvfp4GlobalScale(most, arithmetic);
  }
  const scale = Math.fround(given);
  if (!(scale > 0 && scale < Infinity)) {
    throw new InputError("input.value", `the global scale of nvfp4 must be positive and finite, not ${given}`, { globalScale: given });
  }
  return scale;
}

function checkShape(op: string, length: number, rows: number, cols: number): void {
  if (!Number.isInteger(rows) || !Number.isInteger(cols) || rows < 0 || cols < 0 || length !== rows * cols) {
    throw new InputError("input.shape", `${op}: ${length} values are not ${rows} × ${cols}`, { length, rows, cols });
  }
}

/** Blocks of a matrix. */
export function blockCount({ block }: BlockFormat, rows: number, cols: number): number {
  return rows * Math.ceil(cols / block);
}

/**
 * Codes and scales of a matrix, blocks along its columns.
 *
 * @param values - finite unless `notFinite` is `nan`, shape [rows, cols].
 * @returns integers: codes i8 (at most 8 bits) or i16; floats: bit patterns u8. Scales [rows, ceil(cols / block)]: integers value per
 *   code, floats 2^s, nvfp4 the e4m3 number, with `globalScale` its divisor; NaN for a block that is not finite.
 * @throws {InputError} `input.shape`, `input.value`; {NumericError} `numeric.not-finite` with the first such index.
 */
export function quantizeBlocks(
  values: Float32Array,
  rows: number,
  cols: number,
  format: BlockFormat,
  options: BlockOptions = {},
): QuantizedTensor {
  checkShape("quantizeBlocks", values.length, rows, cols);
  const { element } = format;
  const codes =
    element.kind === "float"
      ? ({ kind: "u8", data: new Uint8Array(values.length) } as const)
      : element.bits <= 8
        ? ({ kind: "i8", data: new Int8Array(values.length) } as const)
        : ({ kind: "i16", data: new Int16Array(values.length) } as const);
  const scales = new Float32Array(blockCount(format, rows, cols));
  const globalScale = forEachBlock(values, cols, format, { notFinite: "refuse", ...options }, (block, start, end, coder) => {
    scales[block] = coder.scale;
    for (let i = start; i < end; i++) codes.data[i] = coder.code(values[i]!);
  });
  return {
    shape: [rows, cols],
    channelAxis: 0,
    scheme: blockScheme(format, "static", options.rule),
    codes,
    scales,
    ...(globalScale === undefined ? {} : { globalScale }),
  };
}

/** Each value replaced by what its code reads as, in place. `values.length` must be a multiple of `cols`; other conditions as {@link quantizeBlocks}. */
export function fakeQuantizeBlocks(values: Float32Array, cols: number, format: BlockFormat, options: BlockOptions = {}): void {
  checkShape("fakeQuantizeBlocks", values.length, cols === 0 ? 0 : values.length / cols, cols);
  forEachBlock(values, cols, format, { notFinite: "nan", ...options }, (_, start, end, coder) => {
    for (let i = start; i < end; i++) values[i] = coder.value(coder.code(values[i]!));
  });
}

/**
 * Values of a matrix in a block format, f32.
 *
 * @throws {UnsupportedError} `unsupported.scheme` when the scheme is no block format; {InputError} `input.shape` when lengths disagree.
 */
export function dequantizeBlocks(quantized: QuantizedTensor): Float32Array {
  const format = requireBlockFormat(quantized.scheme);
  const rows = quantized.shape[0] ?? 1;
  const cols = quantized.shape.slice(1).reduce((product, size) => product * size, 1);
  const { codes, scales, globalScale = 1 } = quantized;
  checkShape("dequantizeBlocks", codes.data.length, rows, cols);
  const perRow = Math.ceil(cols / format.block);
  if (scales.length !== rows * perRow) {
    throw new InputError("input.shape", `dequantizeBlocks: ${scales.length} scales, expected [${rows}, ${perRow}]`, { rows, perRow });
  }
  const elements = elementValues(format);
  const out = new Float32Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const scale = scales[r * perRow + Math.floor(c / format.block)]!;
      const unit = format.family === "nvfp4" ? Math.fround(scale / globalScale) : scale;
      const code = codes.data[r * cols + c]!;
      out[r * cols + c] = (elements === undefined ? code : elements[code]!) * unit;
    }
  }
  return out;
}

/** Values of all codes of a float element; undefined for integers, which are their own value. */
export function elementValues({ element }: BlockFormat): Float32Array | undefined {
  if (element.kind === "int") return undefined;
  const float = FLOAT_FORMATS[element.format];
  return Float32Array.from({ length: 2 ** (1 + float.exponentBits + float.mantissaBits) }, (_, code) => decodeFloat(float, code));
}

/** Scales as stored bytes: E8M0 of 2^s, or e4m3 codes for nvfp4. @param scales - as `quantizeBlocks` gives them. */
export function encodeScales(format: BlockFormat, scales: Float32Array): Uint8Array {
  if (format.family === "nvfp4") return Uint8Array.from(scales, (scale) => encodeFloat(E4M3, scale, true));
  const { fractionBits } = elementFacts(format);
  return Uint8Array.from(scales, (scale) => (Number.isNaN(scale) ? E8M0_NAN : encodeE8M0(exponentOf(scale) + fractionBits)));
}

/** The inverse of {@link encodeScales}. */
export function decodeScales(format: BlockFormat, bytes: Uint8Array): Float32Array {
  if (format.family === "nvfp4") return Float32Array.from(bytes, (code) => decodeFloat(E4M3, code));
  const unit = 2 ** -elementFacts(format).fractionBits;
  return Float32Array.from(bytes, (byte) => decodeE8M0(byte) * unit);
}
