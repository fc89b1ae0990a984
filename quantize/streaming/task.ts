/**
 * Tensor tasks: what to do with one tensor, as plain data that a worker can get.
 *
 * A task reads one tensor, from its place in a file or from memory, and writes
 * regions of files that the caller has laid out and given their full length.
 * @module
 */
import type { Arithmetic } from "../../core/dialect.ts";
import type { DType } from "../../core/dtype.ts";
import type { QuantScheme } from "../../core/scheme.ts";
import type { MatrixFactors } from "../../kernels/scale-matrix/scale-matrix.ts";

/** Where a tensor's bytes are. */
export type TensorSource =
  | { readonly kind: "file"; readonly path: string; readonly offset: number }
  /** Copied to the worker, unless it lies in a SharedArrayBuffer. */
  | { readonly kind: "bytes"; readonly bytes: Uint8Array };

export interface TaskInput {
  readonly source: TensorSource;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** A run of bytes in a file that exists and is at least that long. */
export interface OutputRegion {
  readonly role: OutputRole;
  readonly path: string;
  readonly offset: number;
  readonly byteLength: number;
}

/** `tensor`: the whole result of copy and rescale; the others are parts of a quantized weight. */
export type OutputRole = "tensor" | "codes" | "scales" | "global-scale" | "zeros" | "shape";

interface TaskBase {
  /** The tensor, for messages and results. */
  readonly name: string;
  readonly input: TaskInput;
  readonly outputs: readonly OutputRegion[];
}

/** Output `tensor`: the same bytes. */
export interface CopyTask extends TaskBase {
  readonly kind: "copy";
}

/**
 * Output `tensor`: values times (or over) row and column factors in f32, rounded to `dtype`.
 * A tensor of one axis is one row, so that norms and biases take column factors.
 */
export interface RescaleTask extends TaskBase {
  readonly kind: "rescale";
  readonly factors: MatrixFactors;
  /** The stored dtype of the result: F32, BF16 or F16. */
  readonly dtype: DType;
}

/** How zero points are stored. */
export type ZeroForm =
  /** One i8 per scale: naive and int formats of compressed-tensors. */
  | "i8"
  /** Offset-binary, packed down the rows: word [r, g] of I32 [ceil(rows · bits / 32), groups]. */
  | "packed-rows"
  /** One f32 per scale, in the dialect's own code range less the storage shift. */
  | "f32";

/** Outputs `codes`, `scales`, for asymmetric schemes `zeros`, and where wanted `shape` (I64 [rows, cols]). */
export interface QuantizeTask extends TaskBase {
  readonly kind: "quantize";
  /** 0: rows are output channels. 1: columns are (Conv1D); codes then keep the stored [in, out] order, scales are per column. */
  readonly channelAxis: 0 | 1;
  /**
   * Static int (2 to 8 bits) or e4m3; tensor, channel or group granularity. Or a block format (BFP, MX, NVFP4): `scales` is
   * then one byte a block, NVFP4 has `global-scale` (F32 [1]) too, and with channel axis 1 rows of codes are output channels.
   */
  readonly scheme: QuantScheme;
  /** `bf16`: values are rounded to bf16 too, after the factors, as a bf16 model would hold them. */
  readonly arithmetic: Arithmetic;
  readonly scaleDType: "F32" | "BF16" | "F16";
  /** Applied in f32 before anything else, along output (rows) and input (columns) channels. */
  readonly factors?: MatrixFactors;
  /** One byte a code, or one bit stream a row, each row taking an equal share of the region. */
  readonly codes: "bytes" | "packed";
  readonly zeros?: ZeroForm;
  /** NVFP4: the divisor, for layers that share one; by default the tensor's own. */
  readonly globalScale?: number;
}

/** No output: only `absMax` of the values after the factors, for tensors that share a divisor (NVFP4). */
export interface RangeTask extends TaskBase {
  readonly kind: "range";
  readonly arithmetic: Arithmetic;
  readonly factors?: MatrixFactors;
}

export type TensorTask = CopyTask | RescaleTask | QuantizeTask | RangeTask;

export interface TaskResult {
  readonly name: string;
  readonly outputs: readonly { readonly role: OutputRole; readonly sha256: string }[];
  /** Σw² of the values that were quantized, f64 in the order of `kernels/error-sums.ts`; 0 for copy and rescale. */
  readonly sumSquares: number;
  /** Σ(w − ŵ)². */
  readonly sumSquaredError: number;
  /** Largest |w| of the values that were quantized, rescaled or measured. */
  readonly absMax?: number;
  readonly seconds: number;
}
