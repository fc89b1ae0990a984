/**
 * AttributeProto: a name and one value, of the type it is tagged with.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import { ATTRIBUTE_PROTO, ATTRIBUTE_TYPES } from "./fields.ts";
import type { OnnxAttribute, OnnxAttributeValue } from "./model.ts";
import type { Parser } from "./parse.ts";
import { parseTensor } from "./parse-tensor.ts";
import { decodeTypeProto } from "./type-proto.ts";
import { FIXED32, LENGTH_DELIMITED, message, type Range, type WireField, type WireReader } from "./wire.ts";

type Kind = Exclude<OnnxAttributeValue["kind"], "reference">;

const KINDS: ReadonlyMap<number, Kind> = new Map(Object.entries(ATTRIBUTE_TYPES).map(([kind, id]) => [id, kind as Kind]));

/** Where the value of each kind stands. */
const FIELDS: Readonly<Record<Kind, number>> = {
  float: ATTRIBUTE_PROTO.f,
  int: ATTRIBUTE_PROTO.i,
  string: ATTRIBUTE_PROTO.s,
  tensor: ATTRIBUTE_PROTO.t,
  graph: ATTRIBUTE_PROTO.g,
  floats: ATTRIBUTE_PROTO.floats,
  ints: ATTRIBUTE_PROTO.ints,
  strings: ATTRIBUTE_PROTO.strings,
  tensors: ATTRIBUTE_PROTO.tensors,
  graphs: ATTRIBUTE_PROTO.graphs,
  sparse_tensor: ATTRIBUTE_PROTO.sparseTensor,
  sparse_tensors: ATTRIBUTE_PROTO.sparseTensors,
  type_proto: ATTRIBUTE_PROTO.tp,
  type_protos: ATTRIBUTE_PROTO.typeProtos,
};
const VALUE_FIELDS: ReadonlySet<number> = new Set(Object.values(FIELDS));

/** @throws {FormatError} `format.field` for an attribute without a type or with values of two. */
export function parseAttribute(parser: Parser, range: Range, depth: number): [name: string, attribute: OnnxAttribute] {
  const { reader } = parser.context;
  const { fields, unknownFields } = reader.message(range, ATTRIBUTE_PROTO);
  const { name = "" } = parser.text(fields, ATTRIBUTE_PROTO.name, "name");
  const tag = fields.findLast(({ number }) => number === ATTRIBUTE_PROTO.type);
  const type = tag === undefined ? 0 : reader.small(tag);
  const { reference } = parser.text(fields, ATTRIBUTE_PROTO.refAttrName, "reference");
  const extras = { ...parser.text(fields, ATTRIBUTE_PROTO.docString, "docString"), ...(unknownFields && { unknownFields }) };
  const values = fields.filter(({ number }) => VALUE_FIELDS.has(number));
  if (reference !== undefined && reference !== "") return [name, { kind: "reference", value: reference, type, ...extras }];
  // Before IR 2 the type was not written: the value that is there tells it.
  const kind = type === 0 ? kindOf(values[0]?.number) : KINDS.get(type);
  const refuse = (problem: string): never => {
    throw new FormatError("format.field", `${reader.name}: attribute ${JSON.stringify(name)} ${problem}`, {
      file: reader.name,
      attribute: name,
    });
  };
  if (kind === undefined) return refuse(type === 0 ? "has neither a type nor a value" : `has type ${type}, which is not known`);
  const other = values.find(({ number }) => number !== FIELDS[kind]);
  if (other !== undefined) return refuse(`is of type ${kind} and has a value of type ${kindOf(other.number)}`);
  return [name, { ...parseValue(parser, kind, values, depth, () => refuse(`is of type ${kind} and has no value`)), ...extras }];
}

function kindOf(number: number | undefined): Kind | undefined {
  return (Object.keys(FIELDS) as Kind[]).find((kind) => FIELDS[kind] === number);
}

function parseValue(parser: Parser, kind: Kind, values: readonly WireField[], depth: number, missing: () => never): OnnxAttributeValue {
  const { context } = parser;
  const { reader } = context;
  const last = values.at(-1);
  const one = (): Range => message(reader, values.length === 1 ? last! : missing());
  const type = (field: WireField): Uint8Array => {
    const bytes = reader.bytes(message(reader, field));
    decodeTypeProto(bytes, `${reader.name}: an attribute`);
    return bytes;
  };
  switch (kind) {
    // A scalar that is not there is 0, by protobuf's rules.
    case "float":
      return { kind, value: last === undefined ? 0 : reader.float(last) };
    case "int":
      return { kind, value: last === undefined ? 0 : reader.integer(last) };
    case "string":
      return { kind, value: last === undefined ? "" : reader.text(last) };
    case "tensor":
      return { kind, value: parseTensor(context, one(), "in an attribute") };
    case "graph":
      return { kind, value: parser.graph([one()], depth + 1) };
    case "sparse_tensor":
      return { kind, value: parser.sparse(one()) };
    case "type_proto":
      return { kind, value: type(last ?? missing()) };
    case "floats":
      return { kind, value: values.flatMap((field) => floatsOf(reader, field)) };
    case "ints":
      return {
        kind,
        value: values.flatMap((field) => [...reader.integers(field)]),
      };
    case "strings":
      return { kind, value: values.map((field) => reader.text(field)) };
    case "tensors":
      return { kind, value: values.map((field) => parseTensor(context, message(reader, field), "in an attribute")) };
    case "graphs":
      return { kind, value: values.map((field) => parser.graph([message(reader, field)], depth + 1)) };
    case "sparse_tensors":
      return { kind, value: values.map((field) => parser.sparse(message(reader, field))) };
    case "type_protos":
      return { kind, value: values.map(type) };
    default:
      return kind satisfies never;
  }
}

function floatsOf(reader: WireReader, field: WireField): readonly number[] {
  if (field.wireType === FIXED32) return [reader.float(field)];
  if (field.wireType !== LENGTH_DELIMITED || (field.end - field.start) % 4 !== 0)
    throw reader.broken(field.at, "floats are not stored as such");
  const bytes = reader.bytes(field);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}
