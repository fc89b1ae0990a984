/**
 * gemm-int8: products of rows of 8-bit codes, and of rows in block formats. A is [m, k], B is [n, k] (a Linear's weight), C is [m, n].
 *
 *   int8     C = Σ a · b, exact in i32
 *   blocks   integer elements of at most 8 bits: per block the exact i32 sum of products; then, blocks in ascending order,
 *            C = f32(C + f32(f32(sum) · f32(unit of a · unit of b)))
 *            other elements: values as f32, four f32 sums by column modulo 4, each f32(s + f32(a · b)), then (s0 + s2) + (s1 + s3)
 *
 * A unit is what code 1 stands for. A last block may be shorter. The SIMD twin and the C twin give the same bits.
 * OCP MX v1.0 §6.2 leaves the order of additions to the implementation; this is ours.
 * @module
 */
import { requireBlockFormat } from "../../core/blocks/format.ts";
import { dequantizeBlocks } from "../../core/blocks/quantize.ts";
import { InputError } from "../../core/errors.ts";
import type { QuantizedTensor } from "../../core/quantized.ts";
import { wasm } from "../generated/gemm-int8.wasm.ts";
import type { Region, Workspace } from "../load-wasm.ts";

/** Sizes of a product. */
export interface GemmShape {
  /** Rows of A. */
  readonly m: number;
  /** Rows of B. */
  readonly n: number;
  /** Columns of both. */
  readonly k: number;
}

/** Largest k for which sums of products of i8 codes cannot leave i32. */
const MAX_K = 131_071;

function checkGemm(op: string, { m, n, k }: GemmShape, a: number, b: number): void {
  const whole = [m, n, k].every((size) => Number.isInteger(size) && size >= 1);
  if (!whole || a !== m * k || b !== n * k) {
    throw new InputError("input.shape", `${op}: A (${a}) must be ${m} × ${k} and B (${b}) ${n} × ${k}`, { m, n, k, a, b });
  }
}

/**
 * @param a - i8 [m, k]. @param b - i8 [n, k].
 * @returns i32 [m, n].
 * @throws {InputError} `input.shape`, also for k above 131,071, where sums could leave i32.
 */
export function gemmInt8(a: Int8Array, b: Int8Array, shape: GemmShape): Int32Array {
  checkGemm("gemmInt8", shape, a.length, b.length);
  const { m, n, k } = shape;
  if (k > MAX_K) throw new InputError("input.shape", `gemmInt8: k (${k}) may be at most ${MAX_K}`, { k });
  const c = new Int32Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += a[i * k + l]! * b[j * k + l]!;
      c[i * n + j] = sum;
    }
  }
  return c;
}

/** Rows of i8 codes with the unit of each block. */
export interface ScaledRows {
  readonly codes: Int8Array;
  /** [rows, ceil(k / block)]. */
  readonly units: Float32Array;
}

/** The first rule of the module: integer elements. @param block - 1 to 65,536. @throws {InputError} `input.shape`. */
export function gemmScaled(a: ScaledRows, b: ScaledRows, shape: GemmShape, block: number): Float32Array {
  checkScaled(a, b, shape, block);
  const { m, n, k } = shape;
  const blocks = Math.ceil(k / block);
  const c = new Float32Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let total = 0;
      for (let t = 0; t < blocks; t++) {
        let sum = 0;
        for (let l = t * block, end = Math.min(l + block, k); l < end; l++) sum += a.codes[i * k + l]! * b.codes[j * k + l]!;
        const unit = Math.fround(a.units[i * blocks + t]! * b.units[j * blocks + t]!);
        total = Math.fround(total + Math.fround(Math.fround(sum) * unit));
      }
      c[i * n + j] = total;
    }
  }
  return c;
}

function checkScaled(a: ScaledRows, b: ScaledRows, shape: GemmShape, block: number): void {
  checkGemm("gemmScaled", shape, a.codes.length, b.codes.length);
  const blocks = Math.ceil(shape.k / block);
  if (
    !Number.isInteger(block) ||
    block < 1 ||
    block > 65536 ||
    a.units.length !== shape.m * blocks ||
    b.units.length !== shape.n * blocks
  ) {
    throw new InputError(
      "input.shape",
      `gemmScaled: blocks of ${block} need ${shape.m * blocks} and ${shape.n * blocks} units, got ${a.units.length} and ${b.units.length}`,
      { ...shape, block },
    );
  }
}

/** The second rule of the module: f32 rows. @throws {InputError} `input.shape`. */
export function gemmFloat(a: Float32Array, b: Float32Array, shape: GemmShape): Float32Array {
  checkGemm("gemmFloat", shape, a.length, b.length);
  const { m, n, k } = shape;
  const c = new Float32Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      const s = new Float32Array(4);
      for (let l = 0; l < k; l++) s[l % 4] = s[l % 4]! + Math.fround(a[i * k + l]! * b[j * k + l]!);
      c[i * n + j] = Math.fround(s[0]! + s[2]!) + Math.fround(s[1]! + s[3]!);
    }
  }
  return c;
}

/**
 * A · Bᵀ of two matrices in block formats; integers of at most 8 bits with equal blocks by the first rule, all else by the second.
 *
 * @returns f32 [rows of a, rows of b].
 * @throws {InputError} `input.shape`; {UnsupportedError} `unsupported.scheme` when one is no block format.
 */
