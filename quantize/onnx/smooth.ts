/**
 * SmoothQuant on ONNX graphs, and SQ-b: channels of an input are divided by factors (and centred) that its weights take up.
 *
 * Where the value comes out of a product and sum with constants (the end of a LayerNorm, whole or in pieces) that nobody else reads,
 * the factors go in there and cost nothing; elsewhere a Mul is put in front of the sites.
 * @module
 */
import { readFloat32, makeLazyOnnxTensor, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { bodiesOf } from "../../model/onnx/bodies.ts";
import { ConstantResolver } from "../../model/onnx/resolve.ts";
import type { OnnxConstant, OnnxSite } from "../../model/onnx/site.ts";
import { OnnxEdits } from "./edits.ts";
import { floats, makeNode } from "./nodes.ts";
import type { Observed } from "./observe.ts";
import { floatAttribute, matrixProblem } from "./rewrites/context.ts";

/** Sites that read one value. */
export interface SmoothGroup {
  readonly input: string;
  readonly sites: readonly OnnxSite[];
}

export interface SmoothOptions {
  readonly alpha: number | "auto";
  readonly shift: boolean;
  readonly bits: number;
}

/** What was done to one value. */
export interface SmoothedValue {
  readonly input: string;
  /** Node that took the factors up; absent: a Mul was inserted. */
  readonly foldedInto?: string;
  readonly alpha: number;
  /** Largest / median channel magnitude before and after. */
  readonly outlierBefore: number;
  readonly outlierAfter: number;
}

/** Factors stay within this of 1, so that no channel vanishes. */
const MIN_FACTOR = 1e-5;
const ALPHAS: readonly number[] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/** Operators that end in a product with input 1 (and a sum with input 2) along the last axis. */
const NORMS: ReadonlySet<string> = new Set(["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"]);

/** Groups of linear sites of the main graph whose input can be scaled by channel. */
export function smoothGroups(sites: readonly OnnxSite[], isWanted: (site: OnnxSite) => boolean): readonly SmoothGroup[] {
  const groups = new Map<string, OnnxSite[]>();
  for (const site of sites) {
    const fits = site.observable && site.kind === "linear" && site.weight.tensor.dtype === "F32" && matrixProblem(site) === undefined;
    if (!fits || !isWanted(site)) continue;
    groups.set(site.input, [...(groups.get(site.input) ?? []), site]);
  }
  return [...groups].map(([input, members]) => ({ input, sites: members }));
}

/**
 * The same function with tamer activations.
 *
 * @param seen - by input of the groups, channels told apart along the last axis. Groups without stay as they are.
 */
export async function smoothModel(
  model: OnnxModel,
  groups: readonly SmoothGroup[],
  seen: ReadonlyMap<string, Observed>,
  options: SmoothOptions,
): Promise<{ readonly model: OnnxModel; readonly values: readonly SmoothedValue[] }> {
  const edits = new OnnxEdits(model);
  const graph = new MainGraph(model);
  const values: SmoothedValue[] = [];
  for (const group of groups) {
    const channels = seen.get(group.input)?.channels;
    const cols = inputChannels(group.sites[0]!);
    if (channels === undefined || channels.min.length !== cols) continue;
    values.push(await smoothGroup(edits, graph, group, channels, options));
  }
  return { model: edits.apply(), values };
}

interface Channels {
  readonly min: Float32Array;
  readonly max: Float32Array;
}

async function smoothGroup(
  edits: OnnxEdits,
  graph: MainGraph,
  group: SmoothGroup,
  { min, max }: Channels,
  { alpha: asked, shift, bits }: SmoothOptions,
): Promise<SmoothedValue> {
  const middle = Float32Array.from(min, (low, j) => (shift ? (low + max[j]!) / 2 : 0));
  const size = Float32Array.from(min, (low, j) => Math.max(Math.abs(low - middle[j]!), Math.abs(max[j]! - middle[j]!)));
  const weights = await Promise.all(group.sites.map(async (site) => ({ site, rows: await inputRows(site) })));
  const largest = new Float32Array(size.length);
  for (const { rows } of weights) for (const [j, row] of rows.entries()) largest[j] = Math.max(largest[j]!, absMax(row));
  const alpha =
    asked === "auto"
      ? bestAlpha(
          size,
          largest,
          weights.map(({ rows }) => rows),
          bits,
        )
      : asked;
  const factors = factorsOf(size, largest, alpha);
  const folded = graph.foldable(group);
  if (folded === undefined) insertScale(edits, graph, group, factors, middle, shift);
  else graph.fold(edits, folded, factors, middle, shift);
  for (const { site } of weights) scaleWeight(edits, site, factors, shift ? middle : undefined);
  return {
    input: group.input,
    ...(folded && { foldedInto: folded.name }),
    alpha,
    outlierBefore: outlier(size),
    outlierAfter: outlier(size.map((value, j) => value / factors[j]!)),
  };
}

function factorsOf(size: Float32Array, largest: Float32Array, alpha: number): Float32Array {
  return size.map((value, j) => {
    const factor = Math.max(value, MIN_FACTOR) ** alpha / Math.max(largest[j]!, MIN_FACTOR) ** (1 - alpha);
    return Number.isFinite(factor) ? Math.max(factor, MIN_FACTOR) : 1;
  });
}

/**
 * The alpha whose rounding errors weigh least at the outputs: uniform errors of one activation step per tensor, and of one weight step
 * per output channel, channels taken as independent.
 */
function bestAlpha(size: Float32Array, largest: Float32Array, weights: readonly (readonly Float32Array[])[], bits: number): number {
  let best = 0.5;
  let least = Infinity;
  for (const alpha of ALPHAS) {
    const factors = factorsOf(size, largest, alpha);
    let step = 0;
    for (const [j, value] of size.entries()) step = Math.max(step, value / factors[j]!);
    let cost = 0;
    for (const rows of weights) {
      const outputs = rows[0]!.length;
      const peak = new Float64Array(outputs);
      let energy = 0;
      let power = 0;
      for (const [j, row] of rows.entries()) {
        const factor = factors[j]!;
        power += (size[j]! / factor / 3) ** 2;
        for (let n = 0; n < outputs; n++) {
          const value = Math.abs(row[n]! * factor);
          energy += value * value;
          if (value > peak[n]!) peak[n] = value;
        }
      }
      const weightSteps = peak.reduce((sum, value) => sum + (value / (2 ** (bits - 1) - 1)) ** 2, 0);
      cost += (step / 127) ** 2 * energy + weightSteps * power;
    }
    if (cost < least) {
      least = cost;
      best = alpha;
    }
  }
  return best;
}

function outlier(size: Float32Array): number {
  const sorted = size.toSorted();
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  return median === 0 ? 1 : sorted.at(-1)! / median;
}

/** Input channels of a linear site. */
export function inputChannels({ weight }: OnnxSite): number {
  return weight.tensor.shape[weight.inputAxis!]!;
}

/** By input channel, the weights of all output channels. */
async function inputRows({ weight }: OnnxSite): Promise<readonly Float32Array[]> {
  const values = await readFloat32(weight.tensor);
  const [first, second] = weight.tensor.shape as [number, number];
  if (weight.inputAxis === 0) return Array.from({ length: first }, (_, j) => values.subarray(j * second, (j + 1) * second));
  return Array.from({ length: second }, (_, j) => Float32Array.from({ length: first }, (_item, n) => values[n * second + j]!));
}

function absMax(values: Float32Array): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!));
  return most;
}

