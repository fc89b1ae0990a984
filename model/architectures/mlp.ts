/**
 * Feed-forward layers on rows [tokens, hidden].
 * @module
 */
import { activate, type ActivationName } from "./activations.ts";
import { splitProjection } from "./attention.ts";
import type { BlockWriter } from "./block-writer.ts";

/** down(act(gate(x)) · up(x)), as data. */
export interface GatedMlp {
  readonly kind: "gated";
  readonly size: number;
  readonly activation: ActivationName;
  readonly bias: boolean;
  /** One matrix with the rows of gate, then up. */
  readonly fused: boolean;
}

/** Local names of the three matrices. */
export interface GatedNames {
  readonly gate: string;
  readonly up: string;
  readonly down: string;
}

export const MLP_NAMES: GatedNames = { gate: "mlp.gate_proj", up: "mlp.up_proj", down: "mlp.down_proj" };

/**
 * @param input - value [tokens, hidden].
 * @returns value [tokens, hidden].
 */
export function gatedMlp(
  writer: BlockWriter,
  input: string,
  hidden: number,
  { size, activation, bias, fused }: Pick<GatedMlp, "size" | "activation" | "bias" | "fused">,
  names: GatedNames = MLP_NAMES,
): string {
  const { graph } = writer;
  const [gate, up] = fused
    ? splitProjection(writer, writer.linear(input, "mlp.gate_up_proj", 2 * size, hidden, { bias }), [size, size])
    : [writer.linear(input, names.gate, size, hidden, { bias }), writer.linear(input, names.up, size, hidden, { bias })];
  const product = graph.op("Mul", [activate(graph, activation, gate!), up!], {}, `${names.down}.input`);
  return writer.linear(product, names.down, hidden, size, { bias });
}
