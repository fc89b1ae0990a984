/**
 * Sites of an ONNX graph: nodes with a constant weight, wherever the weight is kept.
 * @module
 */
import type { OnnxNode } from "../../formats/containers/onnx/model.ts";
import type { OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import type { BodyPath } from "./bodies.ts";

/** Operators that hold weights; all but the last two are of the standard domain. */
export type OnnxSiteOp =
  "MatMul" | "Gemm" | "Conv" | "ConvTranspose" | "Gather" | "LSTM" | "GRU" | "RNN" | "Attention" | "QAttention" | "FusedMatMul";

/** What a site does with its weight. */
export type OnnxSiteKind = "linear" | "conv" | "embedding" | "recurrent" | "attention";

/** A constant and where it is kept. */
export interface OnnxConstant {
  /** Value as the reader of `value` sees it: every Identity, Transpose, Cast, … on the way is applied when it is read. */
  readonly tensor: OnnxTensor;
  /** Name of the value at the end of the way, as the node reads it. */
  readonly value: string;
  /** The stored tensor at the beginning of the way. */
  readonly stored: OnnxTensor;
  /** An initializer of the body at `path`, or the value of a Constant node there. */
  readonly source: { readonly kind: "initializer" | "constant"; readonly name: string; readonly path: BodyPath };
  /** Nodes between the stored tensor and `value`, in order of computation, e.g. Transpose, Cast, DequantizeLinear. */
  readonly chain: readonly OnnxNode[];
  /** Whether the chain dequantizes integers: the weight is quantized already. */
  readonly isDequantized: boolean;
}

/** The weight of a site. */
export interface OnnxSiteWeight extends OnnxConstant {
  /** Axis of output channels in `tensor.shape` (of a grouped ConvTranspose: channels of one group; of recurrent W and R: gates). */
  readonly channelAxis: number;
  /** Axis that is summed over with the input's channels; undefined for Gather. */
  readonly inputAxis?: number;
  /** Place among the node's inputs. */
  readonly slot: number;
}

/** One weight of one node. LSTM, GRU and RNN give two: W (slot 1) and R (slot 2). */
export interface OnnxSite {
  /** Stable and unique: the stored tensor's name where only this site reads it, else the node's, else its first output's. */
  readonly name: string;
  readonly kind: OnnxSiteKind;
  readonly op: OnnxSiteOp;
  /** Graph or function body that holds the node. */
  readonly path: BodyPath;
  readonly node: OnnxNode;
  /** Place of the node in its body. */
  readonly index: number;
  readonly weight: OnnxSiteWeight;
  /** Value that is multiplied by the weight; for Gather the indices. */
  readonly input: string;
  /** First output of the node. */
  readonly output: string;
  /** Constant bias among the node's own inputs (Gemm, Conv, Attention). */
  readonly bias?: OnnxConstant & { readonly slot: number };
  /** Groups of Conv and ConvTranspose; 1 elsewhere. */
  readonly groups: number;
  /** Whether the input can be observed by a run: the node stands in the main graph. */
  readonly observable: boolean;
}

/** A site whose weight is quantized already, left as it is. */
export interface QuantizedOnnxSite {
  readonly name: string;
  readonly op: string;
  readonly path: BodyPath;
  readonly node: OnnxNode;
}
