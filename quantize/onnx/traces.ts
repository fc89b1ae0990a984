/**
 * Debugging records that PyTorch's exporter leaves on every node.
 * @module
 */
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { mapBodies } from "../../model/onnx/bodies.ts";

/** Python stack traces and the traced program's own text: often more bytes than the quantized weights, and paths of the exporting machine. */
const TRACES: readonly string[] = ["pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node"];

/** The model without stack traces of the program that exported it; all other metadata stays. */
export function dropTraces(model: OnnxModel): OnnxModel {
  return mapBodies(model, ({ nodes }) => (nodes.some(hasTrace) ? { nodes: nodes.map(withoutTrace) } : {}));
}

function hasTrace({ metadata }: OnnxNode): boolean {
  return metadata !== undefined && TRACES.some((key) => metadata.has(key));
}

function withoutTrace(node: OnnxNode): OnnxNode {
  if (!hasTrace(node)) return node;
  const { metadata, ...rest } = node;
  const kept = new Map([...metadata!].filter(([key]) => !TRACES.includes(key)));
  return kept.size === 0 ? rest : { ...rest, metadata: kept };
}
