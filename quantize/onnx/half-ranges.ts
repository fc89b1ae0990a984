/**
 * Magnitudes of every float value of a model, measured on data: what decides whether float16 holds them.
 * @module
 */
import { throwIfAborted } from "../../core/errors.ts";
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { floatsOf } from "../../model/host-tensor.ts";
import { onnxToModel } from "../../model/sources/onnx.ts";
import { OnnxEdits } from "./edits.ts";
import { floats, int64s, makeNode } from "./nodes.ts";
import type { ObserveOptions } from "./observe.ts";
import type { OnnxSamples } from "./samples.ts";

/** What was measured. */
export interface HalfRanges {
  /** By value of the main graph: its largest finite magnitude. */
  readonly values: ReadonlyMap<string, { readonly largest: number }>;
  /** Sums inside operators, as large as any order of adding makes them. */
  readonly sums: readonly { readonly node: OnnxNode; readonly sum: number; readonly what: string }[];
}

/** Beyond this a value stands for infinity. */
const ENDLESS = 3e38;
const WHERE_OPSET = 9;

/** Operators that sum up inside, and what gives the sums. */
const SUMS: ReadonlyMap<string, { readonly op: string; readonly what: string }> = new Map([
  ["ReduceMean", { op: "ReduceL1", what: "its sum" }],
  ["ReduceL2", { op: "ReduceSumSquare", what: "its sum of squares" }],
  ["GlobalAveragePool", { op: "ReduceL1", what: "its sum" }],
]);
/** First opset whose ReduceL1 takes its axes as an input. */
const AXES_INPUT_OPSET = 18;
/** Operators that square their input, which must not pass 65504 either. */
const SQUARING: ReadonlySet<string> = new Set([
  "LayerNormalization",
  "SimplifiedLayerNormalization",
  "RMSNormalization",
  "InstanceNormalization",
  "GroupNormalization",
  "GroupNorm",
  "LpNormalization",
]);

/**
 * Run every sample once; the maxima are taken inside the engine, so one number a value leaves it.
 *
 * @param values - float values of the main graph.
 * @throws {InterruptedError}, and what the engine throws.
 */
export async function measureHalfRanges(
  model: OnnxModel,
  values: readonly string[],
  samples: OnnxSamples,
  { engine, signal, onProgress }: ObserveOptions,
): Promise<HalfRanges> {
  const edits = new OnnxEdits(model);
  const opset = model.opsets.get("") ?? 1;
  const [whole, zero, most] = [
    edits.constant("", "tap_shape", int64s([-1])),
    edits.constant("", "tap_zero", floats([0], [1])),
    edits.constant("", "tap_most", floats([ENDLESS])),
  ];
  const producers = new Map(model.graph.nodes.flatMap(({ outputs }, i) => outputs.map((name) => [name, i] as const)));
  /** Nodes for the largest finite magnitude of a value. */
  const maximum = (value: string): { readonly nodes: readonly OnnxNode[]; readonly output: string } => {
    const name = (part: string): string => edits.fresh(`${value}_${part}`);
    const [rows, sizes, output] = [name("rows"), name("sizes"), name("largest")];
    const nodes = [makeNode("Reshape", [value, whole], [rows]), makeNode("Abs", [rows], [sizes])];
    let last = sizes;
    if (opset >= WHERE_OPSET) {
      const [isFinite, finite] = [name("is_finite"), name("finite")];
      nodes.push(makeNode("Less", [sizes, most], [isFinite]), makeNode("Where", [isFinite, sizes, zero], [finite]));
      last = finite;
    }
    // A value may be empty, and nothing has no maximum.
    const filled = name("filled");
    nodes.push(makeNode("Concat", [last, zero], [filled], { axis: 0 }), makeNode("ReduceMax", [filled], [output], { keepdims: 0 }));
    return { nodes, output };
  };
  /** Nodes for the sums inside an operator: over the axes it reduces, or over all but batch and channel. */
  const summing = (node: OnnxNode, op: string, output: string): readonly OnnxNode[] => {
    if (node.op !== "GlobalAveragePool") return [{ ...makeNode(op, node.inputs, [output]), attributes: node.attributes }];
    const planes = edits.fresh(`${output}_planes`);
    const shape = edits.constant("", `${output}_shape`, int64s([0, 0, -1]));
    const reduced =
      opset >= AXES_INPUT_OPSET
        ? makeNode(op, [planes, edits.constant("", `${output}_axes`, int64s([2]))], [output])
        : makeNode(op, [planes], [output], { axes: [2] });
    return [makeNode("Reshape", [node.inputs[0]!, shape], [planes]), reduced];
  };
  const outputs = new Map<string, string>();
  for (const value of values) {
    const { nodes, output } = maximum(value);
    const producer = producers.get(value);
    if (producer === undefined) edits.before("", 0, nodes);
    else edits.after("", producer, nodes);
    outputs.set(output, value);
  }
  const measurable = new Set(values);
  const sums = new Map<string, OnnxNode>();
  for (const [index, node] of model.graph.nodes.entries()) {
    const rule = node.domain === "" ? SUMS.get(node.op) : undefined;
    if (rule === undefined || !measurable.has(node.inputs[0]!)) continue;
    const sum = edits.fresh(`${node.outputs[0]!}_sum`);
    const { nodes, output } = maximum(sum);
    edits.after("", index, [...summing(node, rule.op, sum), ...nodes]);
    sums.set(output, node);
  }
  const names = [...outputs.keys(), ...sums.keys()];
  const largest = new Map(names.map((name) => [name, 0]));
  const compiled = await engine.compile(onnxToModel(edits.apply()).blocks[0]!.graph, { outputs: names });
  try {
    let done = 0;
    for await (const { inputs, samples: count } of samples.runs()) {
      throwIfAborted(signal);
      const seen = await compiled.run(inputs);
      for (const name of names) largest.set(name, Math.max(largest.get(name)!, floatsOf(seen[name]!, name)[0]!));
      done += count;
      onProgress?.({ phase: "calibrate", done, total: Math.max(done, samples.length), unit: "blocks", detail: "samples" });
    }
  } finally {
    await compiled.release();
  }
  const measured = new Map([...outputs].map(([output, value]) => [value, { largest: largest.get(output)! }]));
  const squares = model.graph.nodes.flatMap((node) => {
    const input = SQUARING.has(node.op) ? measured.get(node.inputs[0]!) : undefined;
    return input === undefined ? [] : [{ node, sum: input.largest ** 2, what: "its square" }];
  });
  return {
    values: measured,
    sums: [...[...sums].map(([output, node]) => ({ node, sum: largest.get(output)!, what: SUMS.get(node.op)!.what })), ...squares],
  };
}
