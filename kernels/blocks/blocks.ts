/**
 * blocks: block formats (`core/blocks`) by SIMD, codes and values to the bit those of the definition.
 *
 *   encode          bf16 or f32 to codes (one a byte, two bytes above 8 bits, or one bit stream a row) and scale bytes
 *   decode          codes and scale bytes to f32
 *   fake-quantize   f32 in place
 *
 * Scales are bytes: E8M0 (2^(byte − 127)), or e4m3 for nvfp4. Bit streams are little-endian, the first code in the lowest
 * bits, integers in two's complement, each row from a whole byte on (`formats/encodings/blocks.ts`).
 * @module
 */
import type { Arithmetic } from "../../core/dialect.ts";
import { InputError, NumericError } from "../../core/errors.ts";
import { encodeFloat } from "../../core/float.ts";
import { packedLength } from "../../core/pack.ts";
import type { ScaleRule } from "../../core/scheme.ts";
import { elementFacts, type BlockFormat } from "../../core/blocks/format.ts";
import { blockCount, defaultRule, elementValues, nvfp4GlobalScale } from "../../core/blocks/quantize.ts";
import { wasm } from "../generated/blocks.wasm.ts";
import { threadWorkspace, type Region, type Workspace } from "../load-wasm.ts";
import { INFINITY_BITS, type Stored } from "../runs.ts";

type Encode = (
  x: number,
  rows: number,
  cols: number,
  block: number,
  codes: number,
  stride: number,
  scales: number,
  pack: number,
  scratch: number,
) => number;
type SumErrors = (x: number, read: number, rows: number, cols: number, sums: number) => void;
interface BlocksKernel {
  readonly configure: (
    kind: number,
    bits: number,
    fraction: number,
    least: number,
    topCode: number,
    topValue: number,
    top: number,
    limit: number,
    search: number,
  ) => void;
  readonly configureTensor: (divisor: number, halfStep: number, direction: number) => void;
  readonly encodeBf16: Encode;
  readonly encodeF32: Encode;
  readonly pack: (x: number, rows: number, cols: number, stride: number, out: number) => void;
  readonly unpack: (x: number, rows: number, cols: number, stride: number, out: number) => void;
  readonly decode: (codes: number, rows: number, cols: number, block: number, scales: number, table: number, out: number) => void;
  readonly fakeQuantize: (x: number, rows: number, cols: number, block: number) => void;
  readonly sumErrorsBf16: SumErrors;
  readonly sumErrorsF32: SumErrors;
  readonly maxBf16: (x: number, n: number) => number;
  readonly maxF32: (x: number, n: number) => number;
}

/** How blocks of one tensor are encoded; as `BlockOptions` of the definition. */
export interface BlockCoding {
  readonly format: BlockFormat;
  readonly rule?: ScaleRule | undefined;
  readonly arithmetic?: Arithmetic | undefined;
  /** nvfp4: needed, since a kernel sees pieces of a tensor. */
  readonly globalScale?: number | undefined;
}

/** A matrix in a workspace. */
export interface BlockShape {
  readonly rows: number;
  readonly cols: number;
}

/** Bits of one code. */
export function blockBits({ element }: BlockFormat): number {
  if (element.kind === "int") return element.bits;
  return { e4m3: 8, e5m2: 8, e3m2: 6, e2m3: 6, e2m1: 4 }[element.format];
}

/** Bytes of a code that is not packed. */
export function codeWidth(format: BlockFormat): 1 | 2 {
  return blockBits(format) > 8 ? 2 : 1;
}

/** Bytes of a packed row. */
export function packedRowBytes(format: BlockFormat, cols: number): number {
  return packedLength(cols, blockBits(format));
}

const NEVER = 0x7fffff;

