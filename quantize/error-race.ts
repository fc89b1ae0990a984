/**
 * What one error alone does to the model's end.
 *
 * A block's own output does not tell: an error in an early layer may grow with
 * every block behind it, one in a late layer hardly moves. So the outputs of a
 * block with one thing quantized are carried on beside the walk, through float
 * blocks, to the head's input. The number carried at once is bounded: when
 * there are more, those that have moved the hidden states least so far drop out.
 * @module
 */
import type { HostTensor, Values } from "../model/engines/engine.ts";
import type { Block } from "../model/model.ts";
import type { BlockContext } from "../model/walk-types.ts";
import { meanTokenError } from "./token-error.ts";

/** Errors are followed on the first batch alone: their order is stable over a few hundred tokens. */
const BATCH = 0;

interface Runner<Label> {
  readonly label: Label;
  /** Values of this run that differ from the walk's, by carried name. */
  values: ReadonlyMap<string, HostTensor>;
  /** Mean over tokens of |y' − y|² / |y|² where it stands. */
  error: number;
}

/** Follows errors, each known by a label, through the blocks a walk visits in order. */
export class ErrorRace<Label> {
  readonly #limit: number;
  #runners: Runner<Label>[] = [];
  readonly #dropped: Runner<Label>[] = [];
  #reference: { readonly stand: BlockContext; readonly values: Values } | undefined;

  /** @param limit - errors carried at once, at least 1. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Take everything on the way through the block the walk stands at. */
  async pass(stand: BlockContext): Promise<void> {
    if (this.#runners.length === 0) return;
    const outputs = measuredOutputs(stand.block);
    const reference = await this.#float(stand, outputs);
    for (const runner of this.#runners) {
      const values = await stand.run(BATCH, { outputs, feeds: feedsOf(stand.block, runner.values) });
      runner.error = meanTokenError(reference, values);
      runner.values = carriedOf(stand.block, values);
    }
  }

  /**
   * Start from this block's outputs with one thing quantized.
   *
   * @param run - gives those outputs for a batch.
   */
  async enter(stand: BlockContext, label: Label, run: (batch: number) => Promise<Values>): Promise<void> {
    const values = await run(BATCH);
    const reference = await this.#float(stand, measuredOutputs(stand.block));
    this.#runners.push({ label, values: carriedOf(stand.block, values), error: meanTokenError(reference, values) });
    if (this.#runners.length <= this.#limit) return;
    const last = this.#runners.reduce((least, runner) => (runner.error < least.error ? runner : least));
    this.#runners = this.#runners.filter((runner) => runner !== last);
    this.#dropped.push({ ...last, values: new Map() });
  }

  /** The float block's outputs: one run serves everything that passes or starts here. */
  async #float(stand: BlockContext, outputs: readonly string[]): Promise<Values> {
    if (this.#reference?.stand !== stand) this.#reference = { stand, values: await stand.run(BATCH, { outputs }) };
    return this.#reference.values;
  }

  /** Every error that was entered, with what it had become at the end, or where it dropped out. */
  results(): readonly { readonly label: Label; readonly error: number }[] {
    return [...this.#runners, ...this.#dropped].map(({ label, error }) => ({ label, error }));
  }
}

/** A block's outputs; of a head, what its linear layer reads: logits would be as wide as the vocabulary. */
function measuredOutputs(block: Block): readonly string[] {
  if (block.role !== "epilogue" || block.sites.length === 0) return block.graph.outputs;
  return [...new Set(block.sites.map(({ input }) => input))];
}

function feedsOf(block: Block, values: ReadonlyMap<string, HostTensor>): Record<string, HostTensor> {
  const feeds: Record<string, HostTensor> = {};
  for (const [input, carried] of Object.entries(block.reads)) {
    const value = values.get(carried);
    if (value !== undefined) feeds[input] = value;
  }
  return feeds;
}

/** Copies: an engine may hand out views over memory it uses again. */
function carriedOf(block: Block, values: Values): ReadonlyMap<string, HostTensor> {
  const carried = new Map<string, HostTensor>();
  for (const [output, name] of Object.entries(block.writes)) {
    const value = values[output];
    if (value !== undefined) carried.set(name, { ...value, data: value.data.slice() });
  }
  return carried;
}
