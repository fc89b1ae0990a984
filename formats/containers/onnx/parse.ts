/**
 * ModelProto → OnnxModel: the structure in memory, tensors where they are.
 *
 * Fields that the schema does not know are kept as bytes. A message that may be there once and is there twice is refused
 * (protobuf would merge the two), but for the graph, whose pieces are put together.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import {
  FUNCTION_PROTO,
  GRAPH_PROTO,
  MODEL_PROTO,
  NODE_PROTO,
  OPERATOR_SET_ID_PROTO,
  SPARSE_TENSOR_PROTO,
  TENSOR_ANNOTATION_PROTO,
  VALUE_INFO_PROTO,
} from "./fields.ts";
import type { OnnxFunction, OnnxGraph, OnnxModel, OnnxNode, OnnxQuantizationAnnotation, OnnxSparseTensor, OnnxValueInfo } from "./model.ts";
import { parseAttribute } from "./parse-attribute.ts";
import { parseEntries, parseMetadata } from "./parse-entries.ts";
import { parseTensor, type TensorContext } from "./parse-tensor.ts";
import type { OnnxTensor } from "./tensor.ts";
import { decodeTypeProto } from "./type-proto.ts";
import { message, type Range, type WireField, type WireReader } from "./wire.ts";

/** Graphs inside one another. protobuf's own readers stop at about as many (100 messages). */
const MAX_DEPTH = 32;

/**
 * @throws {FormatError} `format.field`, `format.truncated`, `format.limit`, `format.duplicate`, `format.missing`, `format.path`.
 * @throws {UnsupportedError} `unsupported.encoding` for segmented tensors.
 */
export function parseModel(context: TensorContext): OnnxModel {
  const { reader } = context;
  if (reader.size === 0) throw new FormatError("format.truncated", `${reader.name} is empty`, { file: reader.name });
  const { fields, unknownFields } = reader.message({ start: 0, end: reader.size }, MODEL_PROTO);
  const parser = new Parser(context);
  // A graph in several pieces is one graph, by protobuf's rule for messages.
  const graph = fields.filter(({ number }) => number === MODEL_PROTO.graph).map((field) => message(reader, field));
  if (graph.length === 0) {
    throw new FormatError("format.missing", `${reader.name} has no graph; is it an ONNX model?`, { file: reader.name });
  }
  const modelVersion = fields.findLast(({ number }) => number === MODEL_PROTO.modelVersion);
  const irVersion = fields.findLast(({ number }) => number === MODEL_PROTO.irVersion);
  return {
    irVersion: irVersion === undefined ? 0 : reader.small(irVersion),
    ...parser.text(fields, MODEL_PROTO.producerName, "producerName"),
    ...parser.text(fields, MODEL_PROTO.producerVersion, "producerVersion"),
    ...parser.text(fields, MODEL_PROTO.domain, "domain"),
    ...(modelVersion && { modelVersion: reader.integer(modelVersion) }),
    ...parser.text(fields, MODEL_PROTO.docString, "docString"),
    opsets: parser.opsets(fields, MODEL_PROTO.opsetImport),
    graph: parser.graph(graph, 0),
    functions: fields.filter(({ number }) => number === MODEL_PROTO.functions).map((field) => parser.function(field)),
    ...parseMetadata(reader, fields, MODEL_PROTO.metadataProps),
    ...(unknownFields && { unknownFields }),
  };
}

/** The one field of a number. @throws {FormatError} `format.duplicate` */
function single(reader: WireReader, fields: readonly WireField[], number: number, what: string): WireField | undefined {
  const own = fields.filter((field) => field.number === number);
  if (own.length > 1)
    throw new FormatError("format.duplicate", `${reader.name}: ${what} is there ${own.length} times`, { file: reader.name, what });
  return own[0];
}

/** Reads the messages of one file. */
export class Parser {
  readonly context: TensorContext;
  readonly #reader: WireReader;

  constructor(context: TensorContext) {
    this.context = context;
    this.#reader = context.reader;
  }

