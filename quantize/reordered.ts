/**
 * Tensors with their channels in another order.
 * @module
 */
import { DTYPES } from "../core/dtype.ts";
import { InputError } from "../core/errors.ts";
import { lazyOf, type LazyTensor, type Tensor } from "../core/tensor.ts";
import type { Model } from "../model/model.ts";
import type { Decisions, TensorOrder, WeightFold } from "./decisions.ts";
import { siteByWeight } from "./output-tasks.ts";
import { sitesOf } from "../model/model.ts";

/** The model whose checkpoint has its tensors in the decided order, and the tensors that came with it. */
export function reorderedModel(model: Model, { orders, added }: Pick<Decisions, "orders" | "added">): Model {
  if (orders.size === 0 && added.size === 0) return model;
  const sites = siteByWeight(sitesOf(model));
  const tensors = new Map<string, LazyTensor>();
  for (const [name, lazy] of model.tensors) {
    const order = orders.get(name);
    tensors.set(name, order === undefined ? lazy : reorderedTensor(lazy, order, sites.get(name)?.channelAxis ?? 0));
  }
  for (const [name, tensor] of added) tensors.set(name, lazyOf(name, tensor));
  return { ...model, tensors };
}

/** Folds of the model as it was → of the model as it is ordered. */
export function reorderedFolds(folds: Decisions["folds"], orders: Decisions["orders"]): Map<string, WeightFold> {
  return new Map(
    [...folds].map(([name, { rows, cols }]) => {
      const order = orders.get(name);
      return [name, { ...(rows && { rows: gathered(rows, order?.rows) }), ...(cols && { cols: gathered(cols, order?.cols) }) }];
    }),
  );
}

/** Small tensors with new values, in the decided order. */
export function reorderedReplacements(replaced: Decisions["replaced"], orders: Decisions["orders"]): Map<string, Tensor> {
  return new Map([...replaced].map(([name, tensor]) => [name, orders.has(name) ? permuted(tensor, orders.get(name)!, 0) : tensor]));
}

function gathered(values: Float32Array, order: Int32Array | undefined): Float32Array {
  return order === undefined ? values : Float32Array.from(order, (c) => values[c]!);
}

function reorderedTensor(lazy: LazyTensor, order: TensorOrder, channelAxis: 0 | 1): LazyTensor {
  const { location: _, ...rest } = lazy;
  return { ...rest, read: async () => permuted(await lazy.read(), order, channelAxis) };
}

/** @throws {InputError} `input.shape` for an order of another length than the axis. */
function permuted(tensor: Tensor, { rows, cols }: TensorOrder, channelAxis: 0 | 1): Tensor {
  const { dtype, shape, bytes } = tensor;
  const width = DTYPES[dtype].bits / 8;
  const [outer = 1, inner = 1] = shape.length === 1 ? [shape[0]!, 1] : shape;
  const [byOuter, byInner] = channelAxis === 0 ? [rows, cols] : [cols, rows];
  for (const [order, length] of [[byOuter, outer] as const, [byInner, inner] as const]) {
    if (order !== undefined && order.length !== length) {
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
