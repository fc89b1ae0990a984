/**
 * Field numbers and enum values of onnx.proto (ONNX 1.20, IR 13), in one place,
 * by the names the schema gives them. The schema is proto2, so repeated numbers are written unpacked.
 * @module
 */
import type { OnnxDType } from "./dtypes.ts";

export const MODEL_PROTO = {
  irVersion: 1,
  producerName: 2,
  producerVersion: 3,
  domain: 4,
  modelVersion: 5,
  docString: 6,
  graph: 7,
  opsetImport: 8,
  metadataProps: 14,
  functions: 25,
} as const;

export const OPERATOR_SET_ID_PROTO = { domain: 1, version: 2 } as const;

export const GRAPH_PROTO = {
  node: 1,
  name: 2,
  initializer: 5,
  docString: 10,
  input: 11,
  output: 12,
  valueInfo: 13,
  quantizationAnnotation: 14,
  sparseInitializer: 15,
  metadataProps: 16,
} as const;

export const NODE_PROTO = {
  input: 1,
  output: 2,
  name: 3,
  opType: 4,
  attribute: 5,
  docString: 6,
  domain: 7,
  overload: 8,
  metadataProps: 9,
} as const;

export const FUNCTION_PROTO = {
  name: 1,
  input: 4,
  output: 5,
  attribute: 6,
  node: 7,
  docString: 8,
  opsetImport: 9,
  domain: 10,
  attributeProto: 11,
  valueInfo: 12,
  overload: 13,
  metadataProps: 14,
} as const;

export const TENSOR_ANNOTATION_PROTO = { tensorName: 1, quantParameterTensorNames: 2 } as const;

export const SPARSE_TENSOR_PROTO = { values: 1, indices: 2, dims: 3 } as const;

export const ATTRIBUTE_PROTO = {
  name: 1,
  f: 2,
  i: 3,
  s: 4,
  t: 5,
  g: 6,
  floats: 7,
  ints: 8,
  strings: 9,
  tensors: 10,
  graphs: 11,
  docString: 13,
  tp: 14,
  typeProtos: 15,
  type: 20,
  refAttrName: 21,
  sparseTensor: 22,
  sparseTensors: 23,
} as const;

/** AttributeProto.AttributeType. */
export const ATTRIBUTE_TYPES = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
  tensors: 9,
  graphs: 10,
  sparse_tensor: 11,
  sparse_tensors: 12,
  type_proto: 13,
  type_protos: 14,
} as const;

export const TENSOR_PROTO = {
  dims: 1,
  dataType: 2,
  segment: 3,
  floatData: 4,
  int32Data: 5,
  stringData: 6,
  int64Data: 7,
  name: 8,
  rawData: 9,
  doubleData: 10,
  uint64Data: 11,
  docString: 12,
  externalData: 13,
  dataLocation: 14,
  metadataProps: 16,
} as const;

export const STRING_STRING_ENTRY_PROTO = { key: 1, value: 2 } as const;

export const VALUE_INFO_PROTO = { name: 1, type: 2, docString: 3, metadataProps: 4 } as const;

export const TYPE_PROTO = { tensorType: 1, sequenceType: 4, mapType: 5, denotation: 6, sparseTensorType: 8, optionalType: 9 } as const;

export const TENSOR_TYPE_PROTO = { elemType: 1, shape: 2 } as const;

export const TENSOR_SHAPE_PROTO = { dim: 1 } as const;

export const DIMENSION_PROTO = { dimValue: 1, dimParam: 2 } as const;

/** TensorProto.DataType of every type that ONNX has. */
export const DATA_TYPES: ReadonlyMap<OnnxDType, number> = new Map<OnnxDType, number>([
  ["F32", 1],
  ["U8", 2],
  ["I8", 3],
  ["U16", 4],
  ["I16", 5],
  ["I32", 6],
  ["I64", 7],
  ["STRING", 8],
  ["BOOL", 9],
  ["F16", 10],
  ["F64", 11],
  ["U32", 12],
  ["U64", 13],
  ["C64", 14],
  ["C128", 15],
  ["BF16", 16],
  ["F8_E4M3", 17],
  ["F8_E4M3FNUZ", 18],
  ["F8_E5M2", 19],
  ["F8_E5M2FNUZ", 20],
  ["U4", 21],
  ["I4", 22],
  ["F4", 23],
  ["F8_E8M0", 24],
  ["U2", 25],
  ["I2", 26],
]);
