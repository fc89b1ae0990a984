/**
 * QuantizedTensor: what methods produce and encodings store.
 * @module
 */
import type { QuantScheme } from "./scheme.ts";

/** Integer codes, one element each, or already packed in a scheme's own bit order. */
export type Codes =
  | { readonly kind: "i8"; readonly data: Int8Array }
  | { readonly kind: "u8"; readonly data: Uint8Array }
  | { readonly kind: "i16"; readonly data: Int16Array }
  /** Little-endian bit stream (`core/pack.ts`), each row padded to whole bytes; offset-binary for signed codes. */
  | { readonly kind: "packed"; readonly bits: number; readonly data: Uint8Array };

/**
 * Codes and the numbers that turn them back into weights: w = (code − zero) · scale.
 * Matrices, Conv kernels, LSTM gates and experts alike: every axis but `channelAxis` is flattened into columns.
 */
export interface QuantizedTensor {
  /** Logical shape of the tensor. */
  readonly shape: readonly number[];
  /** Axis of the output channels: 0 for a Linear [out, in] and a Conv, 1 for Conv1D/MatMul [in, out]. */
  readonly channelAxis: number;
  readonly scheme: QuantScheme;
  /** Row-major in the logical shape. int: the code; float: the bit pattern as u8. */
  readonly codes: Codes;
  /** Unit: weight per code, all > 0 unless the dialect says otherwise; shape by `scaleShape`. Already rounded as stored. */
  readonly scales: Float32Array;
  /** Codes that mean 0, same shape as `scales`; absent for symmetric schemes. */
  readonly zeros?: Float32Array;
  /** Second-level scale above `scales` (NVFP4: a divisor). */
  readonly globalScale?: number;
}
