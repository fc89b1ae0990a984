/**
 * `QuantizationArgs` ↔ `QuantScheme`: one table read in both directions.
 * @module
 */
import { FormatError, UnsupportedError } from "../../../core/errors.ts";
import { schemeName, type Granularity, type NumberFormat, type QuantScheme } from "../../../core/scheme.ts";
import {
  blockFormatOf,
  blockScheme,
  MX_BLOCK,
  NVFP4,
  NVFP4_BLOCK,
  parseBlockFormat,
  type BlockFormat,
} from "../../../core/blocks/format.ts";
import type { QuantizationArgs } from "./config.ts";

/** What is quantized: weights have columns to group, activations have tokens. */
export type Role = "weights" | "input_activations" | "output_activations";

/** Most bits of an integer code: codes are stored as I8 or packed from it. */
export const MAX_INT_BITS = 8;

/**
 * The scheme that arguments describe.
 *
 * @param where - for messages, e.g. "config_groups.group_0".
 * @throws {FormatError} `format.config` for arguments that contradict themselves.
 * @throws {UnsupportedError} `unsupported.encoding` for number formats not read here, `unsupported.scheme` for ways of sharing scales.
 */
export function schemeOf(args: QuantizationArgs, role: Role, where: string): QuantScheme {
  const at = `quantization_config.${where}.${role}`;
  const block = blockFormatOfArgs(args);
  if (block !== undefined) return blockSchemeOf(block, args, role, at);
  const timing = parseTiming(args, role, at);
  return {
    format: parseNumber(args, at),
    granularity: parseGranularity(args, role, timing, at),
    timing,
    scale: "model",
    dialect: "compressed-tensors",
  };
}

/** The block format that arguments mean: 4-bit floats in groups of 16 or 32, 8-bit floats with E8M0 scales. */
function blockFormatOfArgs({
  num_bits: bits,
  type,
  strategy,
  group_size: size,
  scale_dtype: scaleDType,
}: QuantizationArgs): BlockFormat | undefined {
  if (type !== "float") return undefined;
  if (bits === 4 && strategy === "tensor_group") return size === NVFP4_BLOCK ? NVFP4 : undefined;
  if (strategy !== "group" || size !== MX_BLOCK) return undefined;
  if (bits === 4) return parseBlockFormat("mxfp4");
  return bits === 8 && scaleDType !== null && /uint8/.test(scaleDType) ? parseBlockFormat("mxfp8") : undefined;
}

/** The library's own rule for E8M0 scales is `even`; it matters where scales are computed at run time. */
function blockSchemeOf(
  block: BlockFormat,
  { dynamic, symmetric, block_structure: structure }: QuantizationArgs,
  role: Role,
  at: string,
): QuantScheme {
  if (!symmetric) throw new FormatError("format.config", `${at}: float codes have no zero point, but symmetric is false`);
  if (structure !== null) throw new FormatError("format.config", `${at}: block_structure is for strategy block`);
  if (role === "weights") {
    if (dynamic !== false) throw new FormatError("format.config", `${at}: weights cannot be dynamic`);
    return blockScheme(block);
  }
  const expected = block.family === "nvfp4" ? "local" : true;
  if (dynamic !== expected || role === "output_activations") {
    throw new UnsupportedError(
      "unsupported.scheme",
      `${at}: ${block.name} with dynamic ${String(dynamic)} is not read; inputs with dynamic ${String(expected)} are`,
      { dynamic },
    );
  }
  return block.family === "nvfp4" ? blockScheme(block, "dynamic") : blockScheme(block, "dynamic", "even");
}

function parseTiming({ dynamic, strategy }: QuantizationArgs, role: Role, at: string): QuantScheme["timing"] {
  if (dynamic === "local" || strategy === "tensor_group" || strategy === "attn_head") {
    throw new UnsupportedError("unsupported.encoding", `${at}: strategy ${strategy} with dynamic ${String(dynamic)} is not read`, {
      strategy,
      dynamic,
    });
  }
  if (role === "weights" && dynamic) throw new FormatError("format.config", `${at}: weights cannot be dynamic`);
  if (strategy === "token" && !dynamic) throw new FormatError("format.config", `${at}: strategy token requires dynamic true, found false`);
  if (dynamic && (strategy === "channel" || strategy === "block")) {
    throw new FormatError("format.config", `${at}: strategy ${strategy} cannot be dynamic`);
  }
  return dynamic ? "dynamic" : "static";
}

