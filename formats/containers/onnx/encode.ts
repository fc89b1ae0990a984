/**
 * OnnxModel → the fields of a ModelProto, in ascending order, unknown ones last.
 * @module
 */
import {
  ATTRIBUTE_PROTO,
  ATTRIBUTE_TYPES,
  DIMENSION_PROTO,
  FUNCTION_PROTO,
  GRAPH_PROTO,
  MODEL_PROTO,
  NODE_PROTO,
  OPERATOR_SET_ID_PROTO,
  SPARSE_TENSOR_PROTO,
  STRING_STRING_ENTRY_PROTO,
  TENSOR_ANNOTATION_PROTO,
  TENSOR_PROTO,
  TENSOR_SHAPE_PROTO,
  TENSOR_TYPE_PROTO,
  TYPE_PROTO,
  VALUE_INFO_PROTO,
} from "./fields.ts";
import { idOfDType } from "./dtypes.ts";
import { Message, type MessagePart } from "./message.ts";
import type { OnnxAttribute, OnnxFunction, OnnxGraph, OnnxModel, OnnxNode, OnnxSparseTensor, OnnxValueInfo } from "./model.ts";
import type { OnnxTensor } from "./tensor.ts";
import { saysTheSame } from "./type-proto.ts";

/** Where the bytes of a tensor stand outside the protobuf. */
export interface ExternalPlace {
  readonly location: string;
  readonly offset: number;
}

/** Tensors whose bytes lie in external files. */
export type ExternalPlaces = ReadonlyMap<OnnxTensor, ExternalPlace>;

/**
 * The ModelProto as a list of parts. Equal models give equal parts; maps keep their order.
 *
 * @throws {UnsupportedError} `unsupported.dtype`; {InputError} `input.value` for integers that are no int64.
 */
export function encodeModel(model: OnnxModel, external: ExternalPlaces): { readonly parts: readonly MessagePart[]; readonly size: number } {
  const message = new Message();
  new Encoder(external).model(message, model);
  return { parts: message.parts, size: message.size };
}

const EXTERNAL = 1;

class Encoder {
  readonly #external: ExternalPlaces;

  constructor(external: ExternalPlaces) {
    this.#external = external;
  }

