/**
 * Experts stored as one 3-D tensor a layer (`experts.gate_up_proj` [experts, 2 × size, hidden] and
 * `experts.down_proj` [experts, hidden, size]) seen as one matrix an expert, under the names of
 * published checkpoints. The cuts are runs of the same bytes, so they stay lazy and located.
 * @module
 */
import { DTYPES } from "../../core/dtype.ts";
import { createTensor, type LazyTensor } from "../../core/tensor.ts";
import { readRange } from "../sources/detached.ts";
import { expertNames, type ExpertMixture } from "./moe.ts";

const FUSED = /^(.*\.)(?:mlp|block_sparse_moe)\.experts\.(gate_up_proj|down_proj)(?:\.weight)?$/;
/** More experts than any checkpoint has; beyond it the tensor is left alone and reported as unused. */
const MAX_EXPERTS = 65_536;

/** @returns the same map when nothing is fused. */
export function unfuseExperts(tensors: ReadonlyMap<string, LazyTensor>, names: ExpertMixture["names"]): ReadonlyMap<string, LazyTensor> {
  const out = new Map<string, LazyTensor>();
  const { router, expert } = expertNames(names);
  for (const [name, tensor] of tensors) {
    const match = FUSED.exec(name);
    const [experts, rows, cols] = tensor.shape;
    if (match === null || tensor.shape.length !== 3 || experts! > MAX_EXPERTS || DTYPES[tensor.dtype].bits % 8 !== 0) {
      const renamed = names === "mixtral" ? name.replace(/\.mlp\.gate\.weight$/, `.${router}.weight`) : name;
      out.set(renamed, renamed === name ? tensor : { ...tensor, name: renamed });
      continue;
    }
    const prefix = match[1]!;
    const parts = match[2] === "down_proj" ? (["down"] as const) : (["gate", "up"] as const);
    const height = rows! / parts.length;
    if (!Number.isInteger(height)) {
      out.set(name, tensor);
      continue;
    }
    for (let index = 0; index < experts!; index++) {
      for (const [part, which] of parts.entries()) {
        const cut = `${prefix}${expert(index)[which]}.weight`;
        out.set(cut, rowsOf(tensor, cut, index * rows! + part * height, height, cols!));
      }
    }
  }
  return out;
}

/** Rows [first, first + rows) of a tensor read as a matrix of `cols` columns. */
function rowsOf(tensor: LazyTensor, name: string, first: number, rows: number, cols: number): LazyTensor {
  const { dtype, location } = tensor;
  const width = (cols * DTYPES[dtype].bits) / 8;
  const byteLength = rows * width;
  return {
    name,
    dtype,
    shape: [rows, cols],
    byteLength,
    read: async () => {
      const bytes =
        location === undefined
          ? (await tensor.read()).bytes.slice(first * width, first * width + byteLength)
          : await readRange(location.path, location.offset + first * width, byteLength);
      return createTensor(dtype, [rows, cols], bytes);
    },
    ...(location === undefined ? {} : { location: { path: location.path, offset: location.offset + first * width } }),
  };
}
