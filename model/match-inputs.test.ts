import { describe, expect, test } from "vitest";
import { createTensor, tensorOf, type Tensor } from "../core/tensor.ts";
import { completeInputs } from "./complete-inputs.ts";
import type { ValueType } from "./graph/graph.ts";
import { batchAxisOf, matchInputs } from "./match-inputs.ts";

const X: ValueType = { name: "x", dtype: "F32", shape: ["batch", 2] };
const Y: ValueType = { name: "y", dtype: "I64", shape: ["batch"] };
const given = (entries: Record<string, Tensor>): ReadonlyMap<string, Tensor> => new Map(Object.entries(entries));
const f32 = (shape: readonly number[], ...values: number[]): Tensor => tensorOf(Float32Array.from(values), shape);
const f64 = (shape: readonly number[], ...values: number[]): Tensor => tensorOf(Float64Array.from(values), shape);

describe("names", () => {
  test.each([
    [{ x: f32([1, 2], 1, 2) }, /input y I64 \[batch\] is missing; given: x; the model takes x F32 \[batch, 2\], y I64 \[batch\]/],
    [{ X: f32([1, 2], 1, 2), y: tensorOf(BigInt64Array.of(1n), [1]) }, /no input "X" \(is it "x"\?\)/],
    [{}, /given: nothing/],
  ])("%# lists what is given and what is expected", (entries, message) => {
    expect(() => matchInputs(given(entries as Record<string, Tensor>), [X, Y])).toThrow(
      expect.objectContaining({ code: "input.option", message: expect.stringMatching(message) }),
    );
  });

  test("names of the prototype are names like others", () => {
    const own: ValueType = { name: "__proto__", dtype: "F32", shape: [1] };
    const values = matchInputs(new Map([["__proto__", f32([1], 3)]]), [own]);
    expect(Object.entries(values).map(([name, { data }]) => [name, [...data]])).toEqual([["__proto__", [3]]]);
    expect(() => matchInputs(new Map([["constructor", f32([1], 3)]]), [own])).toThrow(/no input "constructor"/);
  });
});

describe("axes", () => {
  test("a batch axis is added where it is all that is missing", () => {
    expect(matchInputs(given({ x: f32([2], 1, 2) }), [X])["x"]).toMatchObject({ shape: [1, 2] });
  });

  test.each([
    [{ x: f32([1, 3], 1, 2, 3) }, [X] as ValueType[], /x is \[1, 3\].*axis 1 is 3, not 2/],
    [{ x: f32([1, 1, 1, 2], 1, 2) }, [X], /4 axes for 2/],
    [{ x: f32([2, 2], 1, 2, 3, 4), y: tensorOf(BigInt64Array.of(1n), [1]) }, [X, Y], /"batch" is 1 here and 2 in x/],
  ])("%# is refused with both shapes", (entries, inputs, message) => {
    expect(() => matchInputs(given(entries), inputs)).toThrow(
      expect.objectContaining({ code: "input.shape", message: expect.stringMatching(message) }),
    );
  });

  test("the batch axis is the first of all inputs, unless its name counts tokens", () => {
    const of = (...shapes: (number | string)[][]): string | undefined =>
      batchAxisOf(shapes.map((shape, i) => ({ name: `${i}`, dtype: "F32", shape })));
    expect(of(["batch", 3], ["batch"])).toBe("batch");
    expect(of(["DynamicDimension.0", 3, 48, "DynamicDimension.1"])).toBe("DynamicDimension.0");
    expect(of(["sequence_length", 3])).toBeUndefined();
    expect(of(["batch", 3], [2, "batch"])).toBeUndefined();
    expect(of([1, 3])).toBeUndefined();
  });
});

describe("dtypes", () => {
  const one = (dtype: ValueType["dtype"]): ValueType => ({ name: "x", dtype, shape: ["n"] });
  const convert = (tensor: Tensor, dtype: ValueType["dtype"], roundInputs?: boolean): unknown[] => [
    ...matchInputs(given({ x: tensor }), [one(dtype)], { ...(roundInputs !== undefined && { roundInputs }) })["x"]!.data,
  ];

  test("conversions that change no value are made", () => {
    expect(convert(tensorOf(Int32Array.of(-1, 5), [2]), "I64")).toEqual([-1n, 5n]);
    expect(convert(tensorOf(BigInt64Array.of(-1n, 5n), [2]), "I32")).toEqual([-1, 5]);
    expect(convert(createTensor("BOOL", [2], Uint8Array.of(1, 0)), "I64")).toEqual([1n, 0n]);
    expect(convert(f64([2], 0.5, -3), "F32")).toEqual([0.5, -3]);
    expect(convert(f64([2], Number.NaN, Infinity), "F32")).toEqual([Number.NaN, Infinity]);
    expect(convert(f32([2], 0.25, 2), "F64")).toEqual([0.25, 2]);
    expect(convert(f32([1], 1.5), "F16")).toEqual([0x3e00]);
    expect(convert(createTensor("F16", [1], Uint8Array.of(0x00, 0x3e)), "F32")).toEqual([1.5]);
  });

  test("floats are rounded only on request, to nearest even", () => {
    expect(() => convert(f64([2], 1, 0.1), "F32")).toThrow(
      expect.objectContaining({
        code: "input.dtype",
        message: expect.stringMatching(/0\.1 in entry 1 is no F32.*float32.*--round-inputs/),
      }),
    );
    expect(convert(f64([1], 0.1), "F32", true)).toEqual([Math.fround(0.1)]);
  });

  test.each([
    [tensorOf(BigInt64Array.of(2n ** 31n), [1]), "I32", "input.value", /2147483648 in entry 0/],
    [tensorOf(Int32Array.of(2), [1]), "BOOL", "input.value", /2 in entry 0/],
    [tensorOf(Uint8Array.of(2), [1]), "F32", "input.dtype", /U8.*normalize/],
    [f32([1], 1), "I64", "input.dtype", /give integers/],
  ] as const)("%# is refused for %s with %s", (tensor, dtype, code, message) => {
    expect(() => convert(tensor, dtype)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });
});

test("what follows from ids goes on behind a cache that is given; other inputs stay missing", () => {
  const past: ValueType = { name: "past_key_values.0.key", dtype: "F16", shape: ["batch", 2, "past", 4] };
  const value: ValueType = { ...past, name: "past_key_values.0.value" };
  const [ids, mask, positions] = ["input_ids", "attention_mask", "position_ids"].map((name, i): ValueType => ({
    name,
    dtype: "I64",
    shape: ["batch", i === 1 ? "total" : "sequence"],
  }));
  const inputs = [ids!, mask!, positions!, past, value, X];
  const key = createTensor("F16", [1, 2, 3, 4], new Uint8Array(48));
  const complete = completeInputs(given({ input_ids: tensorOf(BigInt64Array.of(5n, 6n), [1, 2]), "past_key_values.0.key": key }), inputs);
  expect([...complete.keys()].toSorted()).toEqual([
    "attention_mask",
    "input_ids",
    "past_key_values.0.key",
    "past_key_values.0.value",
    "position_ids",
  ]);
  expect(complete.get("attention_mask")!.shape).toEqual([1, 5]);
  expect(new BigInt64Array(complete.get("position_ids")!.bytes.buffer)).toEqual(BigInt64Array.of(3n, 4n));
  expect(complete.get("past_key_values.0.value")).toMatchObject({ dtype: "F16", shape: [1, 2, 3, 4] });
});
