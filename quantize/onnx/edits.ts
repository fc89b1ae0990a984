/**
 * Edits of an ONNX model: collected by place, applied at once; what they leave unread goes.
 * @module
 */
import type { OnnxAttribute, OnnxGraph, OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import type { OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { bodiesOf, mapBodies, type BodyPath } from "../../model/onnx/bodies.ts";
import type { OnnxConstant } from "../../model/onnx/site.ts";

/** Domain of onnxruntime's own operators. */
export const MICROSOFT = "com.microsoft";

/** What happens at one node. */
interface NodeEdit {
  before: OnnxNode[];
  after: OnnxNode[];
  replacement?: readonly OnnxNode[];
  inputs: Map<number, string>;
  outputs: Map<number, string>;
}

/** Initializers as inputs end with IR 3. */
const IR_OF_FREE_INITIALIZERS = 4;

/** Collects changes to a model that stays as it is. */
export class OnnxEdits {
  readonly model: OnnxModel;
  readonly #names: Set<string>;
  readonly #nodes = new Map<BodyPath, Map<number, NodeEdit>>();
  readonly #initializers = new Map<BodyPath, Map<string, OnnxTensor>>();
  readonly #abandoned = new Set<string>();
  readonly #shared = new Map<string, unknown>();
  readonly #renames = new Map<BodyPath, Map<string, string>>();

  constructor(model: OnnxModel) {
    this.model = model;
    this.#names = namesOf(model);
  }

  /** A name that nothing in the model has: `base`, or `base` with a number. */
  fresh(base: string): string {
    let name = base;
    for (let i = 2; this.#names.has(name); i++) name = `${base}_${i}`;
    this.#names.add(name);
    return name;
  }

  /** The value made by the first call with this key. */
  share<T>(key: readonly unknown[], make: () => T): T {
    const text = JSON.stringify(key);
    if (!this.#shared.has(text)) this.#shared.set(text, make());
    return this.#shared.get(text) as T;
  }

  /** Add a constant to a body. @returns its name, `base` made unique. */
  constant(path: BodyPath, base: string, tensor: OnnxTensor): string {
    const name = this.fresh(base);
    const own = this.#initializers.get(path) ?? new Map<string, OnnxTensor>();
    this.#initializers.set(path, own.set(name, tensor));
    return name;
  }

  /** Put nodes in the place of one. */
  replace(path: BodyPath, index: number, nodes: readonly OnnxNode[]): void {
    this.#at(path, index).replacement = nodes;
  }

  /** Put nodes in front of one, behind those put there before. */
  before(path: BodyPath, index: number, nodes: readonly OnnxNode[]): void {
    this.#at(path, index).before.push(...nodes);
  }

  /** Put nodes behind one. */
  after(path: BodyPath, index: number, nodes: readonly OnnxNode[]): void {
    this.#at(path, index).after.push(...nodes);
  }

  /** Let a node read another value. */
  read(path: BodyPath, index: number, slot: number, value: string): void {
    this.#at(path, index).inputs.set(slot, value);
  }

  /** Let a node write another value. */
  write(path: BodyPath, index: number, slot: number, value: string): void {
    this.#at(path, index).outputs.set(slot, value);
  }

  /** Let every reader of a value in one body (and the graphs inside it) read another one, but nodes that the edits add. */
  rename(path: BodyPath, from: string, to: string): void {
    const own = this.#renames.get(path) ?? new Map<string, string>();
    this.#renames.set(path, own.set(from, to));
  }

  /** A constant has lost a reader: it and the nodes on its way go when nobody else reads them. */
  abandon({ source, value, chain }: OnnxConstant): void {
    const passed = chain.flatMap(({ inputs, outputs }) => [...inputs, ...outputs]);
    this.abandonNames([source.name, value, ...passed.filter((name) => name !== "")]);
  }

  /** As {@link abandon}, of values by name. */
  abandonNames(names: Iterable<string>): void {
    for (const name of names) this.#abandoned.add(name);
  }

  /** The model with all changes. */
  apply(): OnnxModel {
    const outputs = new Map(bodiesOf(this.model).map((body) => [body.path, outputsOf(body)]));
    const domains = new Set<string>();
    const removed = new Set<string>();
    const edited = mapBodies(this.model, (body, path) => {
      const renamed = renameReads(body.nodes, this.#renames.get(path));
      const nodes = renamed.flatMap((node, i) => this.#edit(path, i, node));
      if (nodes.some(({ domain }) => domain === MICROSOFT)) domains.add(path);
      const added = this.#initializers.get(path);
      const initializers = added === undefined ? body.initializers : new Map([...body.initializers, ...added]);
      return this.#prune(nodes, initializers, outputs.get(path) ?? [], removed, body.nodes);
    });
    return this.#finish(edited, domains, removed);
  }

  #finish(edited: OnnxModel, domains: ReadonlySet<string>, removed: ReadonlySet<string>): OnnxModel {
    const { graph } = edited;
    const isLost = ({ name }: { readonly name: string }): boolean => removed.has(name) && !graph.initializers.has(name);
    const withDomain = (opsets: ReadonlyMap<string, number>, uses: boolean): ReadonlyMap<string, number> =>
      uses && !opsets.has(MICROSOFT) ? new Map([...opsets, [MICROSOFT, 1]]) : opsets;
    const hasNew = this.#initializers.size > 0;
    return {
      ...edited,
      irVersion: hasNew ? Math.max(edited.irVersion, IR_OF_FREE_INITIALIZERS) : edited.irVersion,
      opsets: withDomain(edited.opsets, domains.size > 0),
      graph: {
        ...graph,
        inputs: graph.inputs.filter((input) => !isLost(input)),
        ...(graph.valueInfos && { valueInfos: graph.valueInfos.filter((info) => !isLost(info)) }),
      },
      functions: edited.functions.map((item, i) => {
        const uses = [...domains].some((path) => path === `function ${i}` || path.startsWith(`function ${i}/`));
        return uses ? { ...item, opsets: withDomain(item.opsets, true) } : item;
      }),
    };
  }

  #edit(path: BodyPath, index: number, node: OnnxNode): readonly OnnxNode[] {
    const edit = this.#nodes.get(path)?.get(index);
    if (edit === undefined) return [node];
    const own =
      edit.inputs.size === 0 && edit.outputs.size === 0
        ? node
        : {
            ...node,
            inputs: readInstead(node.inputs, edit.inputs),
            outputs: node.outputs.map((name, slot) => edit.outputs.get(slot) ?? name),
          };
    return [...edit.before, ...(edit.replacement ?? [own]), ...edit.after];
  }

  #prune(
    nodes: readonly OnnxNode[],
    initializers: ReadonlyMap<string, OnnxTensor>,
    outputs: readonly string[],
    removed: Set<string>,
    original: readonly OnnxNode[],
  ): { readonly nodes: readonly OnnxNode[]; readonly initializers: ReadonlyMap<string, OnnxTensor> } {
    let kept = nodes;
    for (;;) {
      const read = new Set([...readsOf(kept), ...outputs]);
      const left = kept.filter(
        (node) => !node.outputs.some((name) => this.#abandoned.has(name)) || node.outputs.some((name) => read.has(name)),
      );
      if (left.length === kept.length) {
        const stay = [...initializers].filter(([name]) => read.has(name) || !this.#abandoned.has(name));
        for (const [name] of initializers) if (!stay.some(([other]) => other === name)) removed.add(name);
        const isSame = kept.length === original.length && kept.every((node, i) => node === original[i]);
        return { nodes: isSame ? original : kept, initializers: stay.length === initializers.size ? initializers : new Map(stay) };
      }
      for (const node of kept) if (!left.includes(node)) for (const name of node.outputs) removed.add(name);
      kept = left;
    }
  }

  #at(path: BodyPath, index: number): NodeEdit {
    const body = this.#nodes.get(path) ?? new Map<number, NodeEdit>();
    this.#nodes.set(path, body);
    const edit = body.get(index) ?? { before: [], after: [], inputs: new Map<number, string>(), outputs: new Map<number, string>() };
    body.set(index, edit);
    return edit;
  }
}

/** Inputs with some replaced; places beyond the last are filled with inputs left out. */
function readInstead(inputs: readonly string[], others: ReadonlyMap<number, string>): readonly string[] {
  const length = Math.max(inputs.length, ...[...others.keys()].map((slot) => slot + 1));
  return Array.from({ length }, (_, slot) => others.get(slot) ?? inputs[slot] ?? "");
}

function outputsOf(body: ReturnType<typeof bodiesOf>[number]): readonly string[] {
  return body.graph?.outputs.map(({ name }) => name) ?? body.function?.outputs ?? [];
}

/** Graphs in the attributes of a node. */
function* graphsOf(node: OnnxNode): Generator<OnnxGraph> {
  for (const attribute of node.attributes.values()) {
    if (attribute.kind === "graph") yield attribute.value;
    if (attribute.kind === "graphs") yield* attribute.value;
  }
}

/** Names that nodes read, those of inner graphs included. */
export function readsOf(nodes: readonly OnnxNode[]): Set<string> {
  const read = new Set<string>();
  const visit = (list: readonly OnnxNode[]): void => {
    for (const node of list) {
      for (const name of node.inputs) read.add(name);
      for (const graph of graphsOf(node)) {
        for (const { name } of graph.outputs) read.add(name);
        visit(graph.nodes);
      }
    }
  };
  visit(nodes);
  return read;
}

function namesOf(model: OnnxModel): Set<string> {
  const names = new Set<string>();
  for (const body of bodiesOf(model)) {
    for (const name of body.initializers.keys()) names.add(name);
    for (const { name } of body.graph?.inputs ?? []) names.add(name);
    for (const name of body.function?.inputs ?? []) names.add(name);
    for (const node of body.nodes) for (const name of [node.name, ...node.inputs, ...node.outputs]) names.add(name);
  }
  return names;
}

/** Nodes with the names they read replaced; a graph inside that defines a name itself keeps it. */
function renameReads(nodes: readonly OnnxNode[], renames: ReadonlyMap<string, string> | undefined): readonly OnnxNode[] {
  if (renames === undefined || renames.size === 0) return nodes;
  return nodes.map((node) => {
    const inputs = node.inputs.map((name) => renames.get(name) ?? name);
    let attributes: Map<string, OnnxAttribute> | undefined;
    for (const [key, attribute] of node.attributes) {
      if (attribute.kind === "graph")
        (attributes ??= new Map(node.attributes)).set(key, { ...attribute, value: renameGraph(attribute.value, renames) });
      if (attribute.kind === "graphs") {
        const value = attribute.value.map((graph) => renameGraph(graph, renames));
        (attributes ??= new Map(node.attributes)).set(key, { ...attribute, value });
      }
    }
    return { ...node, inputs, ...(attributes && { attributes }) };
  });
}

function renameGraph(graph: OnnxGraph, renames: ReadonlyMap<string, string>): OnnxGraph {
  const own = new Set([
    ...graph.inputs.map(({ name }) => name),
    ...graph.initializers.keys(),
    ...graph.nodes.flatMap(({ outputs }) => outputs),
  ]);
  const visible = new Map([...renames].filter(([from]) => !own.has(from)));
  if (visible.size === 0) return graph;
  return {
    ...graph,
    nodes: renameReads(graph.nodes, visible),
    outputs: graph.outputs.map((output) => ({ ...output, name: visible.get(output.name) ?? output.name })),
  };
}
