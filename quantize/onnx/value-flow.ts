/**
 * Where the values of a model go: readers by value, names told apart by the body that defines them.
 * @module
 */
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { bodiesOf, type BodyPath, type PlacedBody } from "../../model/onnx/bodies.ts";

/** A value: the body that defines it and its name there. */
export type ValueKey = string;

/** A node that reads a value, or a graph that gives it as its result. */
export interface Reader {
  readonly node?: OnnxNode;
  readonly slot: number;
  /** Of the node. */
  readonly outputs: readonly ValueKey[];
}

export interface Flow {
  readonly bodies: readonly PlacedBody[];
  readonly readers: ReadonlyMap<ValueKey, readonly Reader[]>;
  readonly producers: ReadonlyMap<ValueKey, OnnxNode>;
}

export function keyOf(path: BodyPath, name: string): ValueKey {
  return `${path}\0${name}`;
}

export function nameOf(key: ValueKey): string {
  return key.slice(key.indexOf("\0") + 1);
}

/** Follow every value of a model. */
export function flowOf(model: OnnxModel): Flow {
  const bodies = bodiesOf(model);
  const defined = new Map<PlacedBody, ReadonlySet<string>>();
  const readers = new Map<ValueKey, Reader[]>();
  const producers = new Map<ValueKey, OnnxNode>();
  for (const body of bodies) {
    const inputs = body.graph?.inputs.map(({ name }) => name) ?? body.function?.inputs ?? [];
    defined.set(body, new Set([...body.initializers.keys(), ...inputs, ...body.nodes.flatMap(({ outputs }) => outputs)]));
    const resolve = (name: string): ValueKey => {
      let at: PlacedBody | undefined = body;
      while (at !== undefined && defined.get(at)?.has(name) !== true) at = at.outer;
      return keyOf((at ?? body).path, name);
    };
    const add = (name: string, reader: Reader): void => {
      const key = resolve(name);
      const known = readers.get(key);
      if (known === undefined) readers.set(key, [reader]);
      else known.push(reader);
    };
    for (const node of body.nodes) {
      const outputs = node.outputs.flatMap((name) => (name === "" ? [] : [keyOf(body.path, name)]));
      for (const key of outputs) producers.set(key, node);
      for (const [slot, name] of node.inputs.entries()) if (name !== "") add(name, { node, slot, outputs });
    }
    for (const { name } of body.graph?.outputs ?? []) add(name, { slot: 0, outputs: [] });
  }
  return { bodies, readers, producers };
}
