/**
 * Rotary embedding of heads whose channels are stored in an order of their own, one a key head.
 *
 * Channel j of a head holds channel o = order[j] of the plain head. Its angle is that of o, and the channel it turns with is where the
 * partner of o is stored. So tables are gathered by the order and partners by its inverse: the same numbers as a plain rotation, in
 * another order, and scores are equal because queries have the order of their key head.
 * @module
 */
import { tensorOf } from "../../core/tensor.ts";
import type { GraphBuilder } from "../graph/builder.ts";
import type { RotaryAttention } from "./attention.ts";
import type { RopeTables } from "./rope.ts";

const ORDER = "self_attn.rope_order";
const ONNX_INT64 = 7;
const ONNX_FLOAT = 1;

/**
 * @param x - value [batch, sequence, heads · headSize]; @param tables - values [batch, sequence, rotarySize / 2].
 * @returns the rotated value, named `output`.
 */
export function rotateOrdered(
  graph: GraphBuilder,
  x: string,
  heads: number,
  { kvHeads, headSize, rotarySize }: RotaryAttention,
  { cos, sin }: RopeTables,
  output: string,
): string {
  const order = graph.op("Cast", [ORDER], { to: ONNX_INT64 });
  const perHead = (value: string): string => {
    const grouped = graph.op("Expand", [
      graph.op("Unsqueeze", [value, graph.int64([1])]),
      graph.int64([kvHeads, heads / kvHeads, headSize]),
    ]);
    return graph.op("Reshape", [grouped, graph.int64([heads, headSize])]);
  };
  const flat = (value: string): string => graph.op("Reshape", [value, graph.int64([-1])]);
  const channels = flat(perHead(order));
  const gather = (value: string, index: string): string => graph.op("Gather", [value, index], { axis: 2 });
  const [cosines, sines] = plainTables(graph, cos, sin, headSize - rotarySize);
  const headStarts = graph.constant(
    tensorOf(
      BigInt64Array.from({ length: heads }, (_, h) => BigInt(h * headSize)),
      [heads, 1],
    ),
  );
  const partners = flat(graph.op("Add", [perHead(partnerPlaces(graph, order, headSize, rotarySize)), headStarts]));
  const kept = graph.op("Mul", [x, gather(cosines, channels)]);
  return graph.op("Add", [kept, graph.op("Mul", [gather(x, partners), gather(sines, channels)])], {}, output);
}

/** Tables of all channels of a plain head: y_c = x_c · cosines_c + x_partner · sines_c. Channels that do not rotate have 1 and 0. */
function plainTables(graph: GraphBuilder, cos: string, sin: string, still: number): readonly [cosines: string, sines: string] {
  const turned = graph.op("Neg", [sin]);
  if (still === 0) return [graph.op("Concat", [cos, cos], { axis: -1 }), graph.op("Concat", [turned, sin], { axis: -1 })];
  const shape = graph.op("Concat", [graph.op("Shape", [cos], { end: -1 }), graph.int64([still])], { axis: 0 });
  const filled = (value: number): string => graph.op("Expand", [graph.float32(value), shape]);
  return [graph.op("Concat", [cos, cos, filled(1)], { axis: -1 }), graph.op("Concat", [turned, sin, filled(0)], { axis: -1 })];
}

/** Where in its head the partner of each stored channel is stored, I64 [kvHeads, headSize]. */
function partnerPlaces(graph: GraphBuilder, order: string, headSize: number, rotarySize: number): string {
  const half = rotarySize / 2;
  const partner = BigInt64Array.from({ length: headSize }, (_, c) => BigInt(c < half ? c + half : c < rotarySize ? c - half : c));
  const wanted = graph.op("Gather", [graph.constant(tensorOf(partner, [headSize])), order], { axis: 0 });
  const isThere = graph.op("Equal", [graph.op("Unsqueeze", [order, graph.int64([1])]), graph.op("Unsqueeze", [wanted, graph.int64([2])])]);
  return graph.op("ArgMax", [graph.op("Cast", [isThere], { to: ONNX_FLOAT })], { axis: 2, keepdims: 0 });
}
