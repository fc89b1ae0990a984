/**
 * Output layout + decisions → tensor tasks for the worker pool.
 * @module
 */
import { join } from "node:path";
import { byteLength, type DType } from "../core/dtype.ts";
import { UnsupportedError } from "../core/errors.ts";
import { codeBits } from "../core/scheme.ts";
import { fromFloat32, type LazyTensor, type Tensor } from "../core/tensor.ts";
import type { Factors, MatrixFactors } from "../kernels/scale-matrix/scale-matrix.ts";
import type { LinearSite } from "../model/model.ts";
import type { Decisions, WeightFold } from "./decisions.ts";
import type { ExportSite, SiteTensor } from "./exports/export.ts";
import { PARTIAL } from "./output-directory.ts";
import type { OutputLayout } from "./output-layout.ts";
import type { Prepared } from "./prepare.ts";
import type { OutputRegion, OutputRole, QuantizeTask, TaskInput, TensorTask } from "./streaming/task.ts";

/** A task and the stored tensor behind each of its outputs. */
export interface PlannedTask {
  /** Unique in the run; what the journal remembers. */
  readonly name: string;
  /** Source tensor it stands for. */
  readonly from: string;
  readonly stored: ReadonlyMap<OutputRole, string>;
  /** Bytes read, for progress. */
  readonly bytes: number;
  /** Built when it is due: a source that lies in no file is read then. */
  create(): Promise<TensorTask>;
}

/** All tasks of a target, in the source's order. */
export function planTasks(
  { model, scaleDType, settings, choices }: Prepared,
  layout: OutputLayout,
  decisions: Decisions,
  directory: string,
  globalScales: ReadonlyMap<string, number>,
): PlannedTask[] {
  const sites = new Map(choices.map(({ site }) => [`${site.name}.weight`, site]));
  const region = (name: string, role: OutputRole): OutputRegion => {
    const { shard, offset, spec } = layout.places.get(name)!;
    return { role, path: join(directory, shard.file + PARTIAL), offset, byteLength: byteLength(spec.dtype, spec.shape) };
  };
  const whole = (name: string, bytes: number, create: PlannedTask["create"], from = name): PlannedTask => ({
    name,
    from,
    bytes,
    stored: new Map([["tensor", name]]),
    create,
  });
  const copyOf = (name: string, { dtype, shape, bytes }: Tensor, from = name): PlannedTask => {
    const input: TaskInput = { source: { kind: "bytes", bytes }, dtype, shape };
    return whole(name, bytes.byteLength, async () => ({ kind: "copy", name, input, outputs: [region(name, "tensor")] }), from);
  };
  return [...model.tensors].flatMap(([name, lazy]): PlannedTask[] => {
    const quantized = layout.sites.get(name);
    const replaced = decisions.replaced.get(name);
    const fold = decisions.folds.get(name);
    if (quantized !== undefined) {
      const parts = quantized.tensors.filter(({ role }) => isWeightRole(role));
      const task: PlannedTask = {
        name,
        from: name,
        bytes: lazy.byteLength,
        stored: new Map(parts.map((part) => [part.role as OutputRole, part.name])),
        create: async () => ({
          kind: "quantize",
          name,
          input: await inputOf(lazy),
          channelAxis: quantized.site.channelAxis,
          scheme: quantized.site.weight!,
          arithmetic: settings.arithmetic,
          scaleDType: storageOf(scaleDType),
          codes: codesForm(parts, quantized.site),
          ...zeroForm(parts),
          ...(fold && { factors: factorsOf(fold) }),
          ...(globalScales.has(name) && { globalScale: globalScales.get(name)! }),
          outputs: parts.map((part) => region(part.name, part.role as OutputRole)),
        }),
      };
      return [task, ...activationScales(quantized, decisions, scaleDType).map(([stored, tensor]) => copyOf(stored, tensor, name))];
    }
    if (replaced !== undefined) return [copyOf(name, replaced)];
    if (fold !== undefined) {
      const site = sites.get(name);
      const factors = factorsOf(site?.channelAxis === 1 ? swapAxes(fold) : fold);
      return [
        whole(name, lazy.byteLength, async () => ({
          kind: "rescale",
          name,
          input: await inputOf(lazy),
          factors,
          dtype: lazy.dtype,
          outputs: [region(name, "tensor")],
        })),
      ];
    }
    return [
      whole(name, lazy.byteLength, async () => ({ kind: "copy", name, input: await inputOf(lazy), outputs: [region(name, "tensor")] })),
    ];
  });
}

