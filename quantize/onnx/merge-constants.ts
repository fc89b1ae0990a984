/**
 * Equal small constants of one graph become one: converters write the same threes and sixes for every activation function, each as a node with a name.
 * @module
 */
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import type { OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { bodiesOf, type PlacedBody } from "../../model/onnx/bodies.ts";
import { constantValue } from "../../model/onnx/resolve.ts";
import { OnnxEdits } from "./edits.ts";

/** Scalars, shapes, axes; larger tensors are equal by chance at most. */
const MAX_BYTES = 64;

/** The model with one of each; the first stays, so that it stands in front of all readers. Graph inputs and outputs are left. */
export function mergeConstants(model: OnnxModel): OnnxModel {
  const edits = new OnnxEdits(model);
  let merged = 0;
  for (const body of bodiesOf(model)) {
    const first = new Map<string, string>();
    const outer = new Set([...(body.graph?.inputs ?? []), ...(body.graph?.outputs ?? [])].map(({ name }) => name));
    for (const name of body.function?.outputs ?? []) outer.add(name);
    for (const [name, tensor] of smallConstants(body)) {
      if (outer.has(name)) continue;
      const key = `${tensor.dtype} ${tensor.shape.join(",")} ${Buffer.from(tensor.bytes!).toString("latin1")}`;
      const known = first.get(key);
      if (known === undefined) {
        first.set(key, name);
        continue;
      }
      edits.rename(body.path, name, known);
      edits.abandonNames([name]);
      merged++;
    }
  }
  return merged === 0 ? model : edits.apply();
}

/** Initializers first: they stand in front of every node. */
function* smallConstants({ initializers, nodes }: PlacedBody): Generator<readonly [string, OnnxTensor]> {
  for (const [name, tensor] of initializers) if (isSmall(tensor)) yield [name, tensor];
  for (const node of nodes) {
    const tensor = isConstant(node) ? constantValue(node) : undefined;
    if (tensor !== undefined && isSmall(tensor)) yield [node.outputs[0]!, tensor];
  }
}

function isConstant({ op, domain }: OnnxNode): boolean {
  return op === "Constant" && domain === "";
}

function isSmall({ dtype, byteLength, bytes }: OnnxTensor): boolean {
  return dtype !== "STRING" && bytes !== undefined && byteLength <= MAX_BYTES;
}
