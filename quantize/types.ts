/**
 * The library's surface: what the CLI calls and users script.
 * @module
 */
import type { Calibration } from "../calibrate/calibrate.ts";
import type { DType } from "../core/dtype.ts";
import type { QuantScheme } from "../core/scheme.ts";
import type { Packing } from "../calibrate/samples/document.ts";
import type { Engine } from "../model/engines/engine.ts";

/** A recipe: what to do, as data. The command line is shorthand for one. */
export interface Recipe {
  /** Names joined by "+" on the command line: transforms first, one method last, e.g. ["smoothquant", "rtn"]. */
  readonly method: readonly string[];
  /** "w8a8", "w8a16", "w4a16", "fp8", ...; default by method. */
  readonly bits?: string;
  /** Weights per scale: a number, "channel" or "tensor". */
  readonly groupSize?: number | "channel" | "tensor";
  /** `--scheme key=value,...`: preset, arithmetic, act, level, qkv-outputs, alpha, ... validated against one table. */
  readonly scheme?: Readonly<Record<string, string>>;
  /** Site patterns left alone (names or "re:..."), beside the defaults (embeddings, head). */
  readonly ignore?: readonly string[];
  /** Per-pattern overrides of bits and group size, first match wins. */
  readonly overrides?: readonly { readonly match: string; readonly bits?: string; readonly groupSize?: number | "channel" | "tensor" }[];
  /** Which sites stay weight-only. */
  readonly protect?: "none" | "auto" | readonly string[];
  readonly seed?: number;
  /** How the key-value cache is meant to be stored, e.g. "bfp12:block=32,v=f16": kept with the plan, and what `--eval` runs with. */
  readonly kv?: string;
  /** Lossless methods: "df11" (the official format, default) or "compact". */
  readonly codec?: "df11" | "compact";
  /** Level of `compact`: "max" (smallest, default) or "fast". */
  readonly level?: "max" | "fast";
  /** Lossless units by Python regular expression, in place of those found in the model; attributes in stream order. */
  readonly patterns?: readonly { readonly pattern: string; readonly attributes?: readonly string[] }[];
  /** Round wider floats to bf16 first: the one lossy step a lossless run can take, only when asked for. */
  readonly cast?: "bf16";
  /** Kernels to put beside an artifact: "c", "wasm" for block formats and lossless methods, "wgsl", "cuda" for DFloat11. */
  readonly kernels?: readonly string[];
}

/** One unit of a lossless plan. */
export interface LosslessUnit {
  /** Module path, with the component's folder in front for diffusers. */
  readonly name: string;
  readonly tensors: readonly string[];
  readonly elements: number;
  /** Stored bits a weight, index and tables counted; 16 when it stays uncompressed. */
  readonly bitsPerWeight: number;
  /** Why it stays uncompressed. */
  readonly refusal?: string;
}

/** What happens to one site. */
export interface SitePlan {
  readonly name: string;
  readonly shape: readonly number[];
  readonly weight?: QuantScheme;
  readonly input?: QuantScheme;
  readonly output?: QuantScheme;
  /** Why it is left alone or weight-only, when it is. */
  readonly reason?: string;
}

/** The resolved recipe: pure data, printed by --dry-run, stored in the artifact. */
export interface Plan {
  readonly version: 1;
  readonly source: { readonly path: string; readonly family: string; readonly parameters: number; readonly bytes: number };
  readonly recipe: Recipe;
  readonly transforms: readonly string[];
  readonly method: string;
  readonly sites: readonly SitePlan[];
  readonly exports: readonly string[];
  /** Exact folds the transforms may use, by the name of the layer that absorbs them. */
  readonly pairs: readonly string[];
  readonly scaleDType: DType;
  readonly arithmetic: "f32" | "bf16";
  /** What the user should know before it starts. */
  readonly notes: readonly string[];
  /** Units of a lossless method; `sites` is then empty. */
  readonly lossless?: { readonly codec: string; readonly units: readonly LosslessUnit[] };
  readonly calibration?: { readonly samples: number; readonly sequenceLength: number; readonly statistics: readonly string[] };
  readonly estimate: {
    readonly outputBytes: number;
    readonly diskBytes: number;
    readonly memoryBytes: number;
    readonly seconds: number;
    readonly bitsPerWeight: number;
  };
}

/** Progress of any long job. `done`/`total` share a unit named by `unit`. */
export interface ProgressEvent {
  readonly phase: "read" | "calibrate" | "decide" | "quantize" | "write" | "verify" | "evaluate" | "generate";
  readonly done: number;
  readonly total: number;
  readonly unit: "bytes" | "tokens" | "blocks" | "tensors" | "files";
  readonly detail?: string;
}

