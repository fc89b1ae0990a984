/**
 * stitchModel: the blocks of a Model become one ONNX model whose weights are initializers, read when they are written.
 *
 * A causal language model gets a cache: inputs input_ids, attention_mask, position_ids and past_key_values.{i}.key/value,
 * outputs logits and present.{i}.key/value, as transformers.js and optimum name them. The cache may be empty, rows may be
 * padded on the left. Encoders keep their inputs and outputs; positions are counted inside.
 * @module
 */
import { UnsupportedError } from "../../core/errors.ts";
import type { OnnxModel, OnnxValueInfo } from "../../formats/containers/onnx/model.ts";
import type { OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { causalMaskOf } from "../architectures/masks.ts";
import type { Graph, GraphNode, ValueType } from "../graph/graph.ts";
import { graphToOnnx } from "../graph/to-onnx.ts";
import type { AttentionPlace, Block, Model } from "../model.ts";
import { findDialect, type DialectName } from "./dialects/index.ts";
import type { CacheValues, Dialect, ExportedAttention } from "./dialects/dialect.ts";
import { Emitter } from "./emitter.ts";
import { Lengths } from "./lengths.ts";
import { pruneGraph, usedInputs } from "../graph/prune.ts";
import { InitializerTable, type WeightStorage } from "./weights.ts";

export interface StitchOptions {
  /** Operators to write; default "contrib". */
  readonly operators?: DialectName;
  /** Whether a causal language model gets a cache. Default true. */
  readonly cache?: boolean;
  /** Dtype of weight initializers; "stored" keeps 16-bit floats as they are, behind a Cast. Default "float32". */
  readonly weights?: WeightStorage;
}

/** Names of inputs and outputs, as transformers.js and optimum have them. */
export const pastName = (layer: number, which: "key" | "value"): string => `past_key_values.${layer}.${which}`;
export const presentName = (layer: number, which: "key" | "value"): string => `present.${layer}.${which}`;

const MASK = "attention_mask";
const POSITIONS = "position_ids";

/** Whether every attention of the model looks back only, so that keys and values of earlier positions can be kept. */
export function isCausal({ blocks, inputs }: Model): boolean {
  const attentions = blocks.flatMap((block) => (block.attentions ?? []).map((place) => sightOf(block, place)));
  return inputs.some(({ name }) => name === "input_ids") && attentions.length > 0 && attentions.every(({ sight }) => sight === "causal");
}

/**
 * One ONNX model of all blocks.
 *
 * @throws {UnsupportedError} `unsupported.operator` for a block whose nodes hold graphs; `unsupported.dtype` for weights that are no floats.
 */
export function stitchModel(model: Model, options: StitchOptions = {}): OnnxModel {
  return new Stitcher(model, options).stitch();
}

class Stitcher {
  readonly #model: Model;
  readonly #dialect: Dialect;
  readonly #emitter: Emitter;
  readonly #weights: InitializerTable;
  readonly #causal: boolean;
  readonly #cached: boolean;
  readonly #inputs: ValueType[] = [];
  readonly #outputs: OnnxValueInfo[] = [];
  readonly #nodeNames = new Map<string, string>();
  /** Carried value → value of the exported graph. */
  #carried = new Map<string, string>();
  #lengths: Lengths | undefined;
  #layer = 0;

  constructor(model: Model, { operators = "contrib", cache = true, weights = "float32" }: StitchOptions) {
    this.#model = model;
    this.#dialect = findDialect(operators);
    this.#emitter = new Emitter(model.facts.className, this.#dialect.opset);
    this.#weights = new InitializerTable(this.#emitter, weights);
    this.#causal = isCausal(model);
    this.#cached = cache && this.#causal && model.facts.output === "logits";
  }

  stitch(): OnnxModel {
    this.#declareInputs();
    for (const block of this.#model.blocks) this.#block(block);
    this.#nameOutputs();
    const outputs = [...this.#outputs].toSorted((a, b) => Number(a.name.startsWith("present.")) - Number(b.name.startsWith("present.")));
    const built = this.#emitter.graph.build(outputs.map(({ name }) => name));
    const graph = pruneGraph({ ...built, nodes: built.nodes.map((node) => this.#named(node)) });
    return this.#toOnnx(graph, outputs);
  }

  #declareInputs(): void {
    const input = (name: string, dtype: ValueType["dtype"], shape: ValueType["shape"]): void => {
      this.#inputs.push({ name, dtype, shape: shape.map((size) => SYMBOLS.get(size) ?? size) });
      this.#emitter.graph.input(name, dtype, shape);
      this.#carried.set(name, name);
    };
    const names = new Set(this.#model.inputs.map(({ name }) => name));
    for (const { name, dtype, shape } of this.#model.inputs) {
      if (name !== POSITIONS || this.#cached) input(name, dtype, shape);
      if (name === "input_ids" && this.#causal)
        input(MASK, "I64", ["batch_size", this.#cached ? "total_sequence_length" : "sequence_length"]);
    }
    if (this.#causal) this.#lengths = new Lengths(this.#emitter, "input_ids", MASK);
    if (names.has(POSITIONS) && !this.#cached) this.#carried.set(POSITIONS, countPositions(this.#emitter));
  }

  #block(block: Block): void {
    const e = this.#emitter;
    e.scope = `${block.name}/`;
    const attentions = new Map((block.attentions ?? []).map((place) => [place.output, place]));
    const values = this.#startingValues(block);
    const rename = (value: string): string => {
      if (value === "") return "";
      const known = values.get(value);
      if (known !== undefined) return known;
      const fresh = `${block.name}/${value}`;
      values.set(value, fresh);
      return fresh;
    };
    for (const site of block.sites) this.#nodeNames.set(`${block.name}/${site.output}`, site.name);
    for (const node of liveNodes(block.graph, attentions)) {
      if (Object.values(node.attributes).some(({ kind }) => kind === "graph")) {
        throw new UnsupportedError("unsupported.operator", `${node.op} in ${block.name} holds a graph; only flat blocks can be stitched`, {
          block: block.name,
          operator: node.op,
        });
      }
      const place = attentions.get(node.outputs[0]!);
      const renamed = { ...node, inputs: node.inputs.map(rename), outputs: node.outputs.map(rename) };
      if (place === undefined) this.#dialect.write(e, renamed);
      else this.#attention(block, place, rename);
    }
    const next = new Map(this.#carried);
    for (const [output, carried] of Object.entries(block.writes)) next.set(carried, rename(output));
    this.#carried = next;
    e.scope = "";
  }

  /** Inputs, weights and constants of a block's graph, as values of the exported one. */
  #startingValues({ graph, reads, weights, name }: Block): Map<string, string> {
    const values = new Map<string, string>();
    for (const [input, carried] of Object.entries(reads)) {
      const value = this.#carried.get(carried);
      if (value !== undefined) values.set(input, value);
    }
    for (const slot of graph.weights) values.set(slot.name, this.#weights.value(weights.get(slot.name), slot, name));
    for (const [constant, tensor] of graph.constants) values.set(constant, this.#emitter.constant(tensor));
    return values;
  }

  #attention(block: Block, place: AttentionPlace, rename: (value: string) => string): void {
    const { sight, window } = sightOf(block, place);
    const { query, key, value, output, mask } = place;
    const exported: ExportedAttention = {
      ...place,
      query: rename(query),
      key: rename(key),
      value: rename(value),
      output: rename(output),
      ...(mask === undefined ? {} : { mask: rename(mask) }),
      sight,
      ...(window === undefined ? {} : { window }),
      ...(this.#cached ? { cache: this.#cache(place) } : {}),
    };
    this.#dialect.attend(this.#emitter, exported, this.#lengths);
  }

  #cache({ kvHeads, headSize }: AttentionPlace): CacheValues {
    const layer = this.#layer++;
    for (const which of ["key", "value"] as const) {
      const shape = (length: string): readonly (number | string)[] => ["batch_size", kvHeads, length, headSize];
      const past = { name: pastName(layer, which), dtype: "F32", shape: shape("past_sequence_length") } as const;
      this.#inputs.push(past);
      this.#emitter.graph.input(past.name, past.dtype, past.shape);
      this.#outputs.push({ name: presentName(layer, which), dtype: "F32", shape: shape("total_sequence_length") });
    }
    return {
      pastKey: pastName(layer, "key"),
      pastValue: pastName(layer, "value"),
      presentKey: presentName(layer, "key"),
      presentValue: presentName(layer, "value"),
    };
  }

  #nameOutputs(): void {
    const { outputs } = this.#model;
    for (const name of outputs) {
      this.#emitter.op("Identity", [this.#carried.get(name)!], {}, name);
      const shape = this.#outputShape(name);
      this.#outputs.push({ name, dtype: "F32", ...(shape === undefined ? {} : { shape }) });
    }
  }

  /** Leading axes of an output; what is behind them the runtime infers where the graph does not say. */
  #outputShape(name: string): readonly (number | string)[] | undefined {
    const { vocabularySize, hiddenSize, output } = this.#model.facts;
    if (name === "logits") return output === "classes" ? ["batch_size", vocabularySize] : ["batch_size", "sequence_length", vocabularySize];
    if (name === "last_hidden_state") return ["batch_size", "sequence_length", hiddenSize];
    return name === "pooler_output" ? ["batch_size", hiddenSize] : undefined;
  }

  #named(node: GraphNode): GraphNode {
    const output = node.outputs.find((name) => name !== "") ?? node.op;
    return { ...node, name: this.#nodeNames.get(output) ?? output };
  }

  #toOnnx(graph: Graph, outputs: readonly OnnxValueInfo[]): OnnxModel {
    const used = usedInputs(graph);
    const { graph: converted, ...model } = graphToOnnx(graph);
    const initializers = new Map<string, OnnxTensor>([...this.#weights.initializers(used), ...converted.initializers]);
    const inputs = this.#inputs.filter(({ name }) => used.has(name));
    return { ...model, graph: { ...converted, initializers, inputs, outputs } };
  }
}

/** transformers.js takes every symbol but "batch_size" for a length. */
const SYMBOLS: ReadonlyMap<number | string, string> = new Map<number | string, string>([
  ["batch", "batch_size"],
  ["sequence", "sequence_length"],
]);

/** I64 [1, sequence] from 0. */
function countPositions(e: Emitter): string {
  const length = e.op("Squeeze", [e.op("Shape", ["input_ids"], { start: 1, end: 2 }), e.int64([0])]);
  return e.op("Unsqueeze", [e.op("Range", [e.int64(0), length, e.int64(1)]), e.int64([0])]);
}

/** What an attention sees: causal with or without a window, whatever its mask says, or all. */
function sightOf(
  { reads }: Block,
  { causal, mask }: AttentionPlace,
): { readonly sight: ExportedAttention["sight"]; readonly window?: number } {
  if (mask === undefined) return { sight: causal ? "causal" : "all" };
  const known = causalMaskOf(reads[mask] ?? mask);
  if (known === undefined) return { sight: "masked" };
  return { sight: "causal", ...(known.window === undefined ? {} : { window: known.window }) };
}

/** The nodes that outputs need when attentions need only their query, key and value. */
function liveNodes(graph: Graph, attentions: ReadonlyMap<string, AttentionPlace>): readonly GraphNode[] {
  const needed = new Set(graph.outputs);
  const live: GraphNode[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.outputs.some((output) => needed.has(output))) continue;
    live.push(node);
    const place = attentions.get(node.outputs[0]!);
    const inputs =
      place === undefined ? node.inputs : [place.query, place.key, place.value, ...(place.mask === undefined ? [] : [place.mask])];
    for (const input of inputs) needed.add(input);
  }
  return live.toReversed();
}
