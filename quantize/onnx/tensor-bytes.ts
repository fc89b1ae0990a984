/**
 * What the tensors of a model weigh.
 * @module
 */
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import { bodiesOf } from "../../model/onnx/bodies.ts";

/** Bytes of all tensors, each counted where it is stored. */
export function tensorBytes(model: OnnxModel): number {
  let bytes = 0;
  for (const body of bodiesOf(model)) {
    for (const tensor of body.initializers.values()) bytes += tensor.byteLength;
    for (const node of body.nodes) {
      for (const attribute of node.attributes.values()) if (attribute.kind === "tensor") bytes += attribute.value.byteLength;
    }
  }
  return bytes;
}
