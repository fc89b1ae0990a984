/**
 * A checkpoint without a graph, in the shape of a model: enough for methods that look at weights alone.
 * @module
 */
import { stat } from "node:fs/promises";
import type { DType } from "../core/dtype.ts";
import { FormatError } from "../core/errors.ts";
import type { Graph } from "../model/graph/graph.ts";
import type { Block, LinearSite, Model } from "../model/model.ts";
import { openTensorSource } from "../model/sources/tensors.ts";

const EMPTY_GRAPH: Graph = { name: "none", inputs: [], weights: [], constants: new Map(), nodes: [], outputs: [], opsets: { "": 23 } };

/**
 * Open a bare .safetensors file, or a directory whose architecture nobody knows.
 *
 * @throws {FormatError} `format.missing` when no tensor looks like the weight of a linear layer.
 */
export async function openTensorModel(path: string): Promise<Model> {
  const source = await openTensorSource(path);
  if (source.sites.length === 0) {
    throw new FormatError(
      "format.missing",
      `${path} has no float matrix named <module>.weight that is not an embedding, a head or a norm`,
      { path },
    );
  }
  const sites = source.sites.map(({ name, weight, rows, cols }): LinearSite => ({
    name,
    localName: name,
    kind: "linear",
    node: name,
    input: `${name}.input`,
    output: `${name}.output`,
    weight,
    channelAxis: 0,
    rows,
    cols,
  }));
  const weights = new Map(source.sites.map(({ weight }) => [weight, source.tensors.get(weight)!]));
  const block: Block = { name: "tensors", role: "block", graph: EMPTY_GRAPH, weights, reads: {}, writes: {}, sites };
  const isDirectory = (await stat(path)).isDirectory();
  return {
    facts: {
      family: "tensors",
      className: "unknown",
      vocabularySize: 0,
      maxPositions: 0,
      hiddenSize: 0,
      dtype: mainDType(source.sites),
      tiedHead: false,
      output: "last_hidden_state",
    },
    config: source.config ?? {},
    ...(isDirectory && { directory: source.directory }),
    blocks: [block],
    inputs: [],
    outputs: [],
    tensors: source.tensors,
    activations: new Map(),
  };
}

/** The dtype of most sites. */
function mainDType(sites: readonly { readonly dtype: DType }[]): DType {
  const counts = new Map<DType, number>();
  for (const { dtype } of sites) counts.set(dtype, (counts.get(dtype) ?? 0) + 1);
  return [...counts].toSorted(([, a], [, b]) => b - a)[0]![0];
}