/** The weight with its input channels multiplied, and with a shift the constant that the shift took away. */
function scaleWeight(edits: OnnxEdits, site: OnnxSite, factors: Float32Array, middle: Float32Array | undefined): void {
  const { weight, path, index, output } = site;
  const { shape } = weight.tensor;
  const inner = shape.slice(weight.inputAxis! + 1).reduce((product, length) => product * length, 1);
  const tensor = derived(weight.tensor, (values) => {
    for (let i = 0; i < values.length; i++) values[i]! *= factors[Math.floor(i / inner) % factors.length]!;
    return values;
  });
  edits.abandon(weight);
  edits.read(path, index, weight.slot, edits.constant(weight.source.path, `${weight.value}_smooth`, tensor));
  if (middle === undefined) return;
  const outputs = shape[weight.channelAxis]!;
  const alpha = floatAttribute(site, "alpha", 1);
  const constant = makeLazyOnnxTensor("F32", [outputs], async () => {
    const rows = await inputRows(site);
    const sums = new Float32Array(outputs);
    for (let n = 0; n < outputs; n++) {
      let sum = 0;
      for (const [j, row] of rows.entries()) sum += row[n]! * middle[j]!;
      sums[n] = alpha * sum;
    }
    return new Uint8Array(sums.buffer);
  });
  const moved = edits.fresh(`${output}_centred`);
  edits.write(path, index, 0, moved);
  edits.after(path, index, [makeNode("Add", [moved, edits.constant(path, `${output}_shift`, constant)], [output])]);
}

function derived(tensor: OnnxTensor, compute: (values: Float32Array) => Float32Array): OnnxTensor {
  const lazy = makeLazyOnnxTensor("F32", tensor.shape, async () => {
    const values = compute(await readFloat32(tensor));
    return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  });
  return tensor.external === undefined ? lazy : { ...lazy, external: tensor.external };
}

function insertScale(
  edits: OnnxEdits,
  graph: MainGraph,
  group: SmoothGroup,
  factors: Float32Array,
  middle: Float32Array,
  shift: boolean,
): void {
  const { input, sites } = group;
  const inverse = edits.constant(
    "",
    `${input}_smooth`,
    floats(
      factors.map((factor) => 1 / factor),
      [factors.length],
    ),
  );
  const scaled = edits.fresh(`${input}_smoothed`);
  const nodes: OnnxNode[] = [];
  let value = input;
  if (shift) {
    value = edits.fresh(`${input}_centred`);
    nodes.push(makeNode("Sub", [input, edits.constant("", `${input}_middle`, floats(middle, [middle.length]))], [value]));
  }
  nodes.push(makeNode("Mul", [value, inverse], [scaled]));
  const producer = graph.producer(input);
  if (producer === undefined) edits.before("", 0, nodes);
  else edits.after("", producer, nodes);
  for (const { index, node } of sites) edits.read("", index, node.inputs.indexOf(input), scaled);
}