/** Packed codes are those that are fewer bytes than there are weights, or words. */
function codesForm(parts: readonly SiteTensor[], { rows, cols, weight }: ExportSite): QuantizeTask["codes"] {
  const codes = parts.find(({ role }) => role === "codes")!;
  const plain = rows * cols * (weight !== undefined && codeBits(weight.format) > 8 ? 2 : 1);
  return codes.dtype === "I32" || byteLength(codes.dtype, codes.shape) !== plain ? "packed" : "bytes";
}

function isWeightRole(role: SiteTensor["role"]): boolean {
  return role === "codes" || role === "scales" || role === "global-scale" || role === "zeros" || role === "shape";
}

/** Where a task reads a tensor from. */
export async function inputOf(lazy: LazyTensor): Promise<TaskInput> {
  const { dtype, shape, location } = lazy;
  if (location !== undefined) return { source: { kind: "file", ...location }, dtype, shape };
  const tensor = await lazy.read();
  return { source: { kind: "bytes", bytes: tensor.bytes }, dtype: tensor.dtype, shape };
}

function storageOf(dtype: DType): QuantizeTask["scaleDType"] {
  if (dtype === "F32" || dtype === "BF16" || dtype === "F16") return dtype;
  throw new UnsupportedError("unsupported.dtype", `scales are stored as F32, BF16 or F16, not ${dtype}`, { dtype });
}

function zeroForm(parts: readonly SiteTensor[]): Pick<QuantizeTask, "zeros"> {
  const zeros = parts.find(({ role }) => role === "zeros");
  if (zeros === undefined) return {};
  return { zeros: zeros.dtype === "I32" ? "packed-rows" : zeros.dtype === "I8" ? "i8" : "f32" };
}

/** A fold as kernels take it. */
export function factorsOf({ rows, cols }: WeightFold): MatrixFactors {
  const times = (values: Float32Array): Factors => ({ values, divide: false });
  return { ...(rows && { rows: times(rows) }), ...(cols && { columns: times(cols) }) };
}

function swapAxes({ rows, cols }: WeightFold): WeightFold {
  return { ...(cols && { rows: cols }), ...(rows && { cols: rows }) };
}

/** Stored static scales of a site. */
function activationScales(
  { site, tensors }: { readonly site: ExportSite; readonly tensors: readonly SiteTensor[] },
  { inputScales, outputScales }: Decisions,
  scaleDType: DType,
): readonly (readonly [string, Tensor])[] {
  return tensors.flatMap(({ name, role }) => {
    const scale =
      role === "input-scale" || role === "input-global-scale"
        ? inputScales.get(site.module)
        : role === "output-scale"
          ? outputScales.get(site.module)
          : undefined;
    // NVFP4's divisor is F32 whatever the model is.
    const dtype = role === "input-global-scale" ? "F32" : scaleDType;
    return scale === undefined ? [] : [[name, fromFloat32(Float32Array.of(scale), [1], dtype)] as const];
  });
}

/** The sites that a fold may find by tensor name; exported for the verifier. */
export function siteByWeight(sites: readonly LinearSite[]): ReadonlyMap<string, LinearSite> {
  return new Map(sites.map((site) => [`${site.name}.weight`, site]));
}
