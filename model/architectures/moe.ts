/**
 * Mixtures of experts: only the rows routed to an expert are gathered and multiplied,
 * so an expert's sites see exactly the tokens that it serves.
 * @module
 */
import { type ActivationName } from "./activations.ts";
import type { BlockWriter } from "./block-writer.ts";
import { gatedMlp, type GatedNames } from "./mlp.ts";

/** A mixture of gated experts, as data. */
export interface ExpertMixture {
  readonly kind: "experts";
  readonly experts: number;
  /** Experts a token is sent to. */
  readonly chosen: number;
  /** Whether the chosen probabilities are divided by their sum. */
  readonly normalize: boolean;
  readonly size: number;
  readonly activation: ActivationName;
  /** Spelling of the checkpoint. */
  readonly names: "mixtral" | "qwen";
}

/** Local names: the router and the matrices of expert N. */
export function expertNames(names: ExpertMixture["names"]): { readonly router: string; readonly expert: (index: number) => GatedNames } {
  if (names === "qwen") {
    const expert = (index: number): GatedNames => ({
      gate: `mlp.experts.${index}.gate_proj`,
      up: `mlp.experts.${index}.up_proj`,
      down: `mlp.experts.${index}.down_proj`,
    });
    return { router: "mlp.gate", expert };
  }
  const expert = (index: number): GatedNames => ({
    gate: `block_sparse_moe.experts.${index}.w1`,
    up: `block_sparse_moe.experts.${index}.w3`,
    down: `block_sparse_moe.experts.${index}.w2`,
  });
  return { router: "block_sparse_moe.gate", expert };
}

/**
 * Softmax over all experts, the `chosen` most probable, their outputs weighted and summed.
 *
 * Places are numbered token × chosen + rank; an expert's places are where its index stands in the
 * flattened choice. Together the experts' places are each place once, so one scatter puts all outputs back.
 *
 * @param input - value [tokens, hidden].
 * @returns value [tokens, hidden].
 */
export function expertMixture(writer: BlockWriter, input: string, hidden: number, mixture: ExpertMixture): string {
  const { graph } = writer;
  const { experts, chosen, size, activation } = mixture;
  const { router, expert } = expertNames(mixture.names);
  const logits = writer.linear(input, router, experts, hidden, { kind: "router" });
  const probabilities = graph.op("Softmax", [logits], { axis: -1 });
  const [top, indices] = graph.multi("TopK", [probabilities, graph.int64([chosen])], { axis: -1 }, graph.fresh("top", 2));
  const shares = mixture.normalize ? graph.op("Div", [top!, graph.op("ReduceSum", [top!, graph.int64([-1])])]) : top!;
  const choice = graph.op("Reshape", [indices!, graph.int64([-1])]);
  const perToken = graph.int64(chosen);
  const places: string[] = [];
  const outputs: string[] = [];
  for (let index = 0; index < experts; index++) {
    const mine = graph.op("Equal", [choice, graph.int64(index)]);
    const place = graph.op("Transpose", [graph.op("NonZero", [mine])], { perm: [1, 0] });
    const tokens = graph.op("Squeeze", [graph.op("Div", [place, perToken]), graph.int64([1])]);
    const names = expert(index);
    const rows = graph.op("Gather", [input, tokens], { axis: 0 }, `${names.gate}.input`);
    places.push(place);
    outputs.push(gatedMlp(writer, rows, hidden, { size, activation, bias: false, fused: false }, names));
  }
  const all = graph.op("Concat", outputs, { axis: 0 });
  const empty = graph.op("Mul", [all, graph.float32(0)]);
  const ordered = graph.op("ScatterND", [empty, graph.op("Concat", places, { axis: 0 }), all]);
  const stacked = graph.op("Reshape", [ordered, graph.int64([-1, chosen, hidden])]);
  const weighted = graph.op("Mul", [stacked, graph.op("Unsqueeze", [shares, graph.int64([2])])]);
  return graph.op("ReduceSum", [weighted, graph.int64([1])], { keepdims: 0 });
}