  graph(ranges: readonly Range[], depth: number): OnnxGraph {
    const reader = this.#reader;
    if (depth > MAX_DEPTH) {
      throw new FormatError("format.limit", `${reader.name}: graphs nest deeper than ${MAX_DEPTH}`, {
        file: reader.name,
        limit: MAX_DEPTH,
      });
    }
    const nodes: OnnxNode[] = [];
    const inputs: OnnxValueInfo[] = [];
    const outputs: OnnxValueInfo[] = [];
    const valueInfos: OnnxValueInfo[] = [];
    const annotations: OnnxQuantizationAnnotation[] = [];
    const initializers = new Map<string, OnnxTensor>();
    const sparseInitializers = new Map<string, OnnxSparseTensor>();
    const { fields, unknownFields } = reader.message(ranges, GRAPH_PROTO);
    const add = <Item>(to: Map<string, Item>, name: string | undefined, item: Item): void => {
      if (name === undefined || name === "") throw reader.broken(ranges[0]!.start, "an initializer has no name");
      if (initializers.has(name) || sparseInitializers.has(name)) {
        throw new FormatError("format.duplicate", `${reader.name}: two initializers are named ${JSON.stringify(name)}`, {
          file: reader.name,
          name,
        });
      }
      to.set(name, item);
    };
    for (const field of fields) {
      if (field.number === GRAPH_PROTO.node) nodes.push(this.node(message(reader, field), depth));
      else if (field.number === GRAPH_PROTO.initializer) {
        const { name, ...tensor } = parseTensor(this.context, message(reader, field));
        add(initializers, name, tensor);
      } else if (field.number === GRAPH_PROTO.sparseInitializer) {
        const sparse = this.sparse(message(reader, field));
        const { name, ...values } = sparse.values;
        add(sparseInitializers, name, { ...sparse, values });
      } else if (field.number === GRAPH_PROTO.input) inputs.push(this.value(message(reader, field)));
      else if (field.number === GRAPH_PROTO.output) outputs.push(this.value(message(reader, field)));
      else if (field.number === GRAPH_PROTO.valueInfo) valueInfos.push(this.value(message(reader, field)));
      else if (field.number === GRAPH_PROTO.quantizationAnnotation) annotations.push(this.#annotation(message(reader, field)));
    }
    const { name = "" } = this.text(fields, GRAPH_PROTO.name, "name");
    return {
      name,
      nodes,
      initializers,
      inputs,
      outputs,
      ...(sparseInitializers.size > 0 && { sparseInitializers }),
      ...(valueInfos.length > 0 && { valueInfos }),
      ...(annotations.length > 0 && { quantizationAnnotations: annotations }),
      ...this.text(fields, GRAPH_PROTO.docString, "docString"),
      ...parseMetadata(reader, fields, GRAPH_PROTO.metadataProps),
      ...(unknownFields && { unknownFields }),
    };
  }

  function(range: WireField): OnnxFunction {
    const reader = this.#reader;
    const { fields, unknownFields } = reader.message(message(reader, range), FUNCTION_PROTO);
    const all = (number: number): readonly WireField[] => fields.filter((field) => field.number === number);
    const attributeDefaults = all(FUNCTION_PROTO.attributeProto).map((field) => parseAttribute(this, message(reader, field), 0));
    const valueInfos = all(FUNCTION_PROTO.valueInfo).map((field) => this.value(message(reader, field)));
    const { name = "" } = this.text(fields, FUNCTION_PROTO.name, "name");
    const { domain = "" } = this.text(fields, FUNCTION_PROTO.domain, "domain");
    return {
      name,
      domain: standardDomain(domain),
      ...this.text(fields, FUNCTION_PROTO.overload, "overload"),
      inputs: all(FUNCTION_PROTO.input).map((field) => reader.text(field)),
      outputs: all(FUNCTION_PROTO.output).map((field) => reader.text(field)),
      attributes: all(FUNCTION_PROTO.attribute).map((field) => reader.text(field)),
      attributeDefaults: new Map(attributeDefaults),
      nodes: all(FUNCTION_PROTO.node).map((field) => this.node(message(reader, field), 0)),
      opsets: this.opsets(fields, FUNCTION_PROTO.opsetImport),
      ...(valueInfos.length > 0 && { valueInfos }),
      ...this.text(fields, FUNCTION_PROTO.docString, "docString"),
      ...parseMetadata(reader, fields, FUNCTION_PROTO.metadataProps),
      ...(unknownFields && { unknownFields }),
    };
  }

  node(range: Range, depth: number): OnnxNode {
    const reader = this.#reader;
    const { fields, unknownFields } = reader.message(range, NODE_PROTO);
    const inputs: string[] = [];
    const outputs: string[] = [];
    const attributes: ReturnType<typeof parseAttribute>[] = [];
    let [name, op, domain] = ["", "", ""];
    for (const field of fields) {
      if (field.number === NODE_PROTO.input) inputs.push(reader.text(field));
      else if (field.number === NODE_PROTO.output) outputs.push(reader.text(field));
      else if (field.number === NODE_PROTO.name) name = reader.text(field);
      else if (field.number === NODE_PROTO.opType) op = reader.text(field);
      else if (field.number === NODE_PROTO.domain) domain = standardDomain(reader.text(field));
      else if (field.number === NODE_PROTO.attribute) attributes.push(parseAttribute(this, message(reader, field), depth));
    }
    const map = new Map(attributes);
    if (map.size < attributes.length) {
      throw new FormatError("format.duplicate", `${reader.name}: node ${JSON.stringify(name)} (${op}) has an attribute twice`, {
        file: reader.name,
        node: name,
        op,
      });
    }
    return {
      name,
      op,
      domain,
      ...this.text(fields, NODE_PROTO.overload, "overload"),
      inputs,
      outputs,
      attributes: map,
      ...this.text(fields, NODE_PROTO.docString, "docString"),
      ...parseMetadata(reader, fields, NODE_PROTO.metadataProps),
      ...(unknownFields && { unknownFields }),
    };
  }

  value(range: Range): OnnxValueInfo {
    const reader = this.#reader;
    const { fields, unknownFields } = reader.message(range, VALUE_INFO_PROTO);
    const { name = "" } = this.text(fields, VALUE_INFO_PROTO.name, "name");
    const type = single(reader, fields, VALUE_INFO_PROTO.type, `the type of ${JSON.stringify(name)}`);
    const extras = {
      ...this.text(fields, VALUE_INFO_PROTO.docString, "docString"),
      ...parseMetadata(reader, fields, VALUE_INFO_PROTO.metadataProps),
      ...(unknownFields && { unknownFields }),
    };
    if (type === undefined) return { name, ...extras };
    const typeProto = reader.bytes(message(reader, type));
    const { isWhole, ...decoded } = decodeTypeProto(typeProto, `${reader.name}: ${JSON.stringify(name)}`);
    return { name, ...decoded, ...(!isWhole && { typeProto }), ...extras };
  }

  sparse(range: Range): OnnxSparseTensor {
    const reader = this.#reader;
    const { fields, unknownFields } = reader.message(range, SPARSE_TENSOR_PROTO);
    const values = single(reader, fields, SPARSE_TENSOR_PROTO.values, "values of a sparse tensor");
    const indices = single(reader, fields, SPARSE_TENSOR_PROTO.indices, "indices of a sparse tensor");
    if (values === undefined || indices === undefined) throw reader.broken(range.start, "a sparse tensor lacks values or indices");
    const dims = fields.filter(({ number }) => number === SPARSE_TENSOR_PROTO.dims).flatMap((field) => [...reader.integers(field)]);
    const bad = dims.find((size) => typeof size === "bigint" || size < 0);
    if (bad !== undefined) throw reader.broken(range.start, `a sparse tensor has a dimension of ${bad}`);
    return {
      values: parseTensor(this.context, message(reader, values), "values of a sparse tensor"),
      indices: parseTensor(this.context, message(reader, indices), "indices of a sparse tensor"),
      shape: dims.map(Number),
      ...(unknownFields && { unknownFields }),
    };
  }

  opsets(fields: readonly WireField[], number: number): ReadonlyMap<string, number> {
    const reader = this.#reader;
    const opsets = new Map<string, number>();
    for (const field of fields) {
      if (field.number !== number) continue;
      let domain = "";
      let version = 0;
      for (const inner of reader.fields(message(reader, field))) {
        if (inner.number === OPERATOR_SET_ID_PROTO.domain) domain = standardDomain(reader.text(inner));
        if (inner.number === OPERATOR_SET_ID_PROTO.version) version = reader.small(inner);
      }
      const known = opsets.get(domain);
      if (known !== undefined && known !== version) {
        throw new FormatError(
          "format.duplicate",
          `${reader.name}: opset ${known} and opset ${version} of domain ${JSON.stringify(domain)}`,
          {
            file: reader.name,
            domain,
          },
        );
      }
      opsets.set(domain, version);
    }
    return opsets;
  }

  /** The last text of a number, under a name, or nothing. */
  text<Name extends string>(fields: readonly WireField[], number: number, name: Name): { readonly [key in Name]?: string } {
    const field = fields.findLast((candidate) => candidate.number === number);
    return field === undefined ? {} : ({ [name]: this.#reader.text(field) } as { [key in Name]: string });
  }

  #annotation(range: Range): OnnxQuantizationAnnotation {
    const { fields, unknownFields } = this.#reader.message(range, TENSOR_ANNOTATION_PROTO);
    const { tensorName = "" } = this.text(fields, TENSOR_ANNOTATION_PROTO.tensorName, "tensorName");
    const parameters = parseEntries(this.#reader, fields, TENSOR_ANNOTATION_PROTO.quantParameterTensorNames) ?? new Map<string, string>();
    return { tensor: tensorName, parameters, ...(unknownFields && { unknownFields }) };
  }
}

/** "ai.onnx" is another name of the standard domain. */
function standardDomain(domain: string): string {
  return domain === "ai.onnx" ? "" : domain;
}
