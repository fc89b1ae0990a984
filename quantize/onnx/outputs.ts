/**
 * Which values get codes beside the inputs of sites, and which share their scale: results of sites and of what only moves, joins, adds or
 * pools them, so that runtimes find whole regions of integer operators.
 * @module
 */
import type { OnnxGraph, OnnxNode } from "../../formats/containers/onnx/model.ts";
import type { ChosenSite } from "./actions.ts";
import type { OnnxSettings } from "./settings.ts";

/** Values with codes, and for each the one whose scale it takes. */
export type OutputScales = ReadonlyMap<string, string>;

/** Operators whose result holds values of input 0, unchanged: its scale fits. */
const MOVES: ReadonlySet<string> = new Set([
  "MaxPool",
  "Reshape",
  "Transpose",
  "Flatten",
  "Squeeze",
  "Unsqueeze",
  "Slice",
  "Gather",
  "Identity",
  "DepthToSpace",
  "SpaceToDepth",
  "Expand",
  "Split",
]);
/** Operators that make new values of ones with codes. */
const POOLS: ReadonlySet<string> = new Set(["AveragePool", "GlobalAveragePool"]);
/** What runtimes fuse into the operator in front, so that the codes are those behind it. */
const CLIPS: ReadonlySet<string> = new Set(["Relu", "Clip"]);

/** onnxruntime fuses into QLinearConv whatever the opset, and that operator is new in 10. */
const FUSION_OPSET = 10;
/** It also quantizes a Gemm's float bias by channel, which DequantizeLinear can from 13 on. */
const BIAS_OPSET = 13;

/** @returns values of the main graph; graph outputs stay float. */
export function chooseOutputs(
  graph: OnnxGraph,
  choices: readonly ChosenSite[],
  mode: OnnxSettings["outputs"],
  opset: number,
): OutputScales {
  if (mode === "float" || opset < FUSION_OPSET) return new Map();
  const isHeld = ({ site }: ChosenSite): boolean => site.kind === "conv" || (mode === "all" && (site.op !== "Gemm" || opset >= BIAS_OPSET));
  const isFinal = new Set(graph.outputs.map(({ name }) => name));
  const readers = new Map<string, OnnxNode[]>();
  for (const node of graph.nodes) for (const name of new Set(node.inputs)) readers.set(name, [...(readers.get(name) ?? []), node]);
  const sites = new Set(
    choices.flatMap((choice) =>
      choice.action.kind === "static" && choice.action.scheme.weight.kind === "axis" && isHeld(choice) ? [choice.site.output] : [],
    ),
  );
  const groups = new Groups();
  const clipped = new Set<string>();
  for (const node of graph.nodes) {
    const [result = ""] = node.outputs;
    const coded = (name: string): boolean => groups.has(name);
    const isSite = sites.has(result) || clipped.has(result);
    if (isSite) {
      const [reader, ...others] = readers.get(result) ?? [];
      if (sites.has(result) && reader !== undefined && others.length === 0 && CLIPS.has(reader.op) && !isFinal.has(result)) {
        clipped.add(reader.outputs[0]!);
        continue;
      }
    }
    const data = node.inputs.filter((name) => name !== "");
    const makes =
      isSite ||
      (node.op === "Add" && data.length === 2 && data.every(coded)) ||
      (node.op === "Concat" && data.every(coded)) ||
      (POOLS.has(node.op) && coded(data[0] ?? "")) ||
      (MOVES.has(node.op) && coded(data[0] ?? ""));
    if (!makes) continue;
    for (const name of node.outputs) {
      if (name === "" || isFinal.has(name)) continue;
      groups.add(name);
      if (MOVES.has(node.op)) groups.join(name, data[0]!);
      // Codes are copied, so all parts need one scale.
      if (node.op === "Concat") for (const part of data) groups.join(name, part);
      if (node.op === "MaxPool") break;
    }
  }
  return groups.roots();
}

/** Values in groups of one scale. */
class Groups {
  readonly #parents = new Map<string, string>();

  has(name: string): boolean {
    return this.#parents.has(name);
  }

  add(name: string): void {
    if (!this.#parents.has(name)) this.#parents.set(name, name);
  }

  join(a: string, b: string): void {
    this.#parents.set(this.#root(a), this.#root(b));
  }

  roots(): OutputScales {
    return new Map([...this.#parents.keys()].map((name) => [name, this.#root(name)]));
  }

  #root(name: string): string {
    let root = name;
    while (this.#parents.get(root) !== root) root = this.#parents.get(root)!;
    return root;
  }
}
