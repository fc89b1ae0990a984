/**
 * Operators that make values from attributes and sizes.
 * @module
 */
import type { Operator, Value } from "./call.ts";
import { broadcast, fromConstant, intValue, throughInt } from "./values.ts";

const constant: Operator = (call): Value => {
  const { tf } = call;
  const tensor = call.attribute("value", "tensor");
  if (tensor !== undefined) return fromConstant(tf, call.node.outputs[0]!, tensor.value);
  const float = call.attribute("value_float", "float");
  if (float !== undefined) return { dtype: "F32", tensor: tf.scalar(float.value) };
  const floats = call.attribute("value_floats", "floats");
  if (floats !== undefined) return { dtype: "F32", tensor: tf.tensor1d([...floats.value]) };
  const int = call.attribute("value_int", "int");
  if (int !== undefined) return intValue(tf, [int.value], []);
  const ints = call.attribute("value_ints", "ints");
  if (ints !== undefined) return intValue(tf, ints.value, [ints.value.length]);
  return call.unsupported("a value that is no tensor, number or list of numbers");
};

const constantOfShape: Operator = (call) => {
  const { tf } = call;
  const shape = call.integers(0);
  const given = call.attribute("value", "tensor");
  const value: Value = given === undefined ? { dtype: "F32", tensor: tf.scalar(0) } : fromConstant(tf, call.node.name, given.value);
  return throughInt(tf, value, (tensor) => broadcast(tf, tf.reshape(tensor, []), shape));
};

/** start, start + delta, … up to but without limit. */
const range: Operator = (call) => {
  const { tf } = call;
  const [start, limit, delta] = [0, 1, 2].map((i) => call.input(i).tensor.dataSync()[0]!) as [number, number, number];
  if (delta === 0) call.fail("its step is 0");
  const length = Math.max(0, Math.ceil((limit - start) / delta));
  const { dtype } = call.input(0);
  if (dtype === "F32")
    return {
      dtype,
      tensor: tf.tensor(
        Float32Array.from({ length }, (_, i) => start + i * delta),
        [length],
        "float32",
      ),
    };
  return intValue(
    tf,
    Int32Array.from({ length }, (_, i) => start + i * delta),
    [length],
    dtype,
  );
};

export const GENERATORS: Readonly<Record<string, Operator>> = {
  Constant: constant,
  ConstantOfShape: constantOfShape,
  Range: range,
};
