/**
 * Writes an ONNX ModelProto with every tensor inline.
 * @module
 */
import protobuf from "protobufjs/minimal.js";
import type { DType } from "../../../core/dtype.ts";
import { InputError, UnsupportedError } from "../../../core/errors.ts";
import type { Tensor } from "../../../core/tensor.ts";
import {
  ATTRIBUTE_PROTO,
  ATTRIBUTE_TYPES,
  DATA_TYPES,
  DIMENSION_PROTO,
  GRAPH_PROTO,
  MODEL_PROTO,
  NODE_PROTO,
  OPERATOR_SET_ID_PROTO,
  STRING_STRING_ENTRY_PROTO,
  TENSOR_PROTO,
  TENSOR_SHAPE_PROTO,
  TENSOR_TYPE_PROTO,
  TYPE_PROTO,
  VALUE_INFO_PROTO,
} from "./fields.ts";
import type { OnnxAttribute, OnnxGraph, OnnxModel, OnnxNode, OnnxValueInfo } from "./model.ts";

/** Longest message that protobuf readers accept (they count in i32). */
const MESSAGE_LIMIT_BYTES = 2 ** 31 - 1;

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

type Writer = protobuf.Writer;

/**
 * The bytes of a ModelProto. Equal models give equal bytes; entries keep the order they are given in.
 *
 * @throws {UnsupportedError} `unsupported.dtype` for a dtype that ONNX lacks.
 * @throws {InputError} `input.value` when the tensors make the message longer than protobuf allows (2 GiB).
 */
export function encodeOnnxModel(model: OnnxModel): Uint8Array {
  const bytes = tensorBytes(model.graph);
  if (bytes > MESSAGE_LIMIT_BYTES) {
    throw new InputError("input.value", `an ONNX file holds at most ${MESSAGE_LIMIT_BYTES} bytes, its tensors take ${bytes}`, { bytes });
  }
  const writer = protobuf.Writer.create();
  integer(writer, MODEL_PROTO.irVersion, model.irVersion);
  if (model.producerName !== undefined) text(writer, MODEL_PROTO.producerName, model.producerName);
  if (model.producerVersion !== undefined) text(writer, MODEL_PROTO.producerVersion, model.producerVersion);
  message(writer, MODEL_PROTO.graph, (inner) => writeGraph(inner, model.graph));
  for (const [domain, version] of Object.entries(model.opsets)) {
    message(writer, MODEL_PROTO.opsetImport, (inner) => {
      text(inner, OPERATOR_SET_ID_PROTO.domain, domain);
      integer(inner, OPERATOR_SET_ID_PROTO.version, version);
    });
  }
  for (const [key, value] of Object.entries(model.metadata ?? {})) {
    message(writer, MODEL_PROTO.metadataProps, (inner) => {
      text(inner, STRING_STRING_ENTRY_PROTO.key, key);
      text(inner, STRING_STRING_ENTRY_PROTO.value, value);
    });
  }
  return writer.finish();
}

function tensorBytes(graph: OnnxGraph): number {
  let bytes = 0;
  for (const tensor of graph.initializers.values()) bytes += tensor.bytes.byteLength;
  for (const node of graph.nodes) {
    for (const attribute of node.attributes.values()) {
      if (attribute.kind === "tensor") bytes += attribute.value.bytes.byteLength;
      if (attribute.kind === "graph") bytes += tensorBytes(attribute.value);
    }
  }
  return bytes;
}

function writeGraph(writer: Writer, graph: OnnxGraph): void {
  for (const node of graph.nodes) message(writer, GRAPH_PROTO.node, (inner) => writeNode(inner, node));
  text(writer, GRAPH_PROTO.name, graph.name);
  for (const [name, tensor] of graph.initializers) message(writer, GRAPH_PROTO.initializer, (inner) => writeTensor(inner, tensor, name));
  for (const value of graph.inputs) message(writer, GRAPH_PROTO.input, (inner) => writeValueInfo(inner, value));
  for (const value of graph.outputs) message(writer, GRAPH_PROTO.output, (inner) => writeValueInfo(inner, value));
}