export function gemmBlocks(a: QuantizedTensor, b: QuantizedTensor): Float32Array {
  const [formatA, formatB] = [requireBlockFormat(a.scheme), requireBlockFormat(b.scheme)];
  const shape = { m: a.shape[0]!, n: b.shape[0]!, k: a.shape[1]! };
  if (b.shape[1] !== shape.k) throw new InputError("input.shape", `gemmBlocks: A has ${shape.k} columns, B ${b.shape[1]}`, { ...shape });
  if (a.codes.kind === "i8" && b.codes.kind === "i8" && formatA.block === formatB.block) {
    return gemmScaled({ codes: a.codes.data, units: a.scales }, { codes: b.codes.data, units: b.scales }, shape, formatA.block);
  }
  return gemmFloat(dequantizeBlocks(a), dequantizeBlocks(b), shape);
}

type Pack = (x: number, rows: number, cols: number, block: number, out: number) => void;
interface GemmKernel {
  readonly packA: Pack;
  readonly packB: Pack;
  readonly packUnits: (x: number, rows: number, blocks: number, tile: number, out: number) => void;
  readonly gemm: (a: number, b: number, m: number, n: number, cols: number, c: number) => void;
  readonly gemmScaled: (a: number, b: number, m: number, n: number, cols: number, block: number, c: number, ua: number, ub: number) => void;
  readonly trim: (c: number, rows: number, from: number, to: number, out: number) => void;
  readonly gemmFloat: (a: number, b: number, m: number, n: number, cols: number, c: number) => void;
}

const TILE = { a: 5, b: 8 } as const;
/** What plain products are cut into for the cache; even, so that no pair is split. */
const PLAIN_BLOCK = 1024;

/** Rows of one side, packed once and used in many products. */
export interface PackedRows {
  readonly side: "a" | "b";
  readonly rows: number;
  readonly cols: number;
  readonly block: number;
  readonly codes: Region;
  readonly units: Region | undefined;
}

/** Packs rows for {@link gemmAt}. @param codes - byte offset of i8 [rows, cols]. @param scaled - units [rows, blocks] (byte offset) and the block. */
export function packRowsFor(
  workspace: Workspace,
  side: "a" | "b",
  codes: number,
  { rows, cols }: { readonly rows: number; readonly cols: number },
  scaled?: { readonly units: number; readonly block: number },
): PackedRows {
  const kernel = workspace.kernel<GemmKernel>(wasm);
  const block = scaled?.block ?? PLAIN_BLOCK;
  const blocks = Math.ceil(cols / block);
  const panels = Math.ceil(rows / TILE[side]);
  const pairs = (blocks - 1) * Math.ceil(block / 2) + Math.ceil((cols - (blocks - 1) * block) / 2);
  const packed = workspace.take(panels * pairs * TILE[side] * 4);
  (side === "a" ? kernel.packA : kernel.packB)(codes, rows, cols, block, packed.at);
  if (scaled === undefined) return { side, rows, cols, block, codes: packed, units: undefined };
  const units = workspace.take(panels * blocks * TILE[side] * 4);
  kernel.packUnits(scaled.units, rows, blocks, TILE[side], units.at);
  return { side, rows, cols, block, codes: packed, units };
}

/** Room that {@link gemmAt} needs for sums. */
export function sumBytes(m: number, n: number): number {
  return Math.ceil(m / TILE.a) * TILE.a * Math.ceil(n / TILE.b) * TILE.b * 4;
}

/**
 * SIMD twin of {@link gemmInt8} and, when both sides have units, of {@link gemmScaled}.
 *
 * @param sums - room of {@link sumBytes}. @param out - byte offset; receives i32 or f32 [m, n].
 * @throws {InputError} `input.shape` when the sides do not fit each other.
 */
export function gemmAt(workspace: Workspace, a: PackedRows, b: PackedRows, sums: Region, out: number): void {
  const kernel = workspace.kernel<GemmKernel>(wasm);
  const fits =
    a.side === "a" && b.side === "b" && a.cols === b.cols && a.block === b.block && (a.units === undefined) === (b.units === undefined);
  if (!fits || sums.byteLength < sumBytes(a.rows, b.rows)) {
    throw new InputError(
      "input.shape",
      `gemmAt: sides of ${a.cols} and ${b.cols} columns in blocks of ${a.block} and ${b.block} do not fit`,
      {
        a: a.cols,
        b: b.cols,
      },
    );
  }
  workspace.bytes(sums).fill(0);
  if (a.units === undefined || b.units === undefined) kernel.gemm(a.codes.at, b.codes.at, a.rows, b.rows, a.cols, sums.at);
  else kernel.gemmScaled(a.codes.at, b.codes.at, a.rows, b.rows, a.cols, a.block, sums.at, a.units.at, b.units.at);
  kernel.trim(sums.at, a.rows, Math.ceil(b.rows / TILE.b) * TILE.b * 4, b.rows * 4, out);
}

/** SIMD twin of {@link gemmFloat} over byte offsets of f32 rows. */
export function gemmFloatAt(workspace: Workspace, a: number, b: number, { m, n, k }: GemmShape, out: number): void {
  workspace.kernel<GemmKernel>(wasm).gemmFloat(a, b, m, n, k, out);
}
