/**
 * Sparse tensors: their indices lie inside the dense shape.
 * @module
 */
import { elementCount } from "../../../core/dtype.ts";
import { FormatError } from "../../../core/errors.ts";
import type { OnnxAttribute, OnnxGraph, OnnxModel, OnnxNode, OnnxSparseTensor } from "./model.ts";
import { subgraphsOf } from "./tensors.ts";

/** @throws {FormatError} `format.field` naming a sparse tensor whose indices leave its shape or whose parts do not fit. */
export async function checkSparse(model: OnnxModel, name: string): Promise<void> {
  await checkGraph(model.graph, name);
  for (const item of model.functions) await checkNodes(item.nodes, name);
}

async function checkGraph(graph: OnnxGraph, name: string): Promise<void> {
  for (const [tensor, sparse] of graph.sparseInitializers ?? []) await checkTensor(sparse, `${name}: sparse ${JSON.stringify(tensor)}`);
  await checkNodes(graph.nodes, name);
}

async function checkNodes(nodes: readonly OnnxNode[], name: string): Promise<void> {
  for (const node of nodes) {
    for (const attribute of node.attributes.values()) {
      for (const sparse of sparseOf(attribute)) await checkTensor(sparse, `${name}: a sparse tensor of ${node.op}`);
    }
    for (const graph of subgraphsOf(node)) await checkGraph(graph, name);
  }
}

function sparseOf(attribute: OnnxAttribute): readonly OnnxSparseTensor[] {
  return attribute.kind === "sparse_tensor" ? [attribute.value] : attribute.kind === "sparse_tensors" ? attribute.value : [];
}

async function checkTensor({ values, indices, shape }: OnnxSparseTensor, name: string): Promise<void> {
  const count = elementCount(values.shape);
  const rank = shape.length;
  const isLinear = indices.shape.length === 1 && indices.shape[0] === count;
  const isTuples = indices.shape.length === 2 && indices.shape[0] === count && indices.shape[1] === rank;
  if (values.shape.length !== 1 || indices.dtype !== "I64" || (!isLinear && !isTuples)) {
    throw new FormatError(
      "format.field",
      `${name} has ${count} values and indices ${indices.dtype} [${indices.shape.join(", ")}]; I64 [${count}] or [${count}, ${rank}] was to be expected`,
      { indices: indices.shape, values: values.shape },
    );
  }
  const bytes = await indices.read();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const total = elementCount(shape);
  for (let i = 0; i < bytes.byteLength / 8; i++) {
    const index = Number(view.getBigInt64(8 * i, true));
    const size = isLinear ? total : shape[i % rank]!;
    if (index < 0 || index >= size) {
      throw new FormatError("format.field", `${name} has index ${index} where ${size} elements are`, { index, size });
    }
  }
}
