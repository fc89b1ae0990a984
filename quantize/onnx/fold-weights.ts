/**
 * Weights and biases behind nodes that only move constants become stored tensors, so that they are sites like any other.
 * @module
 */
import type { OnnxDType } from "../../formats/containers/onnx/dtypes.ts";
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import { bodiesOf, type BodyPath, type PlacedBody } from "../../model/onnx/bodies.ts";
import { ConstantFolder, type FoldedConstant } from "../../model/onnx/fold.ts";
import { ConstantResolver } from "../../model/onnx/resolve.ts";
import { canHoldWeight } from "../../model/onnx/sites.ts";
import { OnnxEdits } from "./edits.ts";
import { tensorBytes } from "./tensor-bytes.ts";

const FLOATS: ReadonlySet<OnnxDType> = new Set<OnnxDType>(["F32", "F16", "BF16", "F64"]);

/** More values to fold than the operators of any network; beyond it nothing is folded. */
const MAX_FOLDS = 65_536;

/** Sets of folds that are tried one by one when folding all of them would make the model larger. */
const MAX_TRIES = 32;

interface Fold {
  readonly path: BodyPath;
  readonly index: number;
  readonly slot: number;
  readonly constant: FoldedConstant;
}

/**
 * The model with every weight and bias that several nodes make of stored tensors stored as it is read. Equal ones of several bodies
 * (branches that hold the same layer) are stored once, in the body they can all see. What nobody reads any more is left out.
 *
 * @returns the model given when there is nothing to fold, or when the stored tensors have other readers, so that it would grow.
 */
export function foldWeights(model: OnnxModel): OnnxModel {
  const folds = findFolds(model);
  if (folds.length === 0 || folds.length > MAX_FOLDS) return model;
  const before = tensorBytes(model);
  const all = applyFolds(model, folds);
  if (tensorBytes(all) <= before) return all;
  const sets = byLeaves(folds);
  if (sets.length === 1 || sets.length > MAX_TRIES) return model;
  const good = sets.filter((set) => tensorBytes(applyFolds(model, set)) <= before);
  return good.length === 0 ? model : applyFolds(model, good.flat());
}

function findFolds(model: OnnxModel): readonly Fold[] {
  const folder = new ConstantFolder();
  const resolvers = new Map<PlacedBody, ConstantResolver>();
  const folds: Fold[] = [];
  for (const body of bodiesOf(model)) {
    const resolver = new ConstantResolver(body, body.outer && resolvers.get(body.outer));
    resolvers.set(body, resolver);
    for (const [index, node] of body.nodes.entries()) {
      if (!canHoldWeight(node)) continue;
      const constants = node.inputs.map((value) => folder.fold(resolver, value));
      // An operator on constants alone is no layer.
      if (node.inputs.every((value, slot) => value === "" || constants[slot] !== undefined)) continue;
      for (const [slot, constant] of constants.entries()) {
        if (constant === undefined || !FLOATS.has(constant.tensor.dtype)) continue;
        if (resolver.resolve(node.inputs[slot]!) === undefined) folds.push({ path: body.path, index, slot, constant });
      }
    }
  }
  return folds;
}

function applyFolds(model: OnnxModel, folds: readonly Fold[]): OnnxModel {
  const edits = new OnnxEdits(model);
  for (const { path, index, slot, constant } of folds) {
    const { id, place, tensor, leaves, names } = constant;
    const name = edits.share(["fold", id], () => {
      const [first] = leaves.values();
      return edits.constant(place, `${first!.source.name}_folded`, tensor);
    });
    edits.read(path, index, slot, name);
    edits.abandonNames(names);
  }
  return edits.apply();
}

/** Folds that share stored tensors, directly or through others, together. */
function byLeaves(folds: readonly Fold[]): readonly (readonly Fold[])[] {
  const parents = new Map<number, number>();
  const root = (id: number): number => {
    let at = id;
    while (parents.get(at) !== undefined && parents.get(at) !== at) at = parents.get(at)!;
    parents.set(id, at);
    return at;
  };
  for (const { constant } of folds) {
    const [first, ...others] = constant.leaves.keys();
    const to = root(first!);
    for (const other of others) parents.set(root(other), to);
  }
  const sets = new Map<number, Fold[]>();
  for (const fold of folds) {
    const [first] = fold.constant.leaves.keys();
    const set = sets.get(root(first!)) ?? [];
    sets.set(root(first!), set);
    set.push(fold);
  }
  return [...sets.values()];
}
