/**
 * Calibration: what the inputs of a model's sites look like, measured on samples in one walk.
 * @module
 */
import { InputError, NumericError } from "../core/errors.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Engine, HostTensor, Values } from "../model/engines/engine.ts";
import { createEngine, REPRODUCIBLE_THREADS } from "../model/engines/index.ts";
import type { Graph } from "../model/graph/graph.ts";
import type { Block, LinearSite, Model } from "../model/model.ts";
import type { Samples } from "../model/sample-list.ts";
import { walk } from "../model/walk.ts";
import type { BlockContext, WalkProgress } from "../model/walk-types.ts";
import { fingerprintModel } from "./fingerprint.ts";
import { observeValues, Reductions, type Observation, type ObservedGraph } from "./observation.ts";
import type { Statistic } from "./statistic.ts";
import { findStatistic } from "./statistics/index.ts";

/** A value to observe beside the inputs of sites, in every block that has it. */
export interface Tap {
  /** Name of the value in the block's graph, e.g. "self_attn.k_rope". Its last axis is the channels. */
  readonly value: string;
  readonly channels: number;
  /** Results are stored as `<block>.<name>.<statistic>`. Default: `value`. */
  readonly name?: string;
}

/** Progress with a total, as every long job of the library reports it, and where the walk stands. */
export interface CalibrateProgress extends WalkProgress {
  readonly phase: "calibrate";
  /** Tokens × blocks passed. */
  readonly done: number;
  readonly total: number;
  readonly unit: "tokens";
  /** The block. */
  readonly detail: string;
}

export interface CalibrateOptions {
  /** By name or one's own. */
  readonly statistics: readonly (string | Statistic)[];
  /** Left out: the best engine here, closed afterwards. */
  readonly engine?: Engine;
  /** Which sites; left out: every linear site in the model's blocks (the head and embeddings are not quantized by default). */
  readonly sites?: (site: LinearSite, block: Block) => boolean;
  readonly taps?: readonly Tap[];
  readonly batchTokens?: number;
  readonly maxMemory?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: CalibrateProgress) => void;
  /** Kept with the results: what the samples were made of. */
  readonly data?: CalibrationData;
}

/** Where samples came from. */
export interface CalibrationData {
  readonly paths?: readonly string[];
  readonly sequenceLength?: number;
  readonly seed?: number;
}

/** What a calibration was made of. */
export interface CalibrationSource extends CalibrationData {
  readonly family: string;
  /** Hash of config.json and of the names, dtypes and shapes of all tensors. */
  readonly fingerprint: string;
  readonly engine: string;
  readonly batchTokens: number;
}

export interface Calibration {
  /** Names of the statistics. */
  readonly statistics: readonly string[];
  readonly tokens: number;
  readonly samples: number;
  readonly source: CalibrationSource;
  /** By `<module>.<statistic>`; sites that share an input share the tensor. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** @param site - module name, e.g. "model.layers.0.self_attn.q_proj". */
  get(site: string, statistic: string): Tensor | undefined;
}

/** Tokens a run: large enough that the fixed cost of a run does not show. */
export const CALIBRATION_BATCH_TOKENS = 1024;

/**
 * Run the samples through the model block by block and fold the inputs of its sites.
 * A value that several sites read is observed once.
 *
 * @throws {InputError} `input.option` for unknown statistics, `input.value` when nothing is to be observed.
 * @throws {NumericError} `numeric.not-finite` naming the first site whose inputs are NaN or infinite.
 * @throws {InterruptedError} when the signal is aborted.
 */
export async function calibrate(model: Model, samples: Samples, options: CalibrateOptions): Promise<Calibration> {
  const { sites = isBlockSite, taps = [], batchTokens = CALIBRATION_BATCH_TOKENS } = options;
  const statistics = options.statistics.map((statistic) => (typeof statistic === "string" ? findStatistic(statistic) : statistic));
  checkStatistics(statistics);
  const observed = model.blocks.map((block) => observedValues(block, sites, taps));
  const first = observed.findIndex((values) => values.length > 0);
  const last = observed.findLastIndex((values) => values.length > 0);
  if (first === -1) {
    throw new InputError(
      "input.value",
      "nothing to observe: no site matches and no block has a tapped value; check the site filter and the names of taps",
    );
  }
  const { onProgress } = options;
  const engine = options.engine ?? (await createEngine("auto", { threads: REPRODUCIBLE_THREADS }));
  const tensors = new Map<string, Tensor>();
  const instruments = new InstrumentCache(statistics);
  const reductions = new Reductions(engine);
  let tokens = 0;
  let folds: BlockFolds | undefined;
  try {
    await walk(model, samples, {
      engine,
      batchTokens,
      from: first,
      to: last,
      visitor: {
        instrument(block, index) {
          folds = new BlockFolds(observed[index]!, statistics, instruments.get(block.graph, observed[index]!));
          return { graph: folds.instrument.graph, outputs: folds.instrument.outputs };
        },
        async observe(context, batch, values) {
          if (context.index === first) tokens += context.batchTokens(batch);
          folds!.update(context, await reductions.apply(folds!.instrument, values));
          if (batch === context.batches - 1) folds!.finish(tensors);
        },
      },
      ...(options.maxMemory !== undefined && { maxMemory: options.maxMemory }),
      ...(options.signal !== undefined && { signal: options.signal }),
      ...(onProgress !== undefined && {
        onProgress: (progress) =>
          onProgress({
            ...progress,
            phase: "calibrate",
            done: progress.tokens,
            total: progress.totalTokens,
            unit: "tokens",
            detail: progress.blockName,
          }),
      }),
    });
  } finally {
    await reductions.release();
    if (options.engine === undefined) await engine.close();
  }
  return createCalibration({
    statistics: statistics.map((statistic) => statistic.name),
    tokens,
    samples: samples.length,
    source: {
      ...options.data,
      family: model.facts.family,
      fingerprint: fingerprintModel(model),
      engine: engine.description,
      batchTokens,
    },
    tensors,
  });
}

