/**
 * A graph prepared for the tfjs interpreter: only the nodes that its outputs need, and when each value is last read.
 * @module
 */
import { QuantError, InputError } from "../../../core/errors.ts";
import type { Graph, GraphNode } from "../../graph/graph.ts";
import { operatorName } from "../operators.ts";
import { Call, type Backend, type TfTensor, type Value } from "./call.ts";
import { TFJS_OPERATORS } from "./operators.ts";

export interface Program {
  readonly graph: string;
  readonly steps: readonly Step[];
  readonly outputs: readonly string[];
}

interface Step {
  readonly node: GraphNode;
  /** Values that no later step reads and that are no outputs. */
  readonly dead: readonly string[];
}

/** Keep the nodes that `outputs` depend on, in order. */
export function planProgram(graph: Graph, outputs: readonly string[]): Program {
  const needed = new Set(outputs);
  const nodes: GraphNode[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.outputs.some((name) => name !== "" && needed.has(name))) continue;
    nodes.unshift(node);
    for (const name of node.inputs) needed.add(name);
  }
  const live = new Set(outputs);
  const steps: Step[] = [];
  for (const node of nodes.toReversed()) {
    const dead = [...new Set([...node.inputs, ...node.outputs])].filter((name) => name !== "" && !live.has(name));
    for (const name of dead) live.add(name);
    steps.unshift({ node, dead });
  }
  return { graph: graph.name, steps, outputs };
}

/**
 * Compute a program's outputs from named values.
 *
 * @param values - inputs, weights and constants; not disposed.
 * @returns the outputs' values; the caller disposes their tensors.
 */
export function runProgram(backend: Backend, program: Program, values: ReadonlyMap<string, Value>): Map<string, Value> {
  const computed = new Map<string, Value>();
  const read = (name: string): Value | undefined => computed.get(name) ?? values.get(name);
  try {
    for (const { node, dead } of program.steps) {
      for (const [name, value] of runNode(backend, program.graph, node, read)) computed.set(name, value);
      for (const name of dead) {
        computed.get(name)?.tensor.dispose();
        computed.delete(name);
      }
    }
    // An output may be an input or a constant, which the caller must be able to dispose apart.
    return new Map(program.outputs.map((name) => [name, computed.get(name) ?? copyOf(backend, read(name)!)]));
  } catch (error) {
    for (const { tensor } of computed.values()) tensor.dispose();
    throw error;
  }
}

function copyOf({ tf }: Backend, { dtype, tensor }: Value): Value {
  return { dtype, tensor: tf.clone(tensor) };
}

function runNode(backend: Backend, graph: string, node: GraphNode, read: (name: string) => Value | undefined): Map<string, Value> {
  const { tf } = backend;
  const inputs = node.inputs.map((name) => (name === "" ? undefined : read(name)));
  while (inputs.length > 0 && inputs.at(-1) === undefined) inputs.pop();
  const operator = TFJS_OPERATORS.get(operatorName(node))!;
  const named = new Map<string, Value>();
  tf.tidy((): TfTensor[] => {
    const results = [compute(operator, new Call(backend, graph, node, inputs), graph, node)].flat();
    for (const [i, name] of node.outputs.entries()) {
      const value = results[i];
      if (name === "" || value === undefined) continue;
      // A result that is an input keeps a handle of its own, as each is disposed in its own time.
      const shared = inputs.some((input) => input?.tensor === value.tensor);
      named.set(name, shared ? copyOf(backend, value) : value);
    }
    return [...named.values()].map(({ tensor }) => tensor);
  });
  return named;
}

function compute(operator: (call: Call) => Value | readonly Value[], call: Call, graph: string, node: GraphNode): Value | readonly Value[] {
  try {
    return operator(call);
  } catch (cause) {
    if (cause instanceof QuantError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new InputError(
      "input.value",
      `engine tfjs could not run graph ${graph}, node ${node.name}: ${reason}`,
      { graph, node: node.name, reason },
      { cause },
    );
  }
}
