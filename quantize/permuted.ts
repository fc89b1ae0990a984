/**
 * One tensor in another order of its channels.
 * @module
 */
import { DTYPES } from "../core/dtype.ts";
import { InputError } from "../core/errors.ts";
import type { LazyTensor, Tensor } from "../core/tensor.ts";
import type { TensorOrder } from "./decisions.ts";

/** A tensor whose channels come from elsewhere in `lazy`; no longer a run of a file. */
export function reorderedTensor(lazy: LazyTensor, order: TensorOrder, channelAxis: 0 | 1): LazyTensor {
  const { location: _, ...rest } = lazy;
  return { ...rest, read: async () => permuted(await lazy.read(), order, channelAxis) };
}

/** Copy of a tensor of one or two axes in another order. @throws {InputError} `input.shape` for an order that does not fit its axis. */
export function permuted(tensor: Tensor, { rows, cols }: TensorOrder, channelAxis: 0 | 1): Tensor {
  const { dtype, shape, bytes } = tensor;
  const width = DTYPES[dtype].bits / 8;
  const [outer = 1, inner = 1] = shape.length === 1 ? [shape[0]!, 1] : shape;
  const [byOuter, byInner] = channelAxis === 0 ? [rows, cols] : [cols, rows];
  for (const [order, length] of [[byOuter, outer] as const, [byInner, inner] as const]) {
    if (order !== undefined && (order.length !== length || order.some((from) => !(from >= 0 && from < length)))) {
      throw new InputError("input.shape", `an order of ${order.length} channels cannot be applied to an axis of ${length}`, { shape });
    }
  }
  const out = new Uint8Array(bytes.byteLength);
  for (let o = 0; o < outer; o++) {
    const from = (byOuter?.[o] ?? o) * inner * width;
    const to = o * inner * width;
    if (byInner === undefined) out.set(bytes.subarray(from, from + inner * width), to);
    else
      for (let i = 0; i < inner; i++) out.set(bytes.subarray(from + byInner[i]! * width, from + (byInner[i]! + 1) * width), to + i * width);
  }
  return { dtype, shape, bytes: out };
}