/** Smallest ratios and figures that an artifact must reach, e.g. `{ perplexity: 1.01, sqnr: 30 }`. */
export interface Gate {
  /** Largest perplexity allowed, as a multiple of the source's. */
  readonly perplexity?: number;
  /** Smallest SQNR of any quantized weight, dB. */
  readonly sqnr?: number;
  /** Largest mean KL divergence from the source, nats. */
  readonly kl?: number;
  /** .onnx sources: smallest mean cosine between outputs of source and artifact on the data. */
  readonly cosine?: number;
}

/** Held-out data for figures before and after. */
export interface EvaluateRequest {
  readonly data: readonly string[];
  /** Tokens a window; default min(2048, the model's positions). */
  readonly window?: number;
  readonly maxTokens?: number;
}

/** What `planQuantization` and `quantize` take. */
export interface QuantizeOptions {
  readonly recipe: Recipe;
  /** Directory to write; with several targets, `<out>/<target>/` each. */
  readonly out: string;
  /** Targets; default by source. */
  readonly to?: readonly string[];
  /** Calibration data: files or directories. */
  readonly data?: readonly string[];
  /** Sequences to calibrate on instead of `data`. */
  readonly sequences?: readonly (readonly number[])[];
  /** A calibration file, or one made by `calibrate`. */
  readonly calibration?: string | Calibration;
  /** Sequences taken from `data`, at most. Default 128. */
  readonly samples?: number;
  /** Tokens a sequence. Default 512, or what the model's positions allow. */
  readonly sequenceLength?: number;
  /** How documents become sequences; default by kind of file. */
  readonly packing?: Packing;
  /** Round arrays of the data to narrower floats of the model. */
  readonly roundInputs?: boolean;
  /** Draw sequences at random (seeded) instead of taking the first. */
  readonly shuffle?: boolean;
  /** Threads that write tensors; no effect on the bytes. Default: cores, at most 4. */
  readonly workers?: number;
  /** Bytes of memory the run may take. */
  readonly maxMemory?: number;
  /** Bytes of one output file, at most. Default 5 GB. */
  readonly maxShardBytes?: number;
  /** Replace an artifact this tool wrote. */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
  /** Runs the float model; default `createEngine("auto")`, started only when something needs it. */
  readonly engine?: Engine;
  readonly gate?: Gate;
  /** Measure perplexity before and after, and KL, on held-out data. */
  readonly evaluate?: EvaluateRequest;
}

/** What happened to one site, for the summary table. */
export interface SiteReport {
  readonly name: string;
  readonly scheme: string;
  /** Signal-to-quantization-noise ratio of the weight, dB; Infinity when exact. */
  readonly sqnr: number;
  /** Largest / median channel absmax of the input, before and after the transforms, when calibrated. */
  readonly outlierBefore?: number;
  readonly outlierAfter?: number;
  readonly note?: string;
}

export interface PerplexityReport {
  readonly perplexity: number;
  /** Predictions counted. */
  readonly tokens: number;
  readonly window: number;
}

export interface QuantizeReport {
  readonly out: readonly {
    readonly format: string;
    readonly directory: string;
    readonly bytes: number;
    readonly files: readonly string[];
  }[];
  readonly plan: Plan;
  readonly sites: readonly SiteReport[];
  readonly sourceBytes: number;
  readonly outputBytes: number;
  /** Lossless, `--codec compact`: bits a weight of the weight files, and of every byte of the artifact. */
  readonly bitsPerWeight?: { readonly weights: number; readonly directory: number };
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly peakMemoryBytes: number;
  readonly resumed: boolean;
  readonly verified: VerifyReport;
  /** Perplexity of the source and of the artifact, when an evaluation text was given. */
  readonly evaluation?: {
    readonly before: PerplexityReport;
    readonly after: PerplexityReport & { readonly kl: number; readonly top1: number };
  };
  /** .onnx sources with data: cosine between the outputs of source and artifact, mean and worst over runs and outputs. */
  readonly fidelity?: { readonly samples: number; readonly cosine: number; readonly worstCosine: number };
  readonly warnings: readonly string[];
}

export interface VerifyReport {
  readonly ok: boolean;
  readonly tensors: number;
  /** Worst SQNR (dB), with its tensor: against the source when one was given, else as it was measured while writing. */
  readonly worst?: { readonly tensor: string; readonly sqnr: number };
  readonly problems: readonly { readonly tensor: string; readonly problem: string }[];
}
