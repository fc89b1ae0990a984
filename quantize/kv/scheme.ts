/**
 * `--kv` text + calibration → the KvScheme of one model.
 * @module
 */
import { observeKeys, type KeyStatistics } from "../../calibrate/keys.ts";
import { InputError } from "../../core/errors.ts";
import { toFloat32 } from "../../core/tensor.ts";
import type { Engine } from "../../model/engines/engine.ts";
import type { Block, Model } from "../../model/model.ts";
import { findAttention, type AttentionTaps } from "../../model/kv/cut.ts";
import type { KvCode, KvScheme, StaticOp } from "../../model/kv/scheme.ts";
import type { Samples } from "../../model/sample-list.ts";
import { findKeyRows } from "../transforms/reorder/key-rows.ts";
import { absMaxKey, gainBefore, normKey } from "../transforms/reorder/keys.ts";
import { searchOrder, sortedBy, type BlockRule } from "../transforms/reorder/search.ts";
import { needsCalibration, type KvSpec } from "./spec.ts";

/** What a calibrated scheme runs. */
export interface KvData {
  readonly samples: Samples;
  readonly engine: Engine;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly done: number; readonly total: number; readonly detail: string }) => void;
}

/**
 * Make the scheme of a model.
 *
 * @param data - calibration sequences; needed for `centre=mean`, `order=score` and `order=absmax`.
 * @throws {InputError} `input.no-data` when the scheme needs statistics and none can be had.
 */
export async function createKvScheme(model: Model, spec: KvSpec, data: KvData | undefined): Promise<KvScheme> {
  if (needsCalibration(spec) && data === undefined) {
    throw new InputError(
      "input.no-data",
      `--kv ${spec.text} needs statistics of the keys: give --calibration-data <file> (a sample is bundled as fixtures/data/calib.txt)`,
      { option: "calibration-data" },
    );
  }
  return schemeFrom(model, spec, needsCalibration(spec) ? await observeKeys(model, data!.samples, data!) : new Map());
}

/** The scheme of a model from statistics that are there already, by block name; empty where the scheme needs none. */
export async function schemeFrom(model: Model, spec: KvSpec, statistics: ReadonlyMap<string, KeyStatistics>): Promise<KvScheme> {
  const ops = new Map<string, readonly StaticOp[]>();
  for (const block of model.blocks) {
    const taps = block.role === "block" ? findAttention(block) : undefined;
    if (taps === undefined) continue;
    const found = await staticOps(block, taps, spec, statistics.get(block.name));
    if (found.length > 0) ops.set(block.name, found);
  }
  const { k, v, q, mode, sinks, window } = spec;
  return { version: 1, method: spec.text, k, v, q, mode, protect: { sinks, window }, ops };
}

async function staticOps(block: Block, taps: AttentionTaps, spec: KvSpec, statistics: KeyStatistics | undefined): Promise<StaticOp[]> {
  const ops: StaticOp[] = [];
  const centred = spec.centre === "mean" ? statistics!.mean : undefined;
  if (centred !== undefined) ops.push({ op: "centre", mean: centred });
  const rule = blockRuleOf(spec.k);
  if (spec.order !== "none" && rule !== undefined && rule.block < taps.headSize) {
    ops.push({ op: "perm", index: await channelOrder(block, taps, spec, rule, statistics, centred) });
  }
  return ops;
}

/** How a code rounds, as far as an order is concerned; undefined where channels share nothing that an order could change. */
function blockRuleOf(code: KvCode): BlockRule | undefined {
  if (code.kind !== "block") return undefined;
  const { element, block } = code.format;
  // A float element's step grows with the element; what an order can win is decided by the largest one, as for integers of its range.
  return { block, mantissaBits: element.kind === "int" ? element.bits : 4 };
}

async function channelOrder(
  block: Block,
  taps: AttentionTaps,
  spec: KvSpec,
  rule: BlockRule,
  statistics: KeyStatistics | undefined,
  mean: Float32Array | undefined,
): Promise<Int32Array> {
  const { kvHeads, headSize } = taps;
  const index = new Int32Array(kvHeads * headSize);
  const norms = spec.order === "norm" ? await rowNorms(block, spec) : undefined;
  for (let head = 0; head < kvHeads; head++) {
    const from = head * headSize;
    const order =
      norms !== undefined
        ? sortedBy(norms.subarray(from, from + headSize))
        : headOrder(statistics!, head, rule, spec.order as "absmax" | "score", mean);
    index.set(
      order.map((c) => from + c),
      from,
    );
  }
  return index;
}

/** The order of one head's channels by a calibrated key. */
export function headOrder(
  { headSize, drawn, queryPower }: KeyStatistics,
  head: number,
  rule: BlockRule,
  order: "absmax" | "score",
  mean: Float32Array | undefined,
): Int32Array {
  const from = head * headSize;
  const values = mean === undefined ? drawn[head]! : drawn[head]!.map((x, i) => x - mean[from + (i % headSize)]!);
  if (order === "absmax") return sortedBy(absMaxKey(values, headSize));
  return searchOrder({ channels: headSize, values, weights: queryPower.subarray(from, from + headSize) }, rule);
}

/** The paper's key: the norm of each row of W_k. */
async function rowNorms(block: Block, spec: KvSpec): Promise<Float64Array> {
  const rows = findKeyRows(block);
  if (rows === undefined) {
    throw new InputError(
      "input.option",
      `--kv ${spec.text}: order=norm needs the rows of W_k, which ${block.name} does not have; use order=score`,
      {
        block: block.name,
      },
    );
  }
  const weight = toFloat32(await block.weights.get(rows.k.site.weight)!.read());
  return normKey(weight, rows.k.site, rows.k.firstRow, rows.kvHeads * rows.headSize, await gainBefore(block, rows.k.site));
}
