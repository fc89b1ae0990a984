/**
 * Float16 form of an exported model: weights and values are halves, inputs and outputs stay float32.
 * The angles of rotary positions stay float32 as well: past position 2048 a half cannot even hold the position.
 * @module
 */
import { fromFloat32 } from "../../../core/tensor.ts";
import type { OnnxAttribute, OnnxGraph, OnnxModel, OnnxNode } from "../../../formats/containers/onnx/model.ts";
import { makeLazyOnnxTensor, readFloat32, type OnnxTensor } from "../../../formats/containers/onnx/tensor.ts";

/** Largest finite half. */
const LARGEST = 65_504;
/** TensorProto.DataType of Cast. */
const FLOAT = 1;
const FLOAT16 = 10;
/** Operators whose result becomes a half although they are computed in float32, with all that leads to them. */
const ANGLES: ReadonlySet<string> = new Set(["Cos", "Sin"]);

/**
 * @param model - as `stitchModel` makes them (or with quantized weights): flat, every float value F32.
 */
export function toHalf(model: OnnxModel): OnnxModel {
  const { graph } = model;
  const wide = wideNodes(graph);
  const halves = new Map<string, string>();
  const initializers = new Map<string, OnnxTensor>();
  const readWide = new Set([...wide].flatMap(({ inputs }) => inputs));
  for (const [name, tensor] of graph.initializers) {
    if (tensor.dtype !== "F32") initializers.set(name, tensor);
    else if (readWide.has(name)) {
      initializers.set(name, tensor);
      halves.set(name, `${name}/half`);
      initializers.set(`${name}/half`, halfOf(tensor));
    } else initializers.set(name, halfOf(tensor));
  }
  const nodes: OnnxNode[] = [];
  for (const { name, dtype } of graph.inputs) {
    if (dtype !== "F32") continue;
    halves.set(name, `${name}/half`);
    nodes.push(cast(name, `${name}/half`, FLOAT16));
  }
  const results = new Set(graph.outputs.filter(({ dtype }) => dtype === "F32").map(({ name }) => name));
  for (const node of graph.nodes) {
    if (wide.has(node)) {
      nodes.push(node);
      if (!ANGLES.has(node.op)) continue;
      const output = node.outputs[0]!;
      halves.set(output, `${output}/half`);
      nodes.push(cast(output, `${output}/half`, FLOAT16));
      continue;
    }
    for (const output of node.outputs) if (results.has(output)) halves.set(output, `${output}/half`);
    nodes.push({
      ...node,
      inputs: node.inputs.map((input) => halves.get(input) ?? input),
      outputs: node.outputs.map((output) => (results.has(output) ? `${output}/half` : output)),
      attributes: narrowed(node),
    });
    for (const output of node.outputs) if (results.has(output)) nodes.push(cast(`${output}/half`, output, FLOAT));
  }
  const used = new Set(nodes.flatMap(({ inputs }) => inputs));
  return { ...model, graph: { ...graph, nodes, initializers: new Map([...initializers].filter(([name]) => used.has(name))) } };
}

/** Nodes that compute angles. */
function wideNodes({ nodes }: OnnxGraph): ReadonlySet<OnnxNode> {
  const wide = new Set<OnnxNode>();
  const needed = new Set<string>();
  for (const node of nodes.toReversed()) {
    if (!ANGLES.has(node.op) && !node.outputs.some((output) => needed.has(output))) continue;
    wide.add(node);
    for (const input of node.inputs) needed.add(input);
  }
  return wide;
}

function narrowed({ op, attributes }: OnnxNode): ReadonlyMap<string, OnnxAttribute> {
  const to = attributes.get("to");
  if (op !== "Cast" || to?.kind !== "int" || Number(to.value) !== FLOAT) return attributes;
  return new Map([...attributes, ["to", { kind: "int", value: FLOAT16 }]]);
}

function cast(input: string, output: string, to: number): OnnxNode {
  return {
    name: `${output}/cast`,
    op: "Cast",
    domain: "",
    inputs: [input],
    outputs: [output],
    attributes: new Map([["to", { kind: "int", value: to }]]),
  };
}

function halfOf(tensor: OnnxTensor): OnnxTensor {
  return makeLazyOnnxTensor("F16", tensor.shape, async () => {
    const values = await readFloat32(tensor);
    for (let i = 0; i < values.length; i++) if (Math.abs(values[i]!) > LARGEST) values[i] = Math.sign(values[i]!) * LARGEST;
    return fromFloat32(values, tensor.shape, "F16").bytes;
  });
}
