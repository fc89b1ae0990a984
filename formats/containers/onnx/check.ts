/**
 * Structural checks: what must hold before anything looks a name up.
 * @module
 */
import { FormatError, UnsupportedError } from "../../../core/errors.ts";
import { elementCount } from "../../../core/dtype.ts";
import { checkFunctions } from "./check-functions.ts";
import { checkOperator, type KnownType } from "./check-operator.ts";
import type { OnnxGraph, OnnxModel, OnnxNode } from "./model.ts";
import { describeNode } from "./order.ts";
import { subgraphsOf } from "./tensors.ts";

/** IR versions read; 3 came with operator sets (onnx.proto, Version). */
export const IR_VERSIONS = { first: 3, last: 14 } as const;
/** Operator sets of the standard domain that are read and written back. */
export const OPSETS_READ = { first: 1, last: 28 } as const;
/** Operator sets whose operators are known: sites are found in these. */
export const OPSETS_KNOWN = { first: 7, last: 25 } as const;

/** A sparse initializer that takes more elements than this when it is made dense, as runtimes do, is refused. */
const DENSE_LIMIT = 2 ** 31;

/**
 * Versions are known; every name that is read is defined, once in its graph; graph outputs exist; nodes have operators and no
 * more inputs than those take; functions call no function that calls them, and come to a bounded number of nodes;
 * weights fit their operators.
 *
 * @param model - sorted: see `sortModel`.
 * @param name - of the file, for messages.
 * @throws {FormatError} `format.field`, `format.missing`, `format.duplicate`, `format.limit`.
 * @throws {UnsupportedError} `unsupported.format` for versions that are not known.
 */
export function checkOnnx(model: OnnxModel, name = "model"): void {
  checkVersions(model, name);
  const functions = checkFunctions(model, name);
  const scope = new Scope(undefined);
  checkGraph(model.graph, scope, { name, opsets: model.opsets, isCall: (node) => functions(node) });
  for (const item of model.functions) {
    const where = `${name}: function ${JSON.stringify(item.name)}`;
    const inner = new Scope(undefined);
    for (const input of item.inputs) inner.define(input, undefined, where);
    checkNodes(item.nodes, inner, { name: where, opsets: item.opsets, isCall: (node) => functions(node) });
    for (const output of item.outputs) inner.require(output, where, "its outputs");
  }
}

function checkVersions({ irVersion, opsets }: OnnxModel, name: string): void {
  if (irVersion < IR_VERSIONS.first || irVersion > IR_VERSIONS.last) {
    throw new UnsupportedError(
      "unsupported.format",
      `${name} has IR version ${irVersion}; ${IR_VERSIONS.first} to ${IR_VERSIONS.last} are read`,
      { irVersion },
    );
  }
  if (opsets.size === 0) throw new FormatError("format.missing", `${name} imports no operator set`, { file: name });
  for (const [domain, version] of opsets) {
    if (domain === "" ? version >= OPSETS_READ.first && version <= OPSETS_READ.last : version >= 1) continue;
    const text = `${name} imports operator set ${version} of ${domain === "" ? "the standard domain" : JSON.stringify(domain)}`;
    throw new UnsupportedError("unsupported.format", `${text}; ${OPSETS_READ.first} to ${OPSETS_READ.last} are read`, { domain, version });
  }
}

interface Surroundings {
  readonly name: string;
  readonly opsets: ReadonlyMap<string, number>;
  /** Whether a node calls a function of the model. */
  readonly isCall: (node: OnnxNode) => boolean;
}

/** Names that are defined, and the types of those whose type is sure. */
class Scope {
  readonly #outer: Scope | undefined;
  readonly #types = new Map<string, KnownType | undefined>();

  constructor(outer: Scope | undefined) {
    this.#outer = outer;
  }

  has(value: string): boolean {
    return this.#types.has(value) || (this.#outer?.has(value) ?? false);
  }

  type(value: string): KnownType | undefined {
    return this.#types.has(value) ? this.#types.get(value) : this.#outer?.type(value);
  }

  hasOwn(value: string): boolean {
    return this.#types.has(value);
  }

  define(value: string, type: KnownType | undefined, where: string): void {
    if (this.#types.has(value)) {
      throw new FormatError("format.duplicate", `${where} defines ${JSON.stringify(value)} twice`, { where, value });
    }
    this.#types.set(value, type);
  }

  require(value: string, where: string, reader: string): void {
    if (this.has(value)) return;
    throw new FormatError("format.missing", `${where}: ${reader} read ${JSON.stringify(value)}, which nothing defines`, {
      where,
      value,
      reader,
    });
  }
}

function checkGraph(graph: OnnxGraph, scope: Scope, around: Surroundings): void {
  const where = `${around.name}: graph ${JSON.stringify(graph.name)}`;
  for (const { name, dtype, shape } of graph.inputs) {
    const known = graph.initializers.get(name);
    if (known !== undefined && dtype !== undefined && known.dtype !== dtype) {
      throw new FormatError("format.field", `${where}: ${JSON.stringify(name)} is declared ${dtype} and initialized as ${known.dtype}`, {
        name,
        dtype,
        initialized: known.dtype,
      });
    }
    scope.define(name, dtype && { dtype, ...(shape && { shape }) }, where);
  }
  for (const [name, { dtype, shape }] of graph.initializers) {
    if (!scope.hasOwn(name)) scope.define(name, { dtype, shape }, where);
  }
  for (const [name, tensor] of graph.sparseInitializers ?? []) {
    if (!(elementCount(tensor.shape) <= DENSE_LIMIT)) {
      const size = `[${tensor.shape.join(", ")}]`;
      throw new FormatError(
        "format.limit",
        `${where}: sparse ${JSON.stringify(name)} is ${size} when dense; at most ${DENSE_LIMIT} elements`,
        {
          name,
          shape: tensor.shape,
          limit: DENSE_LIMIT,
        },
      );
    }
    if (!scope.hasOwn(name)) scope.define(name, { dtype: tensor.values.dtype, shape: tensor.shape }, where);
  }
  checkNodes(graph.nodes, scope, { ...around, name: where });
  for (const { name } of graph.outputs) scope.require(name, where, "its outputs");
}

function checkNodes(nodes: readonly OnnxNode[], scope: Scope, around: Surroundings): void {
  for (const node of nodes) {
    if (node.op === "") throw new FormatError("format.field", `${around.name}: a node has no operator`, { outputs: node.outputs });
    if (node.domain === "" && !around.opsets.has("") && !around.isCall(node)) {
      throw new FormatError(
        "format.missing",
        `${around.name}: ${describeNode(node)} needs the standard operator set, which is not imported`,
        {
          op: node.op,
        },
      );
    }
    for (const input of node.inputs) if (input !== "") scope.require(input, around.name, describeNode(node));
    if (!around.isCall(node)) checkOperator(node, (value) => scope.type(value), around.name);
    for (const graph of subgraphsOf(node)) checkGraph(graph, new Scope(scope), around);
    const constant = node.op === "Constant" && node.domain === "" ? node.attributes.get("value") : undefined;
    const type = constant?.kind === "tensor" ? { dtype: constant.value.dtype, shape: constant.value.shape } : undefined;
    for (const output of node.outputs) if (output !== "") scope.define(output, type, around.name);
  }
}
