/**
 * An ONNX model as plain data: all that onnx.proto says. Rewrites are functions from one to another;
 * nothing is changed in place. Tensors are read when they are asked for.
 *
 * Names and texts are JavaScript strings. Bytes of a file that are no UTF-8 become the lone surrogates
 * U+DC80 to U+DCFF and are written back as the bytes they were.
 * @module
 */
import type { OnnxDType } from "./dtypes.ts";
import type { OnnxTensor } from "./tensor.ts";

/** What any message may carry beside its own fields. */
export interface OnnxExtras {
  readonly docString?: string;
  readonly metadata?: ReadonlyMap<string, string>;
  /** Fields that onnx.proto (IR 13) does not know, as they stood: tags and values. Written back at the end. */
  readonly unknownFields?: Uint8Array;
}

export interface OnnxModel extends OnnxExtras {
  /** The writer raises it where operators or dtypes need more. */
  readonly irVersion: number;
  /** Version by domain; "" is the standard domain ("ai.onnx" is read as ""). */
  readonly opsets: ReadonlyMap<string, number>;
  readonly producerName?: string;
  readonly producerVersion?: string;
  readonly domain?: string;
  readonly modelVersion?: number | bigint;
  readonly graph: OnnxGraph;
  readonly functions: readonly OnnxFunction[];
}

export interface OnnxGraph extends OnnxExtras {
  readonly name: string;
  /** As in the file; readers of models put them in topological order. */
  readonly nodes: readonly OnnxNode[];
  readonly initializers: ReadonlyMap<string, OnnxTensor>;
  readonly sparseInitializers?: ReadonlyMap<string, OnnxSparseTensor>;
  /** Up to IR 3 also every initializer. */
  readonly inputs: readonly OnnxValueInfo[];
  readonly outputs: readonly OnnxValueInfo[];
  /** Types of inner values. */
  readonly valueInfos?: readonly OnnxValueInfo[];
  readonly quantizationAnnotations?: readonly OnnxQuantizationAnnotation[];
}

/** Names of the scale and zero point of a value: entries such as SCALE_TENSOR → "x_scale". */
export interface OnnxQuantizationAnnotation extends OnnxExtras {
  readonly tensor: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/**
 * A value's name and, as far as it is known, its type. A missing shape means any rank; an empty one means a scalar;
 * a string names a symbolic dimension and "" is a dimension that is not known.
 */
export interface OnnxValueInfo extends OnnxExtras {
  readonly name: string;
  /** Missing for sequences, maps and optionals, and where nothing is said. */
  readonly dtype?: OnnxDType;
  readonly shape?: readonly (number | string)[];
  /** The TypeProto where it says more (a sequence, denotations); written for as long as `dtype` and `shape` are what it says. */
  readonly typeProto?: Uint8Array;
}

export interface OnnxNode extends OnnxExtras {
  /** May be "" and need not be unique. */
  readonly name: string;
  readonly op: string;
  /** "" is the standard domain. */
  readonly domain: string;
  /** Picks one of several functions of a name. */
  readonly overload?: string;
  /** "" = an optional input left out. */
  readonly inputs: readonly string[];
  /** "" = an optional output not wanted. */
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, OnnxAttribute>;
}

/** A local function: called by nodes whose `domain`, `op` and `overload` are its domain, name and overload. */
export interface OnnxFunction extends OnnxExtras {
  readonly name: string;
  readonly domain: string;
  readonly overload?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Attributes without a default. */
  readonly attributes: readonly string[];
  readonly attributeDefaults: ReadonlyMap<string, OnnxAttribute>;
  readonly nodes: readonly OnnxNode[];
  readonly opsets: ReadonlyMap<string, number>;
  readonly valueInfos?: readonly OnnxValueInfo[];
}

/** Values of a mostly zero tensor and where they stand: [count] linear or [count, rank] I64 indices. */
export interface OnnxSparseTensor {
  readonly values: OnnxTensor;
  readonly indices: OnnxTensor;
  /** Shape of the dense tensor. */
  readonly shape: readonly number[];
  readonly unknownFields?: Uint8Array;
}

/** An int64: a number up to 2^53 - 1 in size, else a bigint. */
export type OnnxInt = number | bigint;

/** The value of an attribute, tagged as AttributeProto.type. */
export type OnnxAttributeValue =
  | { readonly kind: "int"; readonly value: OnnxInt }
  | { readonly kind: "float"; readonly value: number }
  | { readonly kind: "string"; readonly value: string }
  | { readonly kind: "tensor"; readonly value: OnnxTensor }
  | { readonly kind: "graph"; readonly value: OnnxGraph }
  | { readonly kind: "sparse_tensor"; readonly value: OnnxSparseTensor }
  /** A TypeProto message. */
  | { readonly kind: "type_proto"; readonly value: Uint8Array }
  | { readonly kind: "ints"; readonly value: readonly OnnxInt[] }
  | { readonly kind: "floats"; readonly value: readonly number[] }
  | { readonly kind: "strings"; readonly value: readonly string[] }
  | { readonly kind: "tensors"; readonly value: readonly OnnxTensor[] }
  | { readonly kind: "graphs"; readonly value: readonly OnnxGraph[] }
  | { readonly kind: "sparse_tensors"; readonly value: readonly OnnxSparseTensor[] }
  | { readonly kind: "type_protos"; readonly value: readonly Uint8Array[] }
  /** Inside a function: the attribute `value` of the calling node, of type `type` (AttributeProto.type). */
  | { readonly kind: "reference"; readonly value: string; readonly type: number };

export type OnnxAttribute = OnnxAttributeValue & OnnxExtras;
