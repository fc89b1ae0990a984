/**
 * The weights of a block, as engines take them.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { expandFloat32 } from "../kernels/expand/expand.ts";
import type { HostTensor } from "./engines/engine.ts";
import { hostTensorOf } from "./host-tensor.ts";
import type { Block } from "./model.ts";

/** Bytes of a block's weights in memory, all slots fed as f32. */
export function weightBytes(block: Block): number {
  let bytes = 0;
  for (const tensor of block.weights.values()) bytes += 4 * tensor.shape.reduce((product, size) => product * size, 1);
  return bytes;
}

/**
 * Read the tensors of every slot of `block.graph`; slots declared F32 are expanded from the stored dtype.
 *
 * @returns by slot, shapes as stored.
 * @throws {InputError} `input.value` naming a slot the block has no tensor for, `input.dtype` one whose dtype does not fit.
 */
export async function loadWeights(block: Block): Promise<Map<string, HostTensor>> {
  const slots = block.graph.weights.map(async (slot): Promise<[string, HostTensor]> => {
    const lazy = block.weights.get(slot.name);
    if (lazy === undefined) {
      throw new InputError("input.value", `block ${block.name}: no tensor for weight slot "${slot.name}"`, {
        block: block.name,
        slot: slot.name,
      });
    }
    const tensor = await lazy.read();
    if (slot.dtype === "F32") return [slot.name, { dtype: "F32", shape: tensor.shape, data: expandFloat32(tensor) }];
    if (tensor.dtype !== slot.dtype) {
      throw new InputError("input.dtype", `${lazy.name} is ${tensor.dtype}; slot "${slot.name}" of ${block.name} takes ${slot.dtype}`, {
        tensor: lazy.name,
        dtype: tensor.dtype,
        expected: slot.dtype,
      });
    }
    return [slot.name, hostTensorOf(tensor)];
  });
  return new Map(await Promise.all(slots));
}
