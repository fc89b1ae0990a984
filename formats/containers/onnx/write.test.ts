import { describe, expect, test } from "vitest";
import { tensorOf } from "../../../core/tensor.ts";
import type { OnnxModel, OnnxNode } from "./model.ts";
import { onnxTensorOf } from "./tensor.ts";
import { encodeOnnxModel } from "./write.ts";

const node = (attributes: OnnxNode["attributes"] = new Map()): OnnxNode => ({
  name: "n",
  op: "Relu",
  domain: "",
  inputs: ["x"],
  outputs: ["y"],
  attributes,
});

const model = (part: Partial<OnnxModel["graph"]> = {}): OnnxModel => ({
  irVersion: 11,
  opsets: new Map([["", 23]]),
  functions: [],
  graph: { name: "g", nodes: [], initializers: new Map(), inputs: [], outputs: [], ...part },
});

/** Hex digits, spaced here for reading. */
const hex = (spaced: string): string => spaced.replaceAll(" ", "");

/** Hex of the graph message of a model: its bytes between the four before it and the six of the opset after it. */
function graphHex(part: Partial<OnnxModel["graph"]>): string {
  const bytes = encodeOnnxModel(model(part));
  return Buffer.from(bytes.subarray(4, bytes.length - 6)).toString("hex");
}

describe("an ONNX model", () => {
  test("is ir_version (1), graph (7) and opset_import (8), by onnx.proto's wire format", () => {
    // 08 0b: field 1 = 11; 3a 03: field 7, 3 bytes; 12 01 67: name "g"; 42 04: field 8; 0a 00: domain ""; 10 17: version 23.
    expect(Buffer.from(encodeOnnxModel(model())).toString("hex")).toBe(hex("080b 3a03 120167 4204 0a00 1017"));
  });

  test("holds nodes as inputs (1), outputs (2), name (3), op_type (4)", () => {
    const bytes = hex("0a0178 120179 1a016e 220452656c75");
    expect(graphHex({ nodes: [node()] })).toBe(`0a0f${bytes}120167`);
  });

  test("tags attributes with their type (20)", () => {
    const attributes: OnnxNode["attributes"] = new Map([
      ["a", { kind: "int", value: -1 }],
      ["b", { kind: "float", value: 0.5 }],
      ["c", { kind: "ints", value: [1, 300] }],
      ["d", { kind: "string", value: "é" }],
    ]);
    const bytes = graphHex({ nodes: [node(attributes)] });
    // int: i (3) as a ten-byte varint of two's complement, type 2.
    expect(bytes).toContain(hex("0a0161 18ffffffffffffffffff01 a00102"));
    // float: f (2) little endian, type 1.
    expect(bytes).toContain(hex("0a0162 150000003f a00101"));
    // ints: ints (8) unpacked, type 7.
    expect(bytes).toContain(hex("0a0163 4001 40ac02 a00107"));
    // string: s (4) in UTF-8, type 3.
    expect(bytes).toContain(hex("0a0164 2202c3a9 a00103"));
  });

  test("holds initializers as dims (1), data_type (2), name (8), raw_data (9)", () => {
    const initializers = new Map([["w", onnxTensorOf(tensorOf(Float32Array.of(1, -2), [2, 1]))]]);
    expect(graphHex({ initializers })).toBe(hex("120167 2a13 0802 0801 1001 420177 4a08 0000803f 000000c0"));
  });

  test("declares inputs with symbolic and fixed dimensions, and outputs by name alone", () => {
    const inputs = [{ name: "x", dtype: "I64" as const, shape: ["n", 3] }];
    // value: name (1), type (2) { tensor_type (1) { elem_type (1) = 7, shape (2) { dim (1) { dim_param (2) "n" }, dim { dim_value (1) 3 } } } }.
    const type = hex("0a0d 0807 1209 0a03 12016e 0a02 0803");
    expect(graphHex({ inputs, outputs: [{ name: "y" }] })).toBe(hex(`120167 5a14 0a0178 120f ${type} 6203 0a0179`));
  });

  test("keeps a scalar's empty shape apart from an unknown one", () => {
    const withShape = graphHex({ inputs: [{ name: "x", dtype: "F32", shape: [] }] });
    const without = graphHex({ inputs: [{ name: "x", dtype: "F32" }] });
    expect(withShape).toContain(hex("0a04 0801 1200"));
    expect(without).toContain(hex("0a02 0801"));
  });

  test("refuses numbers that are no int64 and dtypes that ONNX lacks", () => {
    const fraction = new Map([["a", { kind: "int" as const, value: 0.5 }]]);
    expect(() => encodeOnnxModel(model({ nodes: [node(fraction)] }))).toThrow(expect.objectContaining({ code: "input.value" }));
    const inputs = [{ name: "x", dtype: "F6_E2M3" as const, shape: [1] }];
    expect(() => encodeOnnxModel(model({ inputs }))).toThrow(expect.objectContaining({ code: "unsupported.dtype" }));
  });
});
