/**
 * What an ONNX file holds: versions, inputs and outputs, operators, sites, tensors wherever they are kept.
 * @module
 */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { openOnnx, type OpenOnnxModel } from "../formats/containers/onnx/read.ts";
import type { OnnxModel, OnnxValueInfo } from "../formats/containers/onnx/model.ts";
import { bodiesOf } from "../model/onnx/bodies.ts";
import { inlineFunctions } from "../model/onnx/inline.ts";
import { constantValue } from "../model/onnx/resolve.ts";
import { findOnnxSites, findQuantizedSites } from "../model/onnx/sites.ts";
import { inputsOf } from "../model/sources/onnx.ts";
import type { InspectedTensor, Inspection } from "./inspect.ts";

/** @throws as `openOnnx`. */
export async function inspectOnnx(path: string): Promise<Inspection> {
  const model = await openOnnx(path);
  try {
    const tensors = tensorsOf(model);
    const files = await Promise.all(model.files.map(async (file) => ({ name: basename(file), bytes: (await stat(file)).size })));
    const metadata = Object.fromEntries(model.metadata ?? []);
    return { path, kind: "ONNX model", facts: factsOf(model, tensors), files, tensors, schemes: schemesOf(model), metadata };
  } finally {
    await model.close();
  }
}

function factsOf(model: OpenOnnxModel, tensors: readonly InspectedTensor[]): Inspection["facts"] {
  const { irVersion, opsets, producerName, producerVersion, graph, functions } = model;
  const bodies = bodiesOf(model);
  const sites = countBy(findOnnxSites(inlineFunctions(model)), ({ op }) => op);
  const nodes = bodies.flatMap((body) => body.nodes);
  const operators = countBy(nodes, ({ domain, op }) => (domain === "" ? op : `${domain}::${op}`));
  return [
    ["IR version", String(irVersion)],
    ["opsets", [...opsets].map(([domain, version]) => `${domain === "" ? "ai.onnx" : domain} ${version}`).join(", ")],
    ...(producerName === undefined ? [] : [["producer", [producerName, producerVersion].join(" ").trim()] as const]),
    ["inputs", inputsOf(model).map(describe).join(", ")],
    ["outputs", graph.outputs.map(describe).join(", ")],
    ["nodes", `${nodes.length}${bodies.length > 1 ? ` in ${bodies.length} graphs and functions` : ""}`],
    ...(functions.length === 0 ? [] : [["functions", functions.map(({ name }) => name).join(", ")] as const]),
    ["operators", operators],
    ["sites", sites === "" ? "none" : sites],
    ["tensors", `${tensors.length}, ${tensors.reduce((sum, { bytes }) => sum + bytes, 0)} bytes`],
  ];
}

function describe({ name, dtype, shape }: OnnxValueInfo): string {
  return [name, dtype, shape && `[${shape.map((size) => (size === "" ? "?" : size)).join(", ")}]`]
    .filter((part) => part !== undefined)
    .join(" ");
}

/** "12 × MatMul, 3 × Conv", most first. */
function countBy<Item>(items: readonly Item[], key: (item: Item) => string): string {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(key(item), (counts.get(key(item)) ?? 0) + 1);
  return [...counts]
    .toSorted(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
    .map(([name, count]) => `${count} × ${name}`)
    .join(", ");
}

function schemesOf(model: OnnxModel): Inspection["schemes"] {
  const byOp = new Map<string, string[]>();
  for (const { op, name } of findQuantizedSites(model)) {
    const scheme = `weights of ${op}`;
    const known = byOp.get(scheme);
    if (known === undefined) byOp.set(scheme, [name]);
    else known.push(name);
  }
  return [...byOp].map(([scheme, modules]) => ({ scheme, modules }));
}

function tensorsOf(model: OnnxModel): readonly InspectedTensor[] {
  return bodiesOf(model).flatMap(({ path, initializers, nodes }) => {
    const named = (name: string): string => (path === "" ? name : `${path}/${name}`);
    const constants = nodes
      .filter(({ op, domain }) => op === "Constant" && domain === "")
      .flatMap((node) => {
        const tensor = constantValue(node);
        return tensor === undefined ? [] : [[node.outputs[0] ?? "", tensor] as const];
      });
    return [...initializers, ...constants].map(([name, { dtype, shape, byteLength }]) => ({
      name: named(name),
      dtype,
      shape,
      bytes: byteLength,
    }));
  });
}
