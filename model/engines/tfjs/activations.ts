/**
 * Activation functions and soft-max, in float32.
 * @module
 */
import type { Call, Operator, Tf, TfTensor } from "./call.ts";

function activation(step: (tf: Tf, x: TfTensor, call: Call) => TfTensor): Operator {
  return (call) => ({ dtype: "F32", tensor: step(call.tf, call.float(0), call) });
}

const gelu = activation((tf, x, call) => {
  const approximate = call.stringAttribute("approximate", "none");
  if (approximate !== "none" && approximate !== "tanh") return call.unsupported(`approximate="${approximate}"`);
  const inner =
    approximate === "none"
      ? tf.erf(tf.mul(x, Math.SQRT1_2))
      : tf.tanh(tf.mul(Math.sqrt(2 / Math.PI), tf.add(x, tf.mul(0.044715, tf.mul(x, tf.mul(x, x))))));
  return tf.mul(tf.mul(0.5, x), tf.add(1, inner));
});

/** Run a step that works along the last axis along any. */
function alongAxis(call: Call, x: TfTensor, step: (tf: Tf, x: TfTensor) => TfTensor): TfTensor {
  const rank = x.shape.length;
  const axis = call.axis(call.intAttribute("axis", -1), rank);
  if (axis === rank - 1) return step(call.tf, x);
  const order = Array.from({ length: rank }, (_, i) => (i === axis ? rank - 1 : i === rank - 1 ? axis : i));
  return call.tf.transpose(step(call.tf, call.tf.transpose(x, order)), order);
}

const softmax = activation((_, x, call) => alongAxis(call, x, (tf, rows) => tf.softmax(rows)));

/** x - max - log Σ exp(x - max); the WASM backend has no kernel of its own for it. */
const logSoftmax = activation((_, x, call) =>
  alongAxis(call, x, (tf, rows) => {
    const shifted = tf.sub(rows, tf.max(rows, -1, true));
    return tf.sub(shifted, tf.log(tf.sum(tf.exp(shifted), -1, true)));
  }),
);

export const ACTIVATIONS: Readonly<Record<string, Operator>> = {
  Relu: activation((tf, x) => tf.relu(x)),
  Sigmoid: activation((tf, x) => tf.sigmoid(x)),
  Tanh: activation((tf, x) => tf.tanh(x)),
  Erf: activation((tf, x) => tf.erf(x)),
  Gelu: gelu,
  Elu: activation((tf, x, call) => {
    const alpha = call.floatAttribute("alpha", 1);
    return tf.add(tf.relu(x), tf.mul(alpha, tf.sub(tf.exp(tf.minimum(x, 0)), 1)));
  }),
  LeakyRelu: activation((tf, x, call) => tf.add(tf.relu(x), tf.mul(call.floatAttribute("alpha", 0.01), tf.minimum(x, 0)))),
  Softplus: activation((tf, x) => tf.softplus(x)),
  Softmax: softmax,
  LogSoftmax: logSoftmax,
};
