/**
 * RTN: round to nearest. Every weight is divided by its run's scale and
 * rounded; nothing is traded between weights. The baseline every other method must beat.
 *
 * Source: Jacob et al. 2018, arXiv:1712.05877 §2.1 eq. 1; the way a range becomes a scale is the dialect's (`core/dialect.ts`).
 * @module
 */
import { blockFormatOf } from "../../../core/blocks/format.ts";
import { quantizeBlocks } from "../../../core/blocks/quantize.ts";
import { floatScale, intRule, storageShift, type IntRule } from "../../../core/dialect.ts";
import type { DType } from "../../../core/dtype.ts";
import { NumericError, UnsupportedError } from "../../../core/errors.ts";
import { roundBf16 } from "../../../core/float.ts";
import { scaleShape, type QuantScheme } from "../../../core/scheme.ts";
import type { QuantizedTensor } from "../../../core/quantized.ts";
import type { Matrix } from "../../../core/tensor.ts";
import { SUMS_BYTES } from "../../../kernels/error-sums.ts";
import { threadWorkspace, type Region, type Workspace } from "../../../kernels/load-wasm.ts";
import { minMaxAt } from "../../../kernels/min-max/min-max.ts";
import { rtnE4m3At } from "../../../kernels/rtn-e4m3/rtn-e4m3.ts";
import { rtnIntAt } from "../../../kernels/rtn-int/rtn-int.ts";
import { INFINITY_BITS, runCount, type RunShape } from "../../../kernels/runs.ts";
import { scalesOf } from "../../../kernels/scales/scales.ts";
import type { Method } from "../../method.ts";
import type { Arithmetic } from "../../settings.ts";

/**
 * Codes, scales and zero points of a matrix, by the SIMD kernels: the same bytes as the streaming task writes.
 *
 * No weight inside its run's range moves by more than scale / 2 (f32 arithmetic, up to the rounding of the scale itself).
 *
 * @param weight - shape [rows, cols], finite.
 * @param stored - dtype the scales will be stored in.
 * @throws {NumericError} `numeric.not-finite` for NaN and infinity.
 * @throws {UnsupportedError} `unsupported.scheme` for a format or granularity RTN does not define.
 */
export function quantizeRtn(weight: Matrix, scheme: QuantScheme, arithmetic: Arithmetic, stored: DType): QuantizedTensor {
  const { rows, cols, data } = weight;
  const block = blockFormatOf(scheme);
  if (block !== undefined) {
    const values = arithmetic === "bf16" ? data.map(roundBf16) : data;
    return quantizeBlocks(values, rows, cols, block, { arithmetic, ...(scheme.scaleRule !== undefined && { rule: scheme.scaleRule }) });
  }
  const shape = runShape(scheme, rows, cols);
  const workspace = threadWorkspace();
  const mark = workspace.mark();
  try {
    // A bf16 model holds bf16 weights, so that is what its arithmetic begins with.
    const x = place(workspace, arithmetic === "bf16" ? data.map(roundBf16) : data);
    const { low, high } = ranges(workspace, x, shape);
    const runs = runCount(shape);
    const scales = new Float32Array(runs);
    const out = workspace.take(rows * cols);
    const sums = workspace.take(SUMS_BYTES);
    workspace.bytes(sums).fill(0);
    const base = { shape: [rows, cols], channelAxis: 0, scheme, scales };
    const { format } = scheme;
    if (format.kind === "float" && format.format === "e4m3") {
      for (let run = 0; run < runs; run++) {
        scales[run] = floatScale(format.format, Math.max(Math.abs(low[run]!), Math.abs(high[run]!)), { arithmetic, storage: stored });
      }
      rtnE4m3At(workspace, "f32", shape, arithmetic, { x: x.at, scales: place(workspace, scales).at, out: out.at, sums: sums.at });
      return { ...base, codes: { kind: "u8", data: workspace.bytes(out).slice() } };
    }
    if (format.kind !== "int") throw new UnsupportedError("unsupported.scheme", `rtn has no rule for ${format.kind} weights`, { scheme });
    const rule = intRule(scheme.dialect, format.bits, format.symmetric);
    const zeros = format.symmetric ? undefined : new Float32Array(runs);
    scalesOf(rule, low, high, { arithmetic, storage: stored }, scales, zeros);
    const zerosAt = zeros === undefined ? 0 : place(workspace, zeros).at;
    const places = { x: x.at, scales: place(workspace, scales).at, zeros: zerosAt, out: out.at, sums: sums.at };
    rtnIntAt(workspace, "f32", shape, { rule, bits: format.bits, arithmetic }, places);
    const codes = new Int8Array(workspace.bytes(out).slice().buffer);
    return { ...base, codes: { kind: "i8", data: codes }, ...(zeros && { zeros: storedZeros(zeros, rule, format.bits) }) };
  } finally {
    workspace.release(mark);
  }
}

/** A tensor with one scale is one run over all its values. */
function runShape(scheme: QuantScheme, rows: number, cols: number): RunShape {
  const { granularity } = scheme;
  if (granularity.kind === "tensor") return { rows: 1, cols: rows * cols, group: Math.max(1, rows * cols) };
  if (granularity.kind === "block" || granularity.kind === "token") {
    throw new UnsupportedError("unsupported.scheme", `rtn rounds weights by tensor, channel or group, not by ${granularity.kind}`, {
      scheme,
    });
  }
  const group = granularity.kind === "group" ? granularity.size : cols;
  if (runCount({ rows, cols, group }) !== scaleShape(granularity, rows, cols).reduce((a, b) => a * b, 1)) {
    throw new UnsupportedError("unsupported.scheme", `groups of ${group} do not fit ${cols} columns`, { scheme, cols });
  }
  return { rows, cols, group };
}

function place(workspace: Workspace, values: Float32Array): Region {
  const region = workspace.take(values.byteLength);
  workspace.f32(region).set(values);
  return region;
}

function ranges(workspace: Workspace, x: Region, shape: RunShape): { low: Float32Array; high: Float32Array } {
  const bytes = 4 * runCount(shape);
  const [low, high] = [workspace.take(bytes), workspace.take(bytes)];
  if (minMaxAt(workspace, "f32", x.at, shape, low.at, high.at) >= INFINITY_BITS) {
    throw new NumericError("numeric.not-finite", "a weight holds NaN or infinity; it cannot be quantized");
  }
  return { low: workspace.f32(low).slice(), high: workspace.f32(high).slice() };
}

/** Zero points in two's complement, as codes are stored. */
function storedZeros(zeros: Float32Array, rule: IntRule, bits: number): Float32Array {
  const shift = storageShift(rule, bits);
  return zeros.map((zero) => zero - shift);
}

export const rtn: Method = {
  name: "rtn",
  summary: "rounds every weight to the nearest code; needs no data",
  source: "arXiv:1712.05877 §2.1",
  defaultBits: "w8a8",
  needs: () => [],
  quantize: quantizeRtn,
  streams: "quantize",
};
