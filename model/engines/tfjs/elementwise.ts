/**
 * Arithmetic, comparisons and logic, element by element with broadcasting.
 * @module
 */
import type { Call, Operator, Tf, TfTensor, Value } from "./call.ts";
import { broadcastShapes, combineIntegers, intValue, throughInt, broadcast } from "./values.ts";

type Unary = (tf: Tf, x: TfTensor) => TfTensor;
type Binary = (tf: Tf, x: TfTensor, y: TfTensor) => TfTensor;

function unary(step: Unary, onIntegers?: (x: number) => number): Operator {
  return (call) => {
    const { dtype, tensor } = call.input(0);
    if (dtype === "F32" || onIntegers === undefined) return { dtype: "F32", tensor: step(call.tf, call.float(0)) };
    return intValue(call.tf, Int32Array.from(tensor.dataSync<"int32">(), onIntegers), tensor.shape, dtype);
  };
}

function sameTypes(call: Call, a: Value, b: Value): void {
  if (a.dtype !== b.dtype) call.fail(`its inputs are ${a.dtype} and ${b.dtype}, which must be equal`);
}

function binary(step: Binary, onIntegers: (x: number, y: number) => number): Operator {
  return (call) => {
    const [a, b] = [call.input(0), call.input(1)];
    sameTypes(call, a, b);
    broadcastShapes(call, a.tensor.shape, b.tensor.shape);
    if (a.dtype === "F32") return { dtype: "F32", tensor: step(call.tf, a.tensor, b.tensor) };
    return combineIntegers(call, a, b, onIntegers);
  };
}

/** Min, Max and Sum take one input or more. */
function variadic(operator: Operator): Operator {
  return (call) => {
    let result: Value = call.input(0);
    for (let i = 1; i < call.count; i++) result = single(operator(call.with([result, call.input(i)])));
    return result;
  };
}

function single(result: Value | readonly Value[]): Value {
  return isList(result) ? result[0]! : result;
}

function isList(result: Value | readonly Value[]): result is readonly Value[] {
  return Array.isArray(result);
}

function comparison(step: Binary): Operator {
  return (call) => {
    const [a, b] = [call.input(0), call.input(1)];
    sameTypes(call, a, b);
    broadcastShapes(call, a.tensor.shape, b.tensor.shape);
    const comparable = ({ dtype, tensor }: Value): TfTensor => (dtype === "BOOL" ? call.tf.cast(tensor, "int32") : tensor);
    return { dtype: "BOOL", tensor: step(call.tf, comparable(a), comparable(b)) };
  };
}

function logic(step: Binary): Operator {
  return (call) => {
    const [a, b] = [call.input(0), call.input(1)];
    if (a.dtype !== "BOOL" || b.dtype !== "BOOL") call.fail(`its inputs are ${a.dtype} and ${b.dtype}, not BOOL`);
    const shape = broadcastShapes(call, a.tensor.shape, b.tensor.shape);
    const [x, y] = [a, b].map((value) => throughInt(call.tf, value, (tensor) => broadcast(call.tf, tensor, shape)).tensor);
    return { dtype: "BOOL", tensor: step(call.tf, x!, y!) };
  };
}

/** Rounds toward zero, as ONNX and C do. */
function divideIntegers(x: number, y: number): number {
  return Math.trunc(x / y);
}

const MAX = binary((tf, x, y) => tf.maximum(x, y), Math.max);
const MIN = binary((tf, x, y) => tf.minimum(x, y), Math.min);
const ADD = binary(
  (tf, x, y) => tf.add(x, y),
  (x, y) => x + y,
);

const pow: Operator = (call) => {
  const [base, exponent] = [call.input(0), call.input(1)];
  if (base.dtype !== "F32") return combineIntegers(call, base, exponent, (x, y) => Math.trunc(x ** y));
  return { dtype: "F32", tensor: call.tf.pow(base.tensor, call.tf.cast(exponent.tensor, "float32")) };
};

/** fmod = 0 takes the sign of the divisor, 1 that of the dividend. */
const mod: Operator = (call) => {
  const [a, b] = [call.input(0), call.input(1)];
  sameTypes(call, a, b);
  if (a.dtype === "F32") call.unsupported("float inputs");
  const truncated = call.intAttribute("fmod", 0) === 1;
  return combineIntegers(call, a, b, (x, y) => (truncated ? x % y : x - Math.floor(x / y) * y));
};

