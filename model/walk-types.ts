/**
 * The walk over a model, block by block: its visitor and context.
 * `walk.ts` implements it.
 * @module
 */
import type { Engine, HostTensor, Values } from "./engines/engine.ts";
import type { Graph } from "./graph/graph.ts";
import type { Block } from "./model.ts";

/** One sequence (or image, or diffusion step): the model's inputs, batch axis first. All inputs share one batch size. */
export interface Sample {
  readonly inputs: Values;
}

/** A form of a block to run in place of the block itself. */
export interface BlockVariant {
  /** Defaults to the block's graph. Extra weight slots must be in `weights`. */
  readonly graph?: Graph;
  /** Replaces or adds weights by slot. */
  readonly weights?: ReadonlyMap<string, HostTensor>;
  /** Values wanted; defaults to the graph's outputs. */
  readonly outputs?: readonly string[];
  /** Runs on these in place of what the walk carries, by graph input; a `graph` of one's own may have further inputs. */
  readonly feeds?: Values;
}

/** What a visitor sees of the block it stands at. Valid until the walk moves on. */
export interface BlockContext {
  readonly block: Block;
  readonly index: number;
  readonly engine: Engine;
  /** Weights as fed to the engine (f32), by slot; loaded once a block. */
  readonly weights: ReadonlyMap<string, HostTensor>;
  /** Batches of samples at this block. */
  readonly batches: number;
  /** Samples × tokens of one batch. */
  batchTokens(batch: number): number;
  /** Indices of the samples in one batch, in the order of the batch axis; consecutive. */
  batchSamples(batch: number): readonly number[];
  /** Run the block or a variant on the recorded inputs of one batch. */
  run(batch: number, variant?: BlockVariant): Promise<Values>;
}

/** Visits blocks in order. Every member may be left out. */
export interface WalkVisitor {
  /** Graph and extra outputs for the observing pass of a block (default: the block itself, no taps). */
  instrument?(block: Block, index: number): BlockVariant | undefined;
  /** Called after each batch of the observing pass with everything `instrument` asked for. Values are valid during the call. */
  observe?(context: BlockContext, batch: number, values: Values): void | Promise<void>;
  /**
   * Called once a block, after its observing pass. A returned variant is replayed, so that later blocks see its
   * outputs in place of the float ones.
   */
  decide?(context: BlockContext): Promise<BlockVariant | undefined>;
}

export interface WalkProgress {
  readonly block: number;
  readonly blocks: number;
  readonly blockName: string;
  /** Batches done in this block, over all its passes. */
  readonly batch: number;
  readonly batches: number;
  /** Tokens of the samples × blocks they have passed (each block counted once, not once a pass). */
  readonly tokens: number;
  /** `tokens` when the walk is done. */
  readonly totalTokens: number;
}

export interface WalkOptions {
  readonly engine: Engine;
  readonly visitor: WalkVisitor;
  /** Tokens a run, at most; never splits a sample. Default 1024. Part of the result's identity: never derived from the worker count. */
  readonly batchTokens?: number;
  /** Bytes of carried values kept in memory; beyond it they go to a scratch file. Default 1 GiB. */
  readonly maxMemory?: number;
  /** Folder for the scratch file; default: the system's temporary folder. */
  readonly scratchDirectory?: string;
  /** First block whose observing pass is wanted; earlier ones only run (resume). */
  readonly from?: number;
  /** Last block that is wanted; later ones are not run, nor what only they would read. Default: the last of the model. */
  readonly to?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: WalkProgress) => void;
}
