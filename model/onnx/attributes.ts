/**
 * Attributes of ONNX nodes by type.
 * @module
 */
import type { OnnxNode } from "../../formats/containers/onnx/model.ts";

/** The value of an int attribute, or `otherwise` where there is none. */
export function intAttribute(node: OnnxNode, name: string, otherwise: number): number {
  const attribute = node.attributes.get(name);
  return attribute?.kind === "int" ? Number(attribute.value) : otherwise;
}

/** The values of an ints attribute. */
export function intsAttribute(node: OnnxNode, name: string): readonly number[] | undefined {
  const attribute = node.attributes.get(name);
  return attribute?.kind === "ints" ? attribute.value.map(Number) : undefined;
}