const clip: Operator = (call) => {
  const [low, high] = [call.optional(1), call.optional(2)];
  let result = call.input(0);
  if (low !== undefined) result = single(MAX(call.with([result, low])));
  if (high !== undefined) result = single(MIN(call.with([result, high])));
  return result;
};

const where: Operator = (call) => {
  const { tf } = call;
  const [condition, a, b] = [call.input(0), call.input(1), call.input(2)];
  sameTypes(call, a, b);
  const shape = broadcastShapes(call, condition.tensor.shape, broadcastShapes(call, a.tensor.shape, b.tensor.shape));
  const mask = throughInt(tf, condition, (tensor) => broadcast(tf, tensor, shape)).tensor;
  const other = a.dtype === "BOOL" ? tf.cast(b.tensor, "int32") : b.tensor;
  return throughInt(tf, a, (tensor) => tf.where(mask, broadcast(tf, tensor, shape), broadcast(tf, other, shape)));
};

const not: Operator = (call) => ({ dtype: "BOOL", tensor: call.tf.logicalNot(call.input(0).tensor) });

/** TensorProto.DataType of what Cast can give here. */
const CAST_TARGETS = new Map([
  [1, "F32"],
  [2, "U8"],
  [3, "I8"],
  [4, "U16"],
  [6, "I32"],
  [7, "I64"],
  [9, "BOOL"],
] as const);

const cast: Operator = (call) => {
  const to = call.intAttribute("to", 0);
  const dtype = CAST_TARGETS.get(to as 1) ?? call.unsupported(`target type ${to}`);
  const { tensor } = call.input(0);
  if (dtype === "F32") return { dtype, tensor: call.tf.cast(tensor, "float32") };
  if (dtype === "BOOL")
    return { dtype, tensor: tensor.dtype === "bool" ? tensor : call.tf.notEqual(tensor, call.tf.scalar(0, tensor.dtype)) };
  const data = Int32Array.from(tensor.dataSync(), Math.trunc);
  const wrapped =
    dtype === "U8" ? Uint8Array.from(data) : dtype === "I8" ? Int8Array.from(data) : dtype === "U16" ? Uint16Array.from(data) : data;
  return intValue(call.tf, Int32Array.from(wrapped), tensor.shape, dtype);
};

export const ELEMENTWISE: Readonly<Record<string, Operator>> = {
  Add: ADD,
  Sub: binary(
    (tf, x, y) => tf.sub(x, y),
    (x, y) => x - y,
  ),
  Mul: binary(
    (tf, x, y) => tf.mul(x, y),
    (x, y) => x * y,
  ),
  Div: binary((tf, x, y) => tf.div(x, y), divideIntegers),
  Pow: pow,
  Mod: mod,
  Max: variadic(MAX),
  Min: variadic(MIN),
  Sum: variadic(ADD),
  Clip: clip,
  Abs: unary((tf, x) => tf.abs(x), Math.abs),
  Neg: unary(
    (tf, x) => tf.neg(x),
    (x) => -x,
  ),
  Sign: unary((tf, x) => tf.sign(x), Math.sign),
  Sqrt: unary((tf, x) => tf.sqrt(x)),
  Reciprocal: unary((tf, x) => tf.reciprocal(x)),
  Exp: unary((tf, x) => tf.exp(x)),
  Log: unary((tf, x) => tf.log(x)),
  Sin: unary((tf, x) => tf.sin(x)),
  Cos: unary((tf, x) => tf.cos(x)),
  Floor: unary((tf, x) => tf.floor(x)),
  Ceil: unary((tf, x) => tf.ceil(x)),
  Round: unary((tf, x) => tf.round(x)),
  Equal: comparison((tf, x, y) => tf.equal(x, y)),
  Less: comparison((tf, x, y) => tf.less(x, y)),
  LessOrEqual: comparison((tf, x, y) => tf.lessEqual(x, y)),
  Greater: comparison((tf, x, y) => tf.greater(x, y)),
  GreaterOrEqual: comparison((tf, x, y) => tf.greaterEqual(x, y)),
  And: logic((tf, x, y) => tf.logicalAnd(x, y)),
  Or: logic((tf, x, y) => tf.logicalOr(x, y)),
  Xor: logic((tf, x, y) => tf.logicalXor(x, y)),
  Not: not,
  Where: where,
  Cast: cast,
};