function parseNumber({ num_bits: bits, type, symmetric, scale_dtype: scaleDType }: QuantizationArgs, at: string): NumberFormat {
  if (type === "float") {
    if (bits !== 8 || (scaleDType !== null && /uint8|float8/.test(scaleDType))) {
      throw new UnsupportedError(
        "unsupported.encoding",
        `${at}: ${bits}-bit float with scales in ${scaleDType ?? "the model's dtype"} is not read; 8-bit float with float scales is`,
        { bits, scaleDType },
      );
    }
    if (!symmetric) throw new FormatError("format.config", `${at}: float codes have no zero point, but symmetric is false`);
    return { kind: "float", format: "e4m3" };
  }
  if (bits > MAX_INT_BITS) {
    throw new UnsupportedError("unsupported.encoding", `${at}: ${bits}-bit integers are not read; at most ${MAX_INT_BITS} bits are`, {
      bits,
    });
  }
  return { kind: "int", bits, symmetric };
}

function parseGranularity(args: QuantizationArgs, role: Role, timing: QuantScheme["timing"], at: string): Granularity {
  const { strategy, group_size: groupSize, block_structure: block } = args;
  if ((block !== null) !== (strategy === "block")) {
    throw new FormatError("format.config", `${at}: block_structure is for strategy block and required there; strategy is ${strategy}`);
  }
  const hasGroup = groupSize !== null && groupSize > 0;
  if (hasGroup !== (strategy === "group")) {
    throw new FormatError(
      "format.config",
      `${at}: group_size (${groupSize}) must be positive for strategy group and null otherwise; strategy is ${strategy}`,
    );
  }
  const granularity: Granularity =
    strategy === "group"
      ? { kind: "group", size: groupSize! }
      : strategy === "block"
        ? { kind: "block", rows: block![0], cols: block![1] }
        : { kind: strategy as "tensor" | "channel" | "token" };
  const isKnown =
    role === "weights"
      ? granularity.kind !== "token"
      : timing === "static"
        ? granularity.kind === "tensor"
        : granularity.kind === "tensor" || granularity.kind === "token" || granularity.kind === "group";
  if (!isKnown) throw new UnsupportedError("unsupported.scheme", `${at}: ${timing} ${strategy} scales are not read`, { strategy, timing });
  return granularity;
}

/**
 * Arguments that describe a scheme, in the spelling every release since 0.6 reads: `scale_dtype` and `zp_dtype`
 * are left out, because older releases refuse keys they do not know.
 *
 * @throws {UnsupportedError} `unsupported.scheme` for what has no spelling; `canHold` says so first.
 */
export function argsOf(scheme: QuantScheme): Record<string, unknown> {
  const { format, granularity, timing } = scheme;
  const block = blockFormatOf(scheme);
  if (block !== undefined && isWritten(block)) return blockArgs(block, timing);
  if (format.kind !== "int" && !(format.kind === "float" && format.format === "e4m3")) {
    throw new UnsupportedError("unsupported.scheme", `compressed-tensors cannot hold ${schemeName(scheme)}`, {
      scheme: schemeName(scheme),
    });
  }
  return {
    num_bits: format.kind === "int" ? format.bits : 8,
    type: format.kind,
    symmetric: format.kind === "int" ? format.symmetric : true,
    group_size: granularity.kind === "group" ? granularity.size : null,
    strategy: granularity.kind,
    block_structure: granularity.kind === "block" ? [granularity.rows, granularity.cols] : null,
    dynamic: timing === "dynamic",
    actorder: null,
    observer: timing === "dynamic" ? null : "minmax",
    observer_kwargs: {},
  };
}

/** Block formats that this format has a spelling for. */
export function isWritten({ name }: BlockFormat): boolean {
  return name === "nvfp4" || name === "mxfp4" || name === "mxfp8-e4m3";
}

/** As release 0.19 writes them, `scale_dtype` included: releases that do not know it do not know these formats either. */
function blockArgs({ family, element, block }: BlockFormat, timing: QuantScheme["timing"]): Record<string, unknown> {
  const isNvfp4 = family === "nvfp4";
  const isDynamic = timing === "dynamic";
  return {
    num_bits: element.kind === "float" && element.format === "e2m1" ? 4 : 8,
    type: "float",
    symmetric: true,
    group_size: block,
    strategy: isNvfp4 ? "tensor_group" : "group",
    block_structure: null,
    dynamic: isDynamic ? (isNvfp4 ? "local" : true) : false,
    actorder: null,
    scale_dtype: isNvfp4 ? "torch.float8_e4m3fn" : "torch.uint8",
    zp_dtype: null,
    observer: isDynamic ? (isNvfp4 ? "static_minmax" : null) : "memoryless_minmax",
    observer_kwargs: {},
  };
}