/** Add the look-up by site. */
export function createCalibration(parts: Omit<Calibration, "get">): Calibration {
  return { ...parts, get: (site, statistic) => parts.tensors.get(`${site}.${statistic}`) };
}

function isBlockSite(site: LinearSite, block: Block): boolean {
  return block.role === "block" && site.kind !== "embedding";
}

function checkStatistics(statistics: readonly Statistic[]): void {
  if (statistics.length === 0) throw new InputError("input.option", "no statistics were asked for; name at least one, e.g. absmax");
  const names = statistics.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new InputError("input.option", `statistic "${twice}" is given twice`, { name: twice });
}

/** A value of a block and the modules its results belong to. */
interface ObservedValue extends Observation {
  readonly modules: readonly string[];
}

/** Each distinct value once, in the order of the sites. */
function observedValues(block: Block, wanted: (site: LinearSite, block: Block) => boolean, taps: readonly Tap[]): ObservedValue[] {
  const byValue = new Map<string, { value: string; channels: number; modules: string[] }>();
  const add = (value: string, channels: number, module: string): void => {
    const known = byValue.get(value);
    if (known === undefined) byValue.set(value, { value, channels, modules: [module] });
    else known.modules.push(module);
  };
  for (const site of block.sites) if (wanted(site, block)) add(site.input, site.cols, site.name);
  const values = new Set([...block.graph.inputs.map(({ name }) => name), ...block.graph.nodes.flatMap(({ outputs }) => outputs)]);
  for (const { value, channels, name = value } of taps) if (values.has(value)) add(value, channels, `${block.name}.${name}`);
  return [...byValue.values()];
}

/** Equal blocks get the same graph object, so that it is compiled once. */
class InstrumentCache {
  readonly #statistics: readonly Statistic[];
  readonly #byGraph = new Map<Graph, Map<string, ObservedGraph>>();

  constructor(statistics: readonly Statistic[]) {
    this.#statistics = statistics;
  }

  get(graph: Graph, values: readonly ObservedValue[]): ObservedGraph {
    const byValues = this.#byGraph.get(graph) ?? new Map<string, ObservedGraph>();
    this.#byGraph.set(graph, byValues);
    const key = JSON.stringify(values.map(({ value, channels }) => [value, channels]));
    const known = byValues.get(key) ?? observeValues(graph, values, this.#statistics);
    byValues.set(key, known);
    return known;
  }
}

/** The folds of one block while its batches pass. */
class BlockFolds {
  readonly instrument: ObservedGraph;
  readonly #values: readonly ObservedValue[];
  readonly #statistics: readonly Statistic[];
  readonly #states: unknown[][];

  constructor(values: readonly ObservedValue[], statistics: readonly Statistic[], instrument: ObservedGraph) {
    this.instrument = instrument;
    this.#values = values;
    this.#statistics = statistics;
    this.#states = values.map(({ channels }) => statistics.map((statistic) => statistic.create(channels)));
  }

  update(context: BlockContext, values: Values): void {
    for (const [i, { modules }] of this.#values.entries()) {
      const shape = values[this.instrument.shapes[i]!]!.data as BigInt64Array;
      const rows = shape.slice(0, -1).reduce((product, size) => product * Number(size), 1);
      for (const [s, statistic] of this.#statistics.entries()) {
        const parts = this.instrument.parts[i]![s]!.map((name) => values[name]!);
        if (statistic.reduce !== undefined) checkFinite(parts, modules[0]!, context.block);
        this.#states[i]![s] = statistic.update(this.#states[i]![s], parts, rows);
      }
    }
  }

  finish(tensors: Map<string, Tensor>): void {
    for (const [i, { modules }] of this.#values.entries()) {
      for (const [s, statistic] of this.#statistics.entries()) {
        const finished = Object.entries(statistic.finish(this.#states[i]![s]));
        this.#states[i]![s] = undefined;
        for (const module of modules) {
          for (const [suffix, tensor] of finished) {
            tensors.set(suffix === "" ? `${module}.${statistic.name}` : `${module}.${statistic.name}.${suffix}`, tensor);
          }
        }
      }
    }
  }
}

function checkFinite(parts: readonly HostTensor[], module: string, block: Block): void {
  for (const { data } of parts) {
    if (!(data instanceof Float32Array)) continue;
    for (let i = 0; i < data.length; i++) {
      if (Number.isFinite(data[i])) continue;
      throw new NumericError(
        "numeric.not-finite",
        `the input of ${module} is ${data[i]} in entry ${i}: the model overflows or its weights of ${block.name} or before are damaged; check the source with: bitwright inspect`,
        { module, block: block.name, entry: i },
      );
    }
  }
}
