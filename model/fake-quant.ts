/**
 * Fake quantization: a model whose graphs quantize and dequantize activations
 * where `model.activations` says so, in f32. Static scales are weight slots, so
 * that equal blocks go on sharing one compiled graph.
 * @module
 */
import { blockFormatOf } from "../core/blocks/format.ts";
import { InputError, UnsupportedError } from "../core/errors.ts";
import { schemeName, type ActivationScheme, type QuantScheme } from "../core/scheme.ts";
import { lazyOf, type LazyTensor } from "../core/tensor.ts";
import { assertActivationScheme, quantizeDequantize, scalarTensor } from "./activation-nodes.ts";
import { GraphBuilder } from "./graph/builder.ts";
import { consumers, type Graph, type GraphNode } from "./graph/graph.ts";
import type { Block, LinearSite, Model } from "./model.ts";

export { quantizeDequantize } from "./activation-nodes.ts";

/** One quantize-dequantize in a block: a site's output, or an input that one or more sites read. */
interface Insertion {
  readonly kind: "input" | "output";
  readonly value: string;
  readonly scheme: QuantScheme;
  /** Nodes of the sites that read the quantized value; for an output, the node that makes it. */
  readonly nodes: readonly string[];
  /** Local name of the first site, for slot names. */
  readonly owner: string;
  readonly channels: number;
  readonly scale?: number;
  readonly zero?: number;
}

/**
 * The model as it runs with quantized activations.
 *
 * A value that several sites read is quantized once when their schemes (and stored scales) are equal. Site outputs keep
 * their value names; the float value before them is `<name>.float`.
 *
 * @returns a model with no `activations` left to apply, so applying it twice changes nothing; `model` itself when it has none.
 * @throws {InputError} `input.value` for a module that is no site, or a static scheme without its scale.
 * @throws {UnsupportedError} `unsupported.scheme` for a scheme activations cannot have.
 */
export function withActivations(model: Model): Model {
  if (model.activations.size === 0) return model;
  assertSitesExist(model);
  const graphs = new Map<Graph, Map<string, Graph>>();
  const blocks = model.blocks.map((block) => {
    const insertions = insertionsOf(block, model.activations);
    if (insertions.length === 0) return block;
    const known = graphs.get(block.graph) ?? new Map<string, Graph>();
    graphs.set(block.graph, known);
    const key = JSON.stringify(insertions.map(({ scale, zero, ...structure }) => [structure, scale !== undefined, zero !== undefined]));
    const graph = known.get(key) ?? rewriteGraph(block, insertions);
    known.set(key, graph);
    return {
      ...block,
      graph,
      weights: new Map([...block.weights, ...staticTensors(block, insertions)]),
      sites: moveSites(block, insertions),
    };
  });
  return { ...model, blocks, activations: new Map() };
}

function assertSitesExist(model: Model): void {
  const names = new Set(model.blocks.flatMap(({ sites }) => sites.map(({ name }) => name)));
  for (const name of model.activations.keys()) {
    if (names.has(name)) continue;
    throw new InputError("input.value", `activations are given for "${name}", which is none of the ${names.size} sites of the model`, {
      module: name,
    });
  }
}

function insertionsOf(block: Block, activations: Model["activations"]): Insertion[] {
  const found = new Map<string, Insertion>();
  if (!block.sites.some(({ name }) => activations.has(name))) return [];
  const routed = routedValues(block.graph);
  for (const site of block.sites) {
    for (const kind of ["input", "output"] as const) {
      const activation = activations.get(site.name)?.[kind];
      if (activation === undefined) continue;
      assertFits(site, kind, activation);
      const { scheme, scale = activation.globalScale, zero } = activation;
      const value = site[kind];
      if (routed.has(value) && scheme.timing === "dynamic" && scheme.granularity.kind === "tensor") {
        throw new UnsupportedError(
          "unsupported.scheme",
          `${site.name}: an expert sees tokens of all samples of a batch mixed, so its ${kind} has no dynamic scale per sample; use token or static tensor`,
          { site: site.name, scheme },
        );
      }
      const key = JSON.stringify([kind, value, scheme, scale, zero]);
      const nodes = [...(found.get(key)?.nodes ?? []), site.node];
      const owner = found.get(key)?.owner ?? site.localName;
      const stored = hasStoredScale(scheme) ? { ...(scale !== undefined && { scale }), ...(zero !== undefined && { zero }) } : {};
      found.set(key, { kind, value, scheme, nodes, owner, channels: kind === "input" ? site.cols : site.rows, ...stored });
    }
  }
  return [...found.values()];
}

/** Static schemes, and NVFP4, whose divisor is calibrated though its block scales are not. */
function hasStoredScale({ timing, scale }: QuantScheme): boolean {
  return timing === "static" || scale === "e4m3";
}

/** Values whose rows are tokens picked at run time: all that comes from a NonZero. */
function routedValues({ nodes }: Graph): ReadonlySet<string> {
  const routed = new Set<string>();
  for (const { op, inputs, outputs } of nodes) {
    if (op === "NonZero" || inputs.some((name) => routed.has(name))) for (const name of outputs) routed.add(name);
  }
  return routed;
}