/** Where a product (and a sum) with constants gives a value. */
interface FoldPlace {
  readonly name: string;
  readonly scale?: { readonly node: number; readonly slot: number; readonly constant: OnnxConstant };
  readonly bias?: { readonly node: number; readonly slot: number; readonly constant: OnnxConstant };
}

/** Producers, readers and constants of the main graph. */
class MainGraph {
  readonly #nodes: readonly OnnxNode[];
  readonly #producers: ReadonlyMap<string, number>;
  readonly #readers = new Map<string, number>();
  readonly #resolver: ConstantResolver;

  constructor(model: OnnxModel) {
    const body = bodiesOf(model)[0]!;
    this.#nodes = body.nodes;
    this.#producers = new Map(body.nodes.flatMap(({ outputs }, i) => outputs.map((name) => [name, i] as const)));
    this.#resolver = new ConstantResolver(body, undefined);
    const count = (name: string): void => void this.#readers.set(name, (this.#readers.get(name) ?? 0) + 1);
    for (const inner of bodiesOf(model)) {
      // Who asks for a value's shape does not mind its scale.
      for (const { inputs, op } of inner.nodes) if (op !== "Shape" && op !== "Size") for (const name of inputs) count(name);
      for (const { name } of inner.graph?.outputs ?? []) count(name);
    }
  }

  producer(value: string): number | undefined {
    return this.#producers.get(value);
  }

  /** The place, when only the group reads the value and the constants belong to it. */
  foldable({ input, sites }: SmoothGroup): FoldPlace | undefined {
    const index = this.#producers.get(input);
    if (index === undefined || this.#readers.get(input) !== sites.length) return undefined;
    const node = this.#nodes[index]!;
    const channels = inputChannels(sites[0]!);
    if (NORMS.has(node.op) && node.outputs[0] === input) {
      const scale = this.#constant(index, 1, channels);
      const hasBias = (node.inputs[2] ?? "") !== "";
      const bias = hasBias ? this.#constant(index, 2, channels) : undefined;
      if (scale === undefined || (hasBias && bias === undefined)) return undefined;
      return { name: node.name, scale, ...(bias && { bias }) };
    }
    if (node.op === "Mul") {
      const scale = this.#constant(index, 0, channels) ?? this.#constant(index, 1, channels);
      return scale && { name: node.name, scale };
    }
    if (node.op !== "Add") return undefined;
    const bias = this.#constant(index, 1, channels) ?? this.#constant(index, 0, channels);
    if (bias === undefined) return undefined;
    const product = node.inputs[1 - bias.slot]!;
    const at = this.#producers.get(product);
    if (at === undefined || this.#nodes[at]!.op !== "Mul" || this.#readers.get(product) !== 1) return undefined;
    const scale = this.#constant(at, 1, channels) ?? this.#constant(at, 0, channels);
    return scale && { name: node.name, scale, bias };
  }

  /** gamma / s and (beta - b) / s. */
  fold(edits: OnnxEdits, { scale, bias }: FoldPlace, factors: Float32Array, middle: Float32Array, shift: boolean): void {
    const over = (values: Float32Array, offset: boolean): Float32Array =>
      values.map((value, j) => (value - (offset && shift ? middle[j]! : 0)) / factors[j]!);
    for (const [part, isBias] of [
      [scale, false],
      [bias, true],
    ] as const) {
      if (part === undefined) continue;
      const { node, slot, constant } = part;
      edits.abandon(constant);
      edits.read(
        "",
        node,
        slot,
        edits.constant(
          "",
          `${constant.value}_smooth`,
          derived(constant.tensor, (values) => over(values, isBias)),
        ),
      );
    }
    if (!shift || bias !== undefined || scale === undefined) return;
    const node = this.#nodes[scale.node]!;
    const offset = edits.constant(
      "",
      `${node.outputs[0]!}_middle`,
      floats(
        middle.map((value, j) => -value / factors[j]!),
        [middle.length],
      ),
    );
    const scaled = edits.fresh(`${node.outputs[0]!}_scaled`);
    edits.write("", scale.node, 0, scaled);
    edits.after("", scale.node, [makeNode("Add", [scaled, offset], [node.outputs[0]!])]);
  }

  #constant(node: number, slot: number, channels: number): FoldPlace["scale"] {
    const constant = this.#resolver.resolve(this.#nodes[node]!.inputs[slot] ?? "");
    if (constant === undefined || constant.tensor.dtype !== "F32") return undefined;
    const { shape } = constant.tensor;
    const isVector = shape.at(-1) === channels && shape.slice(0, -1).every((size) => size === 1);
    return isVector ? { node, slot, constant } : undefined;
  }
}