/** A maximum whose 23 mantissa bits are above this takes the next scale (`core/blocks/scale.ts`). */
function mantissaLimit(rule: ScaleRule, max: number, maxExponent: number, roundBits: number): number {
  switch (rule) {
    case "floor":
    case "mse":
      return NEVER;
    case "ceil":
      return 0;
    case "rceil":
      return (max / 2 ** maxExponent - 1) * 2 ** 23;
    case "even":
      return (1 - 2 ** -(roundBits + 1)) * 2 ** 23 - 1;
    default:
      return rule satisfies never;
  }
}

const KINDS = { int: 0, float: 1, nvfp4: 2 } as const;

function configured(workspace: Workspace, coding: BlockCoding): BlocksKernel {
  const { format, rule = defaultRule(format), arithmetic = "f32", globalScale } = coding;
  const kernel = workspace.kernel<BlocksKernel>(wasm);
  const { max, maxExponent, roundBits, fractionBits, float } = elementFacts(format);
  const { element } = format;
  const kind = format.family === "nvfp4" ? KINDS.nvfp4 : KINDS[element.kind];
  const limit = mantissaLimit(rule, max, maxExponent, roundBits);
  const search = Number(rule === "mse");
  if (element.kind === "int")
    kernel.configure(kind, element.bits, fractionBits, 0, 2 ** (element.bits - 1) - 1, 0, maxExponent, limit, search);
  else {
    const { bias, mantissaBits } = float!;
    const topCode = encodeFloat(float!, max);
    kernel.configure(kind, blockBits(format), mantissaBits, 128 - bias, topCode, max, maxExponent, limit, search);
  }
  if (format.family === "nvfp4") {
    if (globalScale === undefined || !(globalScale > 0 && globalScale < Infinity)) {
      throw new InputError("input.value", `nvfp4 needs a global scale that is positive and finite, got ${globalScale}`, { globalScale });
    }
    const direction = rule === "floor" ? 1 : rule === "ceil" || rule === "rceil" ? 2 : 0;
    kernel.configureTensor(globalScale, Number(arithmetic === "bf16"), direction);
  }
  return kernel;
}

/** Byte offsets for {@link encodeBlocksAt}. */
export interface EncodePlaces {
  readonly x: number;
  /** Rows of `stride` bytes. */
  readonly codes: number;
  readonly stride: number;
  /** One byte a block. */
  readonly scales: number;
  /** Given: codes become bit streams, made by way of this room for one row of codes that are not packed. */
  readonly scratch?: number;
}

/** Codes of a matrix. @returns f32 bits of the largest magnitude; from `INFINITY_BITS` on some block was not finite and is NaN. */
export function encodeBlocksAt(
  workspace: Workspace,
  stored: Stored,
  { rows, cols }: BlockShape,
  coding: BlockCoding,
  places: EncodePlaces,
): number {
  const kernel = configured(workspace, coding);
  const { x, codes, stride, scales, scratch } = places;
  const encode = stored === "bf16" ? kernel.encodeBf16 : kernel.encodeF32;
  return encode(x, rows, cols, coding.format.block, codes, stride, scales, Number(scratch !== undefined), scratch ?? 0) >>> 0;
}

/** Bytes of the table that {@link decodeBlocksAt} needs. */
export const TABLE_BYTES = 1024;

/** Writes the values of all codes, which decoding looks up. */
export function writeTable(workspace: Workspace, table: Region, format: BlockFormat): void {
  const values = elementValues(format);
  if (values !== undefined) workspace.f32(table).set(values);
}

/** Values of codes that are not packed. `table`: made by {@link writeTable}. */
export function decodeBlocksAt(
  workspace: Workspace,
  { rows, cols }: BlockShape,
  { format, globalScale }: BlockCoding,
  { codes, scales, table, out }: { readonly codes: number; readonly scales: number; readonly table: number; readonly out: number },
): void {
  configured(workspace, { format, globalScale }).decode(codes, rows, cols, format.block, scales, table, out);
}