function assertFits(
  site: LinearSite,
  kind: "input" | "output",
  { scheme, globalScale, scale = globalScale, zero }: ActivationScheme,
): void {
  assertActivationScheme(scheme);
  const refuse = (why: string): never => {
    throw new UnsupportedError("unsupported.scheme", `${site.name}: cannot quantize its ${kind} as ${schemeName(scheme)}: ${why}`, {
      site: site.name,
      scheme,
    });
  };
  if (site.kind === "embedding") refuse("an embedding reads token ids");
  if (site.kind === "conv" && scheme.granularity.kind !== "tensor") refuse("channels of a convolution are not the last axis; use tensor");
  const channels = kind === "input" ? site.cols : site.rows;
  if (blockFormatOf(scheme) === undefined && scheme.granularity.kind === "group" && channels % scheme.granularity.size !== 0) {
    refuse(`${channels} channels do not divide into groups of ${scheme.granularity.size}`);
  }
  if (!hasStoredScale(scheme)) return;
  if (scale === undefined || !(scale > 0) || !Number.isFinite(scale)) {
    throw new InputError("input.value", `${site.name}: the static scale of its ${kind} is ${scale}; it must be a positive number`, {
      site: site.name,
      scale,
    });
  }
  if (scheme.format.kind === "int" && !scheme.format.symmetric && !Number.isInteger(zero)) {
    throw new InputError("input.value", `${site.name}: the static zero point of its ${kind} is ${zero}; it must be an integer`, {
      site: site.name,
      zero,
    });
  }
}

const scaleSlot = ({ owner, kind }: Insertion): string => `${owner}.${kind}_scale`;
const zeroSlot = ({ owner, kind }: Insertion): string => `${owner}.${kind}_zero_point`;

function staticTensors(block: Block, insertions: readonly Insertion[]): [string, LazyTensor][] {
  const named = (slot: string, value: number): [string, LazyTensor] => [slot, lazyOf(`${block.name}.${slot}`, scalarTensor(value))];
  return insertions.flatMap((insertion) => [
    ...(insertion.scale === undefined ? [] : [named(scaleSlot(insertion), insertion.scale)]),
    ...(insertion.zero === undefined ? [] : [named(zeroSlot(insertion), insertion.zero)]),
  ]);
}

/** Sites as they are in the rewritten graph: a quantized input has another name. */
function moveSites(block: Block, insertions: readonly Insertion[]): LinearSite[] {
  return block.sites.map((site) => {
    const moved = insertions.find(({ kind, nodes }) => kind === "input" && nodes.includes(site.node));
    return moved === undefined ? site : { ...site, input: quantizedName(moved) };
  });
}

const quantizedName = ({ value, owner }: Insertion): string => `${value}.quantized.${owner}`;
const floatName = (value: string): string => `${value}.float`;

function rewriteGraph(block: Block, insertions: readonly Insertion[]): Graph {
  const outputs = new Set(insertions.filter(({ kind }) => kind === "output").map(({ value }) => value));
  const renamed: Graph = {
    ...block.graph,
    nodes: block.graph.nodes.map((node) =>
      node.outputs.some((name) => outputs.has(name))
        ? { ...node, outputs: node.outputs.map((name) => (outputs.has(name) ? floatName(name) : name)) }
        : node,
    ),
  };
  const builder = GraphBuilder.from(renamed);
  // The carried hidden states say how many samples the batch has; values inside the block may have tokens merged into that axis.
  const samples = block.graph.inputs.find(({ shape }) => shape.length >= 2 && typeof shape[0] === "string")?.name;
  const readers = consumers(block.graph);
  const segments = new Map<string, GraphNode[]>();
  const rewired = new Map<string, Map<string, string>>();
  let built = renamed.nodes.length;
  for (const insertion of insertions) {
    const { kind, value, scheme, nodes, channels } = insertion;
    const source = kind === "output" ? floatName(value) : value;
    const output = kind === "output" ? value : quantizedName(insertion);
    const slot = (name: string, stored: number | undefined): string | undefined =>
      stored === undefined ? undefined : builder.weight(name, [1]);
    const place = { output, channels, ...(samples !== undefined && { samples }) };
    quantizeDequantize(
      builder,
      source,
      scheme,
      slot(scaleSlot(insertion), insertion.scale),
      slot(zeroSlot(insertion), insertion.zero),
      place,
    );
    const all = builder.build(block.graph.outputs).nodes;
    segments.set(source, [...(segments.get(source) ?? []), ...all.slice(built)]);
    built = all.length;
    if (kind === "output") continue;
    for (const node of nodes) {
      if (!readers.get(value)?.some(({ name }) => name === node)) {
        throw new InputError("input.value", `block ${block.name}: node "${node}" of a site does not read its input "${value}"`, {
          node,
          value,
        });
      }
      const changes = rewired.get(node) ?? new Map<string, string>();
      rewired.set(node, changes.set(value, output));
    }
  }
  return { ...builder.build(block.graph.outputs), nodes: placeSegments(renamed, segments, rewired) };
}

/** Nodes in topological order: every segment right behind the value it starts from. */
function placeSegments(
  graph: Graph,
  segments: ReadonlyMap<string, readonly GraphNode[]>,
  rewired: ReadonlyMap<string, ReadonlyMap<string, string>>,
): GraphNode[] {
  const placed: GraphNode[] = [];
  const follow = (value: string): void => segments.get(value)?.forEach(place);
  const place = (node: GraphNode): void => {
    const changes = rewired.get(node.name);
    placed.push(changes === undefined ? node : { ...node, inputs: node.inputs.map((name) => changes.get(name) ?? name) });
    node.outputs.forEach(follow);
  };
  for (const { name } of [...graph.inputs, ...graph.weights]) follow(name);
  for (const name of graph.constants.keys()) follow(name);
  graph.nodes.forEach(place);
  return placed;
}
