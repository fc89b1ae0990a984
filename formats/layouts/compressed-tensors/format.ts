/**
 * On-disk formats of one quantized module, and what they have in common.
 * @module
 */
import type { DType } from "../../../core/dtype.ts";
import type { QuantizedTensor } from "../../../core/quantized.ts";
import type { QuantScheme } from "../../../core/scheme.ts";
import type { LazyTensor, Tensor } from "../../../core/tensor.ts";
import type { TensorSpec } from "../../containers/container.ts";

/** A linear layer and how it is quantized. */
export interface Site {
  readonly weight: QuantScheme;
  readonly input?: QuantScheme;
  readonly output?: QuantScheme;
  /** Output features. */
  readonly rows: number;
  /** Input features. */
  readonly cols: number;
  /** 1 for weights stored [in, out] (Conv1D of gpt2); 0, the default, for torch Linear. */
  readonly channelAxis?: 0 | 1;
  /** Static activations: unit activation per code, and the code that means 0. */
  readonly inputScale?: number;
  readonly inputZero?: number;
  readonly outputScale?: number;
  readonly outputZero?: number;
  /** NVFP4 activations: the calibrated divisor, `input_global_scale`. */
  readonly inputGlobalScale?: number;
}

export type TensorRole =
  | "codes"
  | "scales"
  | "global-scale"
  | "zeros"
  | "shape"
  | "groups"
  | "input-scale"
  | "input-zero"
  | "input-global-scale"
  | "output-scale"
  | "output-zero";

/** A tensor of a module, with what it means. */
export interface ModuleTensor extends TensorSpec {
  readonly role: TensorRole;
}

/** Names after the module's, by role. Codes have the name their format gives them. */
export const SUFFIXES = {
  scales: ".weight_scale",
  "global-scale": ".weight_global_scale",
  zeros: ".weight_zero_point",
  shape: ".weight_shape",
  groups: ".weight_g_idx",
  "input-scale": ".input_scale",
  "input-zero": ".input_zero_point",
  "input-global-scale": ".input_global_scale",
  "output-scale": ".output_scale",
  "output-zero": ".output_zero_point",
} as const;

/** Everything a weight's bytes consist of. */
export type Parts<T> = Partial<Record<TensorRole, T>>;

/** How the weight of a module is stored. To add one: a file beside this one and a line in `formats.ts`. */
export interface WeightFormat {
  /** As in config.json, e.g. "pack-quantized". */
  readonly name: string;
  /** Name of the tensor that holds the codes, after the module's. */
  readonly codesSuffix: ".weight" | ".weight_packed";
  /** Whether the library would choose this format for a module, asked in the order of its own inference. */
  isFor(weight: QuantScheme, hasInput: boolean): boolean;
  /** Why a scheme cannot be stored, or undefined when it can. */
  refuses(weight: QuantScheme): string | undefined;
  /** Tensors of the weight for a matrix of [rows, cols]. */
  specs(weight: QuantScheme, rows: number, cols: number, scaleDType: DType): readonly Omit<ModuleTensor, "name">[];
  /**
   * Rows and columns of a stored weight; reads `weight_shape` at most.
   *
   * @throws {FormatError} when the tensors do not fit each other or the scheme.
   */
  readShape(parts: Parts<LazyTensor>, weight: QuantScheme, module: string): Promise<readonly [number, number]>;
  /** Codes and zero points as bytes; scales are the same in all formats that have no {@link blocks}. */
  encode(codes: Int8Array | Uint8Array, zeros: Int8Array | undefined, weight: QuantScheme, rows: number, cols: number): Parts<Tensor>;
  /** Signed codes (float: bit patterns as u8) and zero points. */
  decode(
    parts: Parts<Tensor>,
    weight: QuantScheme,
    rows: number,
    cols: number,
  ): { readonly codes: QuantizedTensor["codes"]; readonly zeros?: Int8Array };
  /** Formats whose scales are not floats of the model's dtype: how those of a block format lie in bytes. */
  readonly blocks?: {
    encodeScales(quantized: Pick<QuantizedTensor, "scales" | "globalScale">, rows: number, cols: number, module: string): Parts<Tensor>;
    decodeScales(parts: Parts<Tensor>, module: string): { readonly scales: Float32Array; readonly globalScale?: number };
  };
}
