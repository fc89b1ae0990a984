/**
 * expand: stored floats to f32, exact.
 *
 *   out[i] = value(x[i])      bf16, f16, e4m3, e5m2
 *
 * `core/tensor.ts` `toFloat32` is the definition; a NaN of a format other than
 * bf16 comes out as the quiet NaN 0x7fc00000, and bf16 keeps its bits.
 * @module
 */
import { elementCount, type DType } from "../../core/dtype.ts";
import { toFloat32, type Tensor } from "../../core/tensor.ts";
import { wasm } from "../generated/expand.wasm.ts";
import { threadWorkspace, type Workspace } from "../load-wasm.ts";

interface ExpandKernel {
  readonly expandBf16: (x: number, out: number, count: number) => void;
  readonly expandF16: (x: number, out: number, count: number) => void;
  readonly expandE4m3: (x: number, out: number, count: number) => void;
  readonly expandE5m2: (x: number, out: number, count: number) => void;
}

const EXPORTS = new Map<DType, { readonly name: keyof ExpandKernel; readonly bytes: 1 | 2 }>([
  ["BF16", { name: "expandBf16", bytes: 2 }],
  ["F16", { name: "expandF16", bytes: 2 }],
  ["F8_E4M3", { name: "expandE4m3", bytes: 1 }],
  ["F8_E5M2", { name: "expandE5m2", bytes: 1 }],
]);

/** Whether `dtype` has a WASM twin. */
export function canExpand(dtype: DType): boolean {
  return EXPORTS.has(dtype);
}

/**
 * Expands inside a workspace.
 *
 * @param x - byte offset of `count` stored values of a dtype for which `canExpand` holds.
 * @param out - byte offset of room for `count` f32 rounded up to 8.
 */
export function expandAt(workspace: Workspace, dtype: DType, x: number, out: number, count: number): void {
  workspace.kernel<ExpandKernel>(wasm)[EXPORTS.get(dtype)!.name](x, out, count);
}

/** Values per trip through the workspace: 128 KiB of f32 stay in the second-level cache. */
const TILE = 32768;

/**
 * Values as f32: the fast twin of `toFloat32`, synchronous, allocating the result and nothing that grows with it.
 *
 * @param tensor - any dtype `toFloat32` takes.
 * @returns shape-ordered values; a view over the bytes when the tensor is aligned F32, else a fresh array.
 * @throws {UnsupportedError} `unsupported.dtype` for packed and complex types.
 */
export function expandFloat32(tensor: Tensor): Float32Array {
  const entry = EXPORTS.get(tensor.dtype);
  if (entry === undefined) return toFloat32(tensor);
  const count = elementCount(tensor.shape);
  const result = new Float32Array(count);
  const workspace = threadWorkspace();
  const mark = workspace.mark();
  const x = workspace.take(TILE * entry.bytes);
  const out = workspace.take(TILE * 4);
  const [source, values] = [workspace.bytes(x), workspace.f32(out)];
  for (let done = 0; done < count; done += TILE) {
    const size = Math.min(TILE, count - done);
    source.set(tensor.bytes.subarray(done * entry.bytes, (done + size) * entry.bytes));
    expandAt(workspace, tensor.dtype, x.at, out.at, size);
    result.set(size === TILE ? values : values.subarray(0, size), done);
  }
  workspace.release(mark);
  return result;
}
