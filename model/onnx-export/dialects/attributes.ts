/**
 * Attributes of nodes with their ONNX defaults.
 * @module
 */
import type { Attribute } from "../../graph/graph.ts";

type Attributes = Readonly<Record<string, Attribute>>;

export function floatAttribute(attributes: Attributes, name: string, fallback: number): number {
  const found = attributes[name];
  return found?.kind === "float" ? found.value : fallback;
}

export function integerAttribute(attributes: Attributes, name: string, fallback: number): number {
  const found = attributes[name];
  return found?.kind === "int" ? found.value : fallback;
}

export function stringAttribute(attributes: Attributes, name: string, fallback: string): string {
  const found = attributes[name];
  return found?.kind === "string" ? found.value : fallback;
}