function writeNode(writer: Writer, node: OnnxNode): void {
  for (const name of node.inputs) text(writer, NODE_PROTO.input, name);
  for (const name of node.outputs) text(writer, NODE_PROTO.output, name);
  text(writer, NODE_PROTO.name, node.name);
  text(writer, NODE_PROTO.opType, node.op);
  for (const [name, attribute] of node.attributes) {
    message(writer, NODE_PROTO.attribute, (inner) => writeAttribute(inner, name, attribute));
  }
  if (node.domain !== "") text(writer, NODE_PROTO.domain, node.domain);
}

function writeAttribute(writer: Writer, name: string, attribute: OnnxAttribute): void {
  text(writer, ATTRIBUTE_PROTO.name, name);
  switch (attribute.kind) {
    case "int":
      integer(writer, ATTRIBUTE_PROTO.i, attribute.value);
      break;
    case "float":
      float(writer, ATTRIBUTE_PROTO.f, attribute.value);
      break;
    case "string":
      text(writer, ATTRIBUTE_PROTO.s, attribute.value);
      break;
    case "ints":
      for (const value of attribute.value) integer(writer, ATTRIBUTE_PROTO.ints, value);
      break;
    case "floats":
      for (const value of attribute.value) float(writer, ATTRIBUTE_PROTO.floats, value);
      break;
    case "strings":
      for (const value of attribute.value) text(writer, ATTRIBUTE_PROTO.strings, value);
      break;
    case "tensor":
      message(writer, ATTRIBUTE_PROTO.t, (inner) => writeTensor(inner, attribute.value));
      break;
    case "graph":
      message(writer, ATTRIBUTE_PROTO.g, (inner) => writeGraph(inner, attribute.value));
      break;
    default:
      attribute satisfies never;
  }
  integer(writer, ATTRIBUTE_PROTO.type, ATTRIBUTE_TYPES[attribute.kind]);
}

function writeTensor(writer: Writer, tensor: Tensor, name?: string): void {
  for (const size of tensor.shape) integer(writer, TENSOR_PROTO.dims, size);
  integer(writer, TENSOR_PROTO.dataType, dataTypeOf(tensor.dtype));
  if (name !== undefined) text(writer, TENSOR_PROTO.name, name);
  writer.uint32(tag(TENSOR_PROTO.rawData, LENGTH_DELIMITED)).bytes(tensor.bytes);
}

function writeValueInfo(writer: Writer, value: OnnxValueInfo): void {
  text(writer, VALUE_INFO_PROTO.name, value.name);
  const { dtype, shape } = value;
  if (dtype === undefined) return;
  message(writer, VALUE_INFO_PROTO.type, (type) =>
    message(type, TYPE_PROTO.tensorType, (tensor) => {
      integer(tensor, TENSOR_TYPE_PROTO.elemType, dataTypeOf(dtype));
      if (shape !== undefined) message(tensor, TENSOR_TYPE_PROTO.shape, (inner) => writeShape(inner, shape));
    }),
  );
}

function writeShape(writer: Writer, shape: readonly (number | string)[]): void {
  for (const size of shape) {
    message(writer, TENSOR_SHAPE_PROTO.dim, (dim) => {
      if (typeof size === "number") integer(dim, DIMENSION_PROTO.dimValue, size);
      else text(dim, DIMENSION_PROTO.dimParam, size);
    });
  }
}

function dataTypeOf(dtype: DType): number {
  const id = DATA_TYPES.get(dtype);
  if (id === undefined) {
    throw new UnsupportedError(
      "unsupported.dtype",
      `ONNX has no ${dtype} tensors; convert to one of ${[...DATA_TYPES.keys()].join(", ")}`,
      {
        dtype,
      },
    );
  }
  return id;
}

function tag(field: number, wireType: number): number {
  return field * 8 + wireType;
}

function integer(writer: Writer, field: number, value: number): void {
  if (!Number.isSafeInteger(value)) {
    throw new InputError("input.value", `an ONNX integer must be whole and at most 2^53 - 1 in size, got ${value}`, { value });
  }
  writer.uint32(tag(field, VARINT)).int64(value);
}

function float(writer: Writer, field: number, value: number): void {
  writer.uint32(tag(field, FIXED32)).float(value);
}

function text(writer: Writer, field: number, value: string): void {
  writer.uint32(tag(field, LENGTH_DELIMITED)).string(value);
}

function message(writer: Writer, field: number, write: (inner: Writer) => void): void {
  write(writer.uint32(tag(field, LENGTH_DELIMITED)).fork());
  writer.ldelim();
}