/** Codes to bit streams of `stride` bytes a row. */
export function packBlocksAt(
  workspace: Workspace,
  { rows, cols }: BlockShape,
  { format, globalScale }: BlockCoding,
  { x, stride, out }: { readonly x: number; readonly stride: number; readonly out: number },
): void {
  configured(workspace, { format, globalScale }).pack(x, rows, cols, stride, out);
}

/** Bit streams of `stride` bytes a row to codes that are not packed. */
export function unpackBlocksAt(
  workspace: Workspace,
  { rows, cols }: BlockShape,
  { format, globalScale }: BlockCoding,
  { x, stride, out }: { readonly x: number; readonly stride: number; readonly out: number },
): void {
  configured(workspace, { format, globalScale }).unpack(x, rows, cols, stride, out);
}

/** f32 values in place; a block that is not finite becomes NaN. */
export function fakeQuantizeBlocksAt(workspace: Workspace, { rows, cols }: BlockShape, coding: BlockCoding, x: number): void {
  configured(workspace, coding).fakeQuantize(x, rows, cols, coding.format.block);
}

/** Adds Σx² and Σ(x − x̂)² to the two f64 at `sums`; squares in f64, four sums a row by column modulo 4. */
export function sumErrorsAt(workspace: Workspace, stored: Stored, { rows, cols }: BlockShape, x: number, read: number, sums: number): void {
  const kernel = workspace.kernel<BlocksKernel>(wasm);
  (stored === "bf16" ? kernel.sumErrorsBf16 : kernel.sumErrorsF32)(x, read, rows, cols, sums);
}

/** f32 bits of the largest magnitude of `count` values. */
export function maxMagnitudeAt(workspace: Workspace, stored: Stored, x: number, count: number): number {
  const kernel = workspace.kernel<BlocksKernel>(wasm);
  return (stored === "bf16" ? kernel.maxBf16 : kernel.maxF32)(x, count) >>> 0;
}

/**
 * `fakeQuantizeBlocks` of the definition, by the SIMD twin: values in and out of this thread's workspace.
 *
 * @param values - `values.length` a multiple of `cols`; blocks with NaN or infinity become NaN. nvfp4 without a global scale takes the values' own.
 * @throws {InputError} `input.shape`; {NumericError} `numeric.not-finite` when nvfp4 has no finite range to take.
 */
export function fakeQuantizeBlocksFast(values: Float32Array, cols: number, coding: BlockCoding): void {
  const rows = cols === 0 ? 0 : values.length / cols;
  if (!Number.isInteger(rows)) {
    throw new InputError("input.shape", `fakeQuantizeBlocksFast: ${values.length} values are not rows of ${cols}`, { cols });
  }
  const workspace = threadWorkspace();
  const mark = workspace.mark();
  try {
    const x = workspace.take(values.byteLength);
    workspace.f32(x).set(values);
    const isDynamic = coding.format.family === "nvfp4" && coding.globalScale === undefined;
    const globalScale = isDynamic ? ownGlobalScale(workspace, x, values.length, coding.arithmetic) : coding.globalScale;
    fakeQuantizeBlocksAt(workspace, { rows, cols }, { ...coding, globalScale }, x.at);
    values.set(workspace.f32(x));
  } finally {
    workspace.release(mark);
  }
}

const bits = new Uint32Array(1);
const value = new Float32Array(bits.buffer);
function ownGlobalScale(workspace: Workspace, x: Region, count: number, arithmetic: Arithmetic = "f32"): number {
  bits[0] = maxMagnitudeAt(workspace, "f32", x.at, count);
  if (bits[0] < INFINITY_BITS) return nvfp4GlobalScale(value[0]!, arithmetic);
  throw new NumericError("numeric.not-finite", "nvfp4: a tensor with NaN or infinity has no range; pass its global scale", {});
}

/** Scale bytes of a matrix. */
export function scaleBytes(format: BlockFormat, { rows, cols }: BlockShape): number {
  return blockCount(format, rows, cols);
}
