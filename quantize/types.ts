/**
 * The library's surface: what the CLI calls and users script.
 * @module
 */
import type { QuantScheme } from "../core/scheme.ts";

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
  readonly phase: "read" | "calibrate" | "decide" | "quantize" | "verify" | "evaluate" | "generate";
  readonly done: number;
  readonly total: number;
  readonly unit: "bytes" | "tokens" | "blocks" | "tensors";
  readonly detail?: string;
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
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly peakMemoryBytes: number;
  readonly resumed: boolean;
  readonly verified: VerifyReport;
  readonly warnings: readonly string[];
}

export interface VerifyReport {
  readonly ok: boolean;
  readonly tensors: number;
  /** Worst SQNR (dB) against the source, with its tensor, when a source was given. */
  readonly worst?: { readonly tensor: string; readonly sqnr: number };
  readonly problems: readonly { readonly tensor: string; readonly problem: string }[];
}
