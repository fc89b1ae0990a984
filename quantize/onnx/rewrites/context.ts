/**
 * What every rewrite of a site gets.
 * @module
 */
import type { OnnxModel } from "../../../formats/containers/onnx/model.ts";
import { bodiesOf, type BodyPath } from "../../../model/onnx/bodies.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { throwIfAborted } from "../../../core/errors.ts";
import type { Moments } from "../conv-moments.ts";
import { OnnxEdits } from "../edits.ts";
import type { RowCodes } from "../row-codes.ts";
import type { ActivationScale } from "../scales.ts";
import type { TwinScale } from "../twin.ts";

/** What a rewrite may be told. */
export interface RewriteOptions {
  /** Scales of main-graph values, for static forms. */
  readonly scales?: ReadonlyMap<string, ActivationScale>;
  /** Main-graph values with two scales. */
  readonly twins?: ReadonlyMap<string, TwinScale>;
  /** What convolutions read, by site. */
  readonly moments?: ReadonlyMap<string, Moments>;
  /** A weight has been quantized while the model was written. */
  readonly onWeight?: (site: string) => void;
  readonly signal?: AbortSignal;
}

/** Edits of one model and what is measured while its tensors are written. */
export class RewriteContext {
  readonly edits: OnnxEdits;
  /** Σ w² and Σ (w - ŵ)² by site, once its weight has been read. */
  readonly errors = new Map<string, { readonly signal: number; readonly noise: number }>();
  readonly scales: ReadonlyMap<string, ActivationScale>;
  readonly twins: ReadonlyMap<string, TwinScale>;
  readonly moments: ReadonlyMap<string, Moments>;
  readonly #opsets = new Map<BodyPath, number>();
  readonly #producers = new Map<BodyPath, ReadonlyMap<string, number>>();
  readonly #options: RewriteOptions;

  constructor(model: OnnxModel, options: RewriteOptions = {}) {
    this.edits = new OnnxEdits(model);
    this.scales = options.scales ?? new Map<string, ActivationScale>();
    this.twins = options.twins ?? new Map<string, TwinScale>();
    this.moments = options.moments ?? new Map<string, Moments>();
    this.#options = options;
    for (const { path, nodes, opsets } of bodiesOf(model)) {
      this.#opsets.set(path, opsets.get("") ?? 1);
      this.#producers.set(path, new Map(nodes.flatMap(({ outputs }, i) => outputs.map((name) => [name, i] as const))));
    }
  }

  /** Place of the node that gives a value in its own body; undefined for inputs, constants and outer values. */
  producer(path: BodyPath, value: string): number | undefined {
    return this.#producers.get(path)?.get(value);
  }

  /** Note what the quantization of a site's weight cost. @throws {InterruptedError} when the run is to stop. */
  measured(site: string, { signal, noise }: RowCodes): void {
    throwIfAborted(this.#options.signal);
    this.errors.set(site, { signal, noise });
    this.#options.onWeight?.(site);
  }

  /** Version of the standard operators that the body speaks. */
  opset(path: BodyPath): number {
    return this.#opsets.get(path) ?? 1;
  }

  /** SQNR of a site's weight in dB; Infinity when it is exact or was not measured. */
  sqnr(site: string): number {
    const error = this.errors.get(site);
    return error === undefined || error.noise === 0 ? Infinity : 10 * Math.log10(error.signal / error.noise);
  }
}

/** What a rewrite did with a site. */
export type RewriteOutcome = { readonly done: true; readonly note?: string } | { readonly done: false; readonly reason: string };

export const DONE: RewriteOutcome = { done: true };

/** Leave a site as it is. */
export function refuse(reason: string): RewriteOutcome {
  return { done: false, reason };
}

/** Rows of a linear weight whose product with its input is a plain matrix product; else why it is none. */
export function matrixProblem(site: OnnxSite): string | undefined {
  const { op, node, weight } = site;
  if (weight.tensor.shape.length !== 2) return `its weight has ${weight.tensor.shape.length} axes`;
  if (op === "MatMul") return weight.slot === 1 ? undefined : "its weight is the left factor";
  const flag = (name: string): boolean => {
    const attribute = node.attributes.get(name);
    return attribute?.kind === "int" && Number(attribute.value) !== 0;
  };
  if (op === "Gemm" || op === "FusedMatMul") {
    const set = ["transA", "transBatchA", "transBatchB"].find(flag);
    return set === undefined ? undefined : `its ${set} is set`;
  }
  return `${op} is no matrix product`;
}

/** Value of a float attribute. */
export function floatAttribute({ node }: OnnxSite, name: string, otherwise: number): number {
  const attribute = node.attributes.get(name);
  return attribute?.kind === "float" || attribute?.kind === "int" ? Number(attribute.value) : otherwise;
}
