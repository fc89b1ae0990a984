/**
 * Tensors with their channels in another order.
 * @module
 */
import { lazyOf, type LazyTensor, type Tensor } from "../core/tensor.ts";
import type { Model } from "../model/model.ts";
import type { Decisions, WeightFold } from "./decisions.ts";
import { siteByWeight } from "./output-tasks.ts";
import { permuted, reorderedTensor } from "./permuted.ts";
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