  model(to: Message, model: OnnxModel): void {
    to.integer(MODEL_PROTO.irVersion, model.irVersion);
    optionalText(to, MODEL_PROTO.producerName, model.producerName);
    optionalText(to, MODEL_PROTO.producerVersion, model.producerVersion);
    optionalText(to, MODEL_PROTO.domain, model.domain);
    if (model.modelVersion !== undefined) to.integer(MODEL_PROTO.modelVersion, model.modelVersion);
    optionalText(to, MODEL_PROTO.docString, model.docString);
    to.message(MODEL_PROTO.graph, (inner) => this.#graph(inner, model.graph));
    writeOpsets(to, MODEL_PROTO.opsetImport, model.opsets);
    writeEntries(to, MODEL_PROTO.metadataProps, model.metadata);
    for (const item of model.functions) to.message(MODEL_PROTO.functions, (inner) => this.#function(inner, item));
    writeUnknown(to, model);
  }

  #graph(to: Message, graph: OnnxGraph): void {
    for (const node of graph.nodes) to.message(GRAPH_PROTO.node, (inner) => this.#node(inner, node));
    to.text(GRAPH_PROTO.name, graph.name);
    for (const [name, tensor] of graph.initializers) to.message(GRAPH_PROTO.initializer, (inner) => this.#tensor(inner, tensor, name));
    optionalText(to, GRAPH_PROTO.docString, graph.docString);
    for (const value of graph.inputs) to.message(GRAPH_PROTO.input, (inner) => writeValueInfo(inner, value));
    for (const value of graph.outputs) to.message(GRAPH_PROTO.output, (inner) => writeValueInfo(inner, value));
    for (const value of graph.valueInfos ?? []) to.message(GRAPH_PROTO.valueInfo, (inner) => writeValueInfo(inner, value));
    for (const annotation of graph.quantizationAnnotations ?? []) {
      to.message(GRAPH_PROTO.quantizationAnnotation, (inner) => {
        inner.text(TENSOR_ANNOTATION_PROTO.tensorName, annotation.tensor);
        writeEntries(inner, TENSOR_ANNOTATION_PROTO.quantParameterTensorNames, annotation.parameters);
        writeUnknown(inner, annotation);
      });
    }
    for (const [name, tensor] of graph.sparseInitializers ?? []) {
      to.message(GRAPH_PROTO.sparseInitializer, (inner) => this.#sparse(inner, tensor, name));
    }
    writeEntries(to, GRAPH_PROTO.metadataProps, graph.metadata);
    writeUnknown(to, graph);
  }

  #function(to: Message, item: OnnxFunction): void {
    to.text(FUNCTION_PROTO.name, item.name);
    for (const name of item.inputs) to.text(FUNCTION_PROTO.input, name);
    for (const name of item.outputs) to.text(FUNCTION_PROTO.output, name);
    for (const name of item.attributes) to.text(FUNCTION_PROTO.attribute, name);
    for (const node of item.nodes) to.message(FUNCTION_PROTO.node, (inner) => this.#node(inner, node));
    optionalText(to, FUNCTION_PROTO.docString, item.docString);
    writeOpsets(to, FUNCTION_PROTO.opsetImport, item.opsets);
    to.text(FUNCTION_PROTO.domain, item.domain);
    for (const [name, attribute] of item.attributeDefaults) {
      to.message(FUNCTION_PROTO.attributeProto, (inner) => this.#attribute(inner, name, attribute));
    }
    for (const value of item.valueInfos ?? []) to.message(FUNCTION_PROTO.valueInfo, (inner) => writeValueInfo(inner, value));
    optionalText(to, FUNCTION_PROTO.overload, item.overload);
    writeEntries(to, FUNCTION_PROTO.metadataProps, item.metadata);
    writeUnknown(to, item);
  }

  #node(to: Message, node: OnnxNode): void {
    for (const name of node.inputs) to.text(NODE_PROTO.input, name);
    for (const name of node.outputs) to.text(NODE_PROTO.output, name);
    to.text(NODE_PROTO.name, node.name);
    to.text(NODE_PROTO.opType, node.op);
    for (const [name, attribute] of node.attributes) {
      to.message(NODE_PROTO.attribute, (inner) => this.#attribute(inner, name, attribute));
    }
    optionalText(to, NODE_PROTO.docString, node.docString);
    if (node.domain !== "") to.text(NODE_PROTO.domain, node.domain);
    optionalText(to, NODE_PROTO.overload, node.overload);
    writeEntries(to, NODE_PROTO.metadataProps, node.metadata);
    writeUnknown(to, node);
  }

  #attribute(to: Message, name: string, attribute: OnnxAttribute): void {
    to.text(ATTRIBUTE_PROTO.name, name);
    switch (attribute.kind) {
      case "int":
        to.integer(ATTRIBUTE_PROTO.i, attribute.value);
        break;
      case "float":
        to.float(ATTRIBUTE_PROTO.f, attribute.value);
        break;
      case "string":
        to.text(ATTRIBUTE_PROTO.s, attribute.value);
        break;
      case "ints":
        for (const value of attribute.value) to.integer(ATTRIBUTE_PROTO.ints, value);
        break;
      case "floats":
        for (const value of attribute.value) to.float(ATTRIBUTE_PROTO.floats, value);
        break;
      case "strings":
        for (const value of attribute.value) to.text(ATTRIBUTE_PROTO.strings, value);
        break;
      case "tensor":
        to.message(ATTRIBUTE_PROTO.t, (inner) => this.#tensor(inner, attribute.value));
        break;
      case "tensors":
        for (const value of attribute.value) to.message(ATTRIBUTE_PROTO.tensors, (inner) => this.#tensor(inner, value));
        break;
      case "graph":
        to.message(ATTRIBUTE_PROTO.g, (inner) => this.#graph(inner, attribute.value));
        break;
      case "graphs":
        for (const value of attribute.value) to.message(ATTRIBUTE_PROTO.graphs, (inner) => this.#graph(inner, value));
        break;
      case "sparse_tensor":
        to.message(ATTRIBUTE_PROTO.sparseTensor, (inner) => this.#sparse(inner, attribute.value));
        break;
      case "sparse_tensors":
        for (const value of attribute.value) to.message(ATTRIBUTE_PROTO.sparseTensors, (inner) => this.#sparse(inner, value));
        break;
      case "type_proto":
        to.bytes(ATTRIBUTE_PROTO.tp, attribute.value);
        break;
      case "type_protos":
        for (const value of attribute.value) to.bytes(ATTRIBUTE_PROTO.typeProtos, value);
        break;
      case "reference":
        break;
      default:
        attribute satisfies never;
    }
    optionalText(to, ATTRIBUTE_PROTO.docString, attribute.docString);
    to.integer(ATTRIBUTE_PROTO.type, attribute.kind === "reference" ? attribute.type : ATTRIBUTE_TYPES[attribute.kind]);
    if (attribute.kind === "reference") to.text(ATTRIBUTE_PROTO.refAttrName, attribute.value);
    writeUnknown(to, attribute);
  }

  #sparse(to: Message, tensor: OnnxSparseTensor, name?: string): void {
    to.message(SPARSE_TENSOR_PROTO.values, (inner) => this.#tensor(inner, tensor.values, name));
    to.message(SPARSE_TENSOR_PROTO.indices, (inner) => this.#tensor(inner, tensor.indices));
    for (const size of tensor.shape) to.integer(SPARSE_TENSOR_PROTO.dims, size);
    writeUnknown(to, tensor);
  }

  #tensor(to: Message, tensor: OnnxTensor, name = tensor.name): void {
    const place = this.#external.get(tensor);
    for (const size of tensor.shape) to.integer(TENSOR_PROTO.dims, size);
    to.integer(TENSOR_PROTO.dataType, idOfDType(tensor.dtype));
    for (const text of tensor.strings ?? []) to.bytes(TENSOR_PROTO.stringData, text);
    optionalText(to, TENSOR_PROTO.name, name);
    if (tensor.dtype !== "STRING" && place === undefined) to.tensor(TENSOR_PROTO.rawData, tensor);
    optionalText(to, TENSOR_PROTO.docString, tensor.docString);
    if (place !== undefined) {
      const entries = new Map([
        ["location", place.location],
        ["offset", String(place.offset)],
        ["length", String(tensor.byteLength)],
      ]);
      writeEntries(to, TENSOR_PROTO.externalData, entries);
      to.integer(TENSOR_PROTO.dataLocation, EXTERNAL);
    }
    writeEntries(to, TENSOR_PROTO.metadataProps, tensor.metadata);
    writeUnknown(to, tensor);
  }
}

function writeValueInfo(to: Message, value: OnnxValueInfo): void {
  const { name, dtype, shape, typeProto } = value;
  to.text(VALUE_INFO_PROTO.name, name);
  if (typeProto !== undefined && saysTheSame(typeProto, value)) to.bytes(VALUE_INFO_PROTO.type, typeProto);
  else if (dtype !== undefined) {
    to.message(VALUE_INFO_PROTO.type, (type) =>
      type.message(TYPE_PROTO.tensorType, (tensor) => {
        tensor.integer(TENSOR_TYPE_PROTO.elemType, idOfDType(dtype));
        if (shape !== undefined) tensor.message(TENSOR_TYPE_PROTO.shape, (inner) => writeShape(inner, shape));
      }),
    );
  }
  optionalText(to, VALUE_INFO_PROTO.docString, value.docString);
  writeEntries(to, VALUE_INFO_PROTO.metadataProps, value.metadata);
  writeUnknown(to, value);
}

function writeShape(to: Message, shape: readonly (number | string)[]): void {
  for (const size of shape) {
    to.message(TENSOR_SHAPE_PROTO.dim, (dim) => {
      if (typeof size === "number") dim.integer(DIMENSION_PROTO.dimValue, size);
      else if (size !== "") dim.text(DIMENSION_PROTO.dimParam, size);
    });
  }
}

function writeOpsets(to: Message, field: number, opsets: ReadonlyMap<string, number>): void {
  for (const [domain, version] of opsets) {
    to.message(field, (inner) => {
      inner.text(OPERATOR_SET_ID_PROTO.domain, domain);
      inner.integer(OPERATOR_SET_ID_PROTO.version, version);
    });
  }
}

function writeEntries(to: Message, field: number, entries: ReadonlyMap<string, string> | undefined): void {
  for (const [key, value] of entries ?? []) {
    to.message(field, (inner) => {
      inner.text(STRING_STRING_ENTRY_PROTO.key, key);
      inner.text(STRING_STRING_ENTRY_PROTO.value, value);
    });
  }
}

function writeUnknown(to: Message, { unknownFields }: { readonly unknownFields?: Uint8Array }): void {
  if (unknownFields !== undefined) to.fields(unknownFields);
}

function optionalText(to: Message, field: number, value: string | undefined): void {
  if (value !== undefined) to.text(field, value);
}
