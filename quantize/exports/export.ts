/**
 * Export: an artifact directory as a target, thin over a layout of `formats/`.
 * @module
 */
import type { DType } from "../../core/dtype.ts";
import type { QuantScheme } from "../../core/scheme.ts";
import type { TensorSpec } from "../../formats/containers/container.ts";

/** A site as an export sees it. `weight` absent: the site stays float. */
export interface ExportSite {
  readonly module: string;
  readonly rows: number;
  readonly cols: number;
  /** 1: the weight is stored [in, out]. */
  readonly channelAxis: 0 | 1;
  readonly weight?: QuantScheme;
  readonly input?: QuantScheme;
  readonly output?: QuantScheme;
  /** Calibrated numbers of static schemes (NVFP4: the divisor), known once the run has decided. */
  readonly inputScale?: number;
  readonly outputScale?: number;
}

/** A stored tensor of a site and what is in it. */
export interface SiteTensor extends TensorSpec {
  readonly role:
    | "codes"
    | "scales"
    | "global-scale"
    | "input-global-scale"
    | "zeros"
    | "shape"
    | "groups"
    | "input-scale"
    | "input-zero"
    | "output-scale"
    | "output-zero";
}

/** Whether a target can store a site, and if not, why and what comes nearest. */
export type Holding =
  { readonly ok: true; readonly format: string } | { readonly ok: false; readonly reason: string; readonly nearest: string };

export interface Export {
  readonly name: string;
  /** Why keys of a model with rotary positions cannot be ordered in it; absent where they can. */
  readonly keyOrderRefusal?: string;
  readonly summary: string;
  canHold(site: ExportSite): Holding;
  /** Tensors that stand for `<module>.weight`, in a fixed order. */
  siteTensors(site: ExportSite, scaleDType: DType): readonly SiteTensor[];
  /** The artifact's config.json, from the source's. @param ignore - linear modules that stay float. */
  config(
    source: Readonly<Record<string, unknown>>,
    sites: readonly ExportSite[],
    ignore: readonly string[],
    scaleDType?: DType,
  ): Readonly<Record<string, unknown>>;
}
