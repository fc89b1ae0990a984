/**
 * Angles: what is computed of positions and frequencies for a cosine or sine.
 * @module
 */
import type { OnnxModel, OnnxNode } from "../../../formats/containers/onnx/model.ts";
import type { OnnxTensor } from "../../../formats/containers/onnx/tensor.ts";
import { bodiesOf, type PlacedBody } from "../../../model/onnx/bodies.ts";
import { findOnnxSites } from "../../../model/onnx/sites.ts";

const ANGLES: ReadonlySet<string> = new Set(["Cos", "Sin"]);

/** Nodes and the constants they read. */
export interface Angles {
  readonly nodes: ReadonlySet<OnnxNode>;
  readonly constants: ReadonlySet<OnnxTensor | OnnxNode>;
}

/**
 * Every Cos and Sin with all that leads to it, where that starts from whole numbers and constants and no layer stands in between: a half holds no
 * position past 2048. Sines of hidden values are activations like any other.
 */
export function findAngles(model: OnnxModel): Angles {
  const nodes = new Set<OnnxNode>();
  const constants = new Set<OnnxTensor | OnnxNode>();
  const bodies = bodiesOf(model);
  if (!bodies.some((body) => body.nodes.some(({ op }) => ANGLES.has(op)))) return { nodes, constants };
  const layers = new Set(
    findOnnxSites(model).flatMap(({ node, weight: { inputAxis, tensor } }) =>
      inputAxis === undefined || tensor.shape[inputAxis]! > 1 ? [node] : [],
    ),
  );
  for (const body of bodies) findIn(body, layers, nodes, constants);
  return { nodes, constants };
}

function findIn(body: PlacedBody, layers: ReadonlySet<OnnxNode>, nodes: Set<OnnxNode>, constants: Set<OnnxTensor | OnnxNode>): void {
  const hidden = new Set(body.graph?.inputs.flatMap(({ name, dtype }) => (dtype === "F32" && !body.initializers.has(name) ? [name] : [])));
  for (const node of body.nodes) {
    const isHidden = layers.has(node) || node.inputs.some((name) => hidden.has(name));
    if (isHidden) for (const name of node.outputs) hidden.add(name);
  }
  const needed = new Set<string>();
  for (const node of body.nodes.toReversed()) {
    const starts = ANGLES.has(node.op) && !hidden.has(node.outputs[0]!);
    if (!starts && !node.outputs.some((name) => needed.has(name))) continue;
    if (node.op === "Constant") constants.add(node);
    else nodes.add(node);
    for (const name of node.inputs) needed.add(name);
  }
  for (const [name, tensor] of body.initializers) if (needed.has(name)) constants.add(tensor);
}
