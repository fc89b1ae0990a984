/**
 * The operators of the tfjs engine: one table, gathered from the families.
 * @module
 */
import { ACTIVATIONS } from "./activations.ts";
import type { Operator } from "./call.ts";
import { ELEMENTWISE } from "./elementwise.ts";
import { GENERATORS } from "./generate.ts";
import { INDEXING } from "./indexing.ts";
import { LAYOUT } from "./layout.ts";
import { PRODUCTS } from "./multiply.ts";
import { REDUCTIONS } from "./reduce.ts";
import { TRANSFORMER } from "./transformer.ts";

export const TFJS_OPERATORS: ReadonlyMap<string, Operator> = new Map(
  [ELEMENTWISE, ACTIVATIONS, PRODUCTS, TRANSFORMER, LAYOUT, INDEXING, REDUCTIONS, GENERATORS].flatMap((family) => Object.entries(family)),
);
