/**
 * An ONNX model as plain data: what onnx.proto says, less what we neither read nor write.
 * @module
 */
import type { DType } from "../../../core/dtype.ts";
import type { Tensor } from "../../../core/tensor.ts";

export interface OnnxModel {
  /** Lowest IR version that the operators and dtypes need; 11 for opset 23. */
  readonly irVersion: number;
  /** Version by domain; "" is the standard domain. */
  readonly opsets: Readonly<Record<string, number>>;
  readonly producerName?: string;
  readonly producerVersion?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly graph: OnnxGraph;
}

export interface OnnxGraph {
  readonly name: string;
  readonly nodes: readonly OnnxNode[];
  readonly initializers: ReadonlyMap<string, Tensor>;
  readonly inputs: readonly OnnxValueInfo[];
  readonly outputs: readonly OnnxValueInfo[];
}

/** A value's name and, as far as it is known, its type. A missing shape means any rank; an empty one means a scalar. */
export interface OnnxValueInfo {
  readonly name: string;
  readonly dtype?: DType;
  readonly shape?: readonly (number | string)[];
}

export interface OnnxNode {
  readonly name: string;
  readonly op: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, OnnxAttribute>;
}

/** Tagged as AttributeProto.type. */
export type OnnxAttribute =
  | { readonly kind: "int"; readonly value: number }
  | { readonly kind: "float"; readonly value: number }
  | { readonly kind: "string"; readonly value: string }
  | { readonly kind: "ints"; readonly value: readonly number[] }
  | { readonly kind: "floats"; readonly value: readonly number[] }
  | { readonly kind: "strings"; readonly value: readonly string[] }
  | { readonly kind: "tensor"; readonly value: Tensor }
  | { readonly kind: "graph"; readonly value: OnnxGraph };
