/**
 * Matrix products.
 *
 * The WASM backend is fast only for plain 2-D products: with a transposed operand or a batch axis it falls to a naive
 * loop (2.5 against 33 GFLOPS measured). So operands are transposed first, batches are multiplied one by one,
 * and the gradient is written out to avoid the transposed products of tf's own.
 * @module
 */
import type { Backend, Call, Operator, Tf, TfTensor } from "./call.ts";
import { broadcast, broadcastShapes } from "./values.ts";

/** a [m, k] × b [k, n], fast in both directions. */
export function multiplyMatrices(tf: Tf, a: TfTensor, b: TfTensor): TfTensor {
  const product = tf.customGrad((...inputs) => {
    const [x, y, save] = inputs as unknown as [TfTensor, TfTensor, (tensors: TfTensor[]) => void];
    save([x, y]);
    return {
      value: tf.matMul(x, y),
      gradFunc: (dy: TfTensor | TfTensor[], saved: TfTensor[]) => {
        const [p, q] = saved as [TfTensor, TfTensor];
        const gradient = dy as TfTensor;
        return [multiplyMatrices(tf, gradient, tf.transpose(q)), multiplyMatrices(tf, tf.transpose(p), gradient)];
      },
    };
  });
  return product(a, b);
}

/** Products of two stacks of matrices: a [n, m, k] × b [n, k, p] → [n, m, p]. */
export function multiplyBatches({ tf, splitBatches }: Backend, a: TfTensor, b: TfTensor): TfTensor {
  const [count, rows] = a.shape as [number, number, number];
  const columns = b.shape[2]!;
  if (!splitBatches) return tf.matMul(a, b);
  if (count === 0) return tf.zeros([0, rows, columns]);
  const matrices = tf.unstack(b);
  return tf.stack(tf.unstack(a).map((matrix, i) => multiplyMatrices(tf, matrix, matrices[i]!)));
}

const matMul: Operator = (call) => {
  const { tf } = call;
  let [a, b] = [call.float(0), call.float(1)];
  const [vectorA, vectorB] = [a.shape.length === 1, b.shape.length === 1];
  if (vectorA) a = tf.expandDims(a, 0);
  if (vectorB) b = tf.expandDims(b, 1);
  const product = multiplyStacks(call, a, b);
  const shape = [...product.shape];
  if (vectorB) shape.pop();
  if (vectorA) shape.splice(vectorB ? -1 : -2, 1);
  return { dtype: "F32", tensor: tf.reshape(product, shape) };
};

function multiplyStacks(call: Call, a: TfTensor, b: TfTensor): TfTensor {
  const { tf } = call;
  const [m, k] = a.shape.slice(-2) as [number, number];
  const [inner, n] = b.shape.slice(-2) as [number, number];
  if (k !== inner) call.fail(`[${a.shape.join(", ")}] × [${b.shape.join(", ")}]: ${k} columns against ${inner} rows`, "input.shape");
  if (b.shape.length === 2) {
    const rows = a.shape.slice(0, -1);
    return tf.reshape(multiplyMatrices(tf, tf.reshape(a, [rows.reduce((x, y) => x * y, 1), k]), b), [...rows, n]);
  }
  const batch = broadcastShapes(call, a.shape.slice(0, -2), b.shape.slice(0, -2));
  const count = batch.reduce((x, y) => x * y, 1);
  const left = tf.reshape(broadcast(tf, a, [...batch, m, k]), [count, m, k]);
  const right = tf.reshape(broadcast(tf, b, [...batch, k, n]), [count, k, n]);
  return tf.reshape(multiplyBatches(call.backend, left, right), [...batch, m, n]);
}

/** alpha · A' B' + beta · C. */
const gemm: Operator = (call) => {
  const { tf } = call;
  const turned = (x: TfTensor, name: string): TfTensor => (call.intAttribute(name, 0) === 1 ? tf.transpose(x) : x);
  const [a, b] = [turned(call.float(0), "transA"), turned(call.float(1), "transB")];
  if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[1] !== b.shape[0]) {
    call.fail(`[${a.shape.join(", ")}] × [${b.shape.join(", ")}] is no product of two matrices`, "input.shape");
  }
  const scaled = (x: TfTensor, factor: number): TfTensor => (factor === 1 ? x : tf.mul(x, factor));
  const product = scaled(multiplyMatrices(tf, a, b), call.floatAttribute("alpha", 1));
  if (call.optional(2) === undefined) return { dtype: "F32", tensor: product };
  return { dtype: "F32", tensor: tf.add(product, scaled(call.float(2), call.floatAttribute("beta", 1))) };
};

export const PRODUCTS: Readonly<Record<string, Operator>> = { MatMul: matMul, Gemm: gemm };
