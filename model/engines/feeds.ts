/**
 * Checks what is fed to a compiled graph, before a runtime sees it.
 * @module
 */
import { elementCount, type DType } from "../../core/dtype.ts";
import { InputError } from "../../core/errors.ts";
import type { Graph, ValueType } from "../graph/graph.ts";
import type { HostTensor, Values } from "./engine.ts";

type HostData = HostTensor["data"];

/** The typed array that holds each dtype; the 16-bit floats travel as their bits. */
export const HOST_ARRAYS: ReadonlyMap<DType, new (buffer: ArrayBuffer) => HostData> = new Map<DType, new (buffer: ArrayBuffer) => HostData>(
  [
    ["F32", Float32Array],
    ["F64", Float64Array],
    ["F16", Uint16Array],
    ["I64", BigInt64Array],
    ["I32", Int32Array],
    ["I8", Int8Array],
    ["U16", Uint16Array],
    ["U8", Uint8Array],
    ["BOOL", Uint8Array],
  ],
);

/**
 * Every input and weight slot of `graph`, checked: there, of the declared dtype, of a shape that fits. A symbolic
 * dimension has one size for the whole run.
 *
 * @throws {InputError} `input.value` for a missing feed, `input.dtype`, `input.shape`; each names the graph and the feed.
 */
export function checkFeeds(graph: Graph, feeds: Values): [string, HostTensor][] {
  const sizes = new Map<string, { size: number; from: string }>();
  return [...graph.inputs, ...graph.weights].map((slot) => {
    const tensor = Object.hasOwn(feeds, slot.name) ? feeds[slot.name] : undefined;
    if (tensor === undefined) {
      throw new InputError("input.value", `graph ${graph.name}: nothing is fed to ${describe(slot)}`, {
        graph: graph.name,
        name: slot.name,
      });
    }
    checkDType(graph, slot, tensor);
    checkShape(graph, slot, tensor, sizes);
    return [slot.name, tensor];
  });
}

function describe(slot: ValueType): string {
  return `"${slot.name}" (${slot.dtype} [${slot.shape.join(", ")}])`;
}

function checkDType(graph: Graph, slot: ValueType, tensor: HostTensor): void {
  const array = HOST_ARRAYS.get(slot.dtype);
  if (tensor.dtype === slot.dtype && array !== undefined && tensor.data instanceof array) return;
  throw new InputError(
    "input.dtype",
    `graph ${graph.name}: ${describe(slot)} was fed ${tensor.dtype} in a ${tensor.data.constructor.name}` +
      (array === undefined ? `; engines take ${[...HOST_ARRAYS.keys()].join(", ")}` : `; it takes ${slot.dtype} in a ${array.name}`),
    { graph: graph.name, name: slot.name, expected: slot.dtype, actual: tensor.dtype },
  );
}

function checkShape(graph: Graph, slot: ValueType, tensor: HostTensor, sizes: Map<string, { size: number; from: string }>): void {
  const fail = (why: string): never => {
    throw new InputError("input.shape", `graph ${graph.name}: ${describe(slot)} was fed [${tensor.shape.join(", ")}]: ${why}`, {
      graph: graph.name,
      name: slot.name,
      expected: slot.shape,
      actual: tensor.shape,
    });
  };
  if (tensor.shape.length !== slot.shape.length) fail(`${tensor.shape.length} dimensions where ${slot.shape.length} are declared`);
  for (const [axis, declared] of slot.shape.entries()) {
    const size = tensor.shape[axis]!;
    if (typeof declared === "number") {
      if (size !== declared) fail(`dimension ${axis} is ${size}, not ${declared}`);
      continue;
    }
    const known = sizes.get(declared);
    if (known === undefined) sizes.set(declared, { size, from: slot.name });
    else if (known.size !== size) fail(`"${declared}" is ${size} here and ${known.size} in "${known.from}"`);
  }
  const count = elementCount(tensor.shape);
  if (tensor.data.length !== count) fail(`its shape takes ${count} elements, its data has ${tensor.data.length}`);
}
