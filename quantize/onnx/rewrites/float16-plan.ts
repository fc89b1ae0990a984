/**
 * What must stay in float32 when a model becomes float16: operators whose values leave float16, as far as weights, statistics and measured ranges tell.
 * @module
 */
import type { OnnxModel, OnnxNode } from "../../../formats/containers/onnx/model.ts";
import { readFloat32, type OnnxTensor } from "../../../formats/containers/onnx/tensor.ts";
import { elementCount } from "../../../core/dtype.ts";
import { ConstantResolver } from "../../../model/onnx/resolve.ts";
import type { HalfRanges } from "../half-ranges.ts";
import { findAngles } from "./float16-angles.ts";
import { flowOf, keyOf, nameOf, type Flow, type ValueKey } from "../value-flow.ts";
import { floatTensor, HALF_MAX, HALF_MIN, isFloat32Operator, type Float16Plan } from "./float16.ts";

/** Values that are measured on a few samples may grow this much on others. */
const MARGIN = 4;
/** A value whose largest magnitude lies below this has less than 7 bits left: normal halves end at 2^-14. */
const LEAST = 2 ** -17;
/** Relative error of a weight that a half still holds; normal ones are within 2^-11. */
const WEIGHT_ERROR = 2 ** -8;
/** Standard deviations around the mean of a BatchNormalization that its input stays in. */
const DEVIATIONS = 8;

/** Operators that give values of the size they take. */
const PASSING: ReadonlySet<string> = new Set(
  (
    "Identity Transpose Reshape Flatten Squeeze Unsqueeze Expand Tile Slice Split Concat Pad Resize Gather GatherElements GatherND ScatterND " +
    "ScatterElements Where Max Min MaxPool Dropout Cast Add Sub Sum Mul Neg Abs Relu LeakyRelu PRelu"
  ).split(" "),
);
/** Operators for which minus a lot is as good as minus infinity. */
const SATURATING: ReadonlySet<string> = new Set(["Softmax", "LogSoftmax"]);
const ATTENTION: ReadonlySet<string> = new Set(["Attention", "MultiHeadAttention", "GroupQueryAttention"]);

export interface HalfPlan extends Float16Plan {
  /** Operators kept in float32 and why, without those that have no float16 form; in graph order. */
  readonly kept: readonly { readonly name: string; readonly op: string; readonly reason: string }[];
}

export interface HalfPlanOptions {
  /** What was measured on data. */
  readonly ranges?: HalfRanges | undefined;
  /** Look at every stored float32 tensor, which reads it; default true. */
  readonly checkWeights?: boolean;
}

/**
 * Plan the conversion.
 *
 * @param model - functions inlined.
 */
export async function planFloat16(model: OnnxModel, { ranges, checkWeights = true }: HalfPlanOptions = {}): Promise<HalfPlan> {
  const flow = flowOf(model);
  const angles = findAngles(model);
  const wide = new Map<ValueKey, string>();
  const nodes = new Map<OnnxNode, string>([...angles.nodes].map((node) => [node, "angles of positions"]));
  const constants = new Set<OnnxTensor | OnnxNode>(angles.constants);
  const cut = new Set<ValueKey>();
  for (const { key, tensor, holder } of checkWeights ? constantsOf(flow) : []) {
    const problem = weightProblem(await readFloat32(tensor), key, flow);
    if (problem === undefined) continue;
    if (problem.isLarge && endsInLimits(flow, key, cut)) continue;
    wide.set(key, problem.reason);
    constants.add(holder);
  }
  for (const [key, reason] of await statisticsOf(flow)) if (!wide.has(key)) wide.set(key, reason);
  if (ranges === undefined) for (const key of await variancesOf(flow)) if (!wide.has(key)) wide.set(key, "squares that are summed up");
  for (const key of wide.keys()) passOn(flow, key, wide, ranges);
  // The product with their scale fits again.
  if (ranges === undefined) for (const key of integerSums(flow)) wide.set(key, "sums of integer products");
  for (const [name, { largest }] of ranges?.values ?? []) {
    const key = keyOf("", name);
    if (cut.has(key)) continue;
    if (largest > HALF_MAX / MARGIN) wide.set(key, `${name} was measured up to ${format(largest)}`);
    else if (largest > 0 && largest < LEAST) wide.set(key, `${name} was measured to stay within ${format(largest)}`);
  }
  for (const { node, sum, what } of ranges?.sums ?? [])
    if (sum > HALF_MAX / MARGIN && !nodes.has(node)) nodes.set(node, `${what} was measured up to ${format(sum)}`);
  for (const [key, reason] of wide) {
    const around = [flow.producers.get(key), ...(flow.readers.get(key) ?? []).map(({ node }) => node)];
    for (const node of around)
      if (node !== undefined && node.op !== "Constant" && !hasBodies(node) && !nodes.has(node)) nodes.set(node, reason);
  }
  const kept = flow.bodies.flatMap((body) =>
    body.nodes.flatMap((node) => {
      const reason = nodes.get(node);
      if (reason === undefined || angles.nodes.has(node) || isFloat32Operator(node)) return [];
      return [{ name: node.name === "" ? (node.outputs[0] ?? "") : node.name, op: node.op, reason }];
    }),
  );
  return { nodes: new Set(nodes.keys()), constants, kept };
}

interface StoredConstant {
  readonly key: ValueKey;
  readonly tensor: OnnxTensor;
  /** What a plan names it by. */
  readonly holder: OnnxTensor | OnnxNode;
}

function* constantsOf({ bodies }: Flow): Generator<StoredConstant> {
  for (const { path, initializers, nodes } of bodies) {
    for (const [name, tensor] of initializers) if (tensor.dtype === "F32") yield { key: keyOf(path, name), tensor, holder: tensor };
    for (const node of nodes) {
      if (node.op !== "Constant" || node.domain !== "") continue;
      for (const [name, attribute] of node.attributes) {
        const tensor = floatTensor(name, attribute);
        if (tensor !== undefined) yield { key: keyOf(path, node.outputs[0]!), tensor, holder: node };
      }
    }
  }
}

function weightProblem(
  values: Float32Array,
  key: ValueKey,
  flow: Flow,
): { readonly reason: string; readonly isLarge: boolean } | undefined {
  let [beyond, largest, lost, power] = [0, 0, 0, 0];
  for (let i = 0; i < values.length; i++) {
    const size = Math.abs(values[i]!);
    if (size > HALF_MAX && size !== Infinity) {
      beyond++;
      if (size > largest) largest = size;
    }
    if (size > HALF_MAX || Number.isNaN(size)) continue;
    power += size * size;
    // Subnormal halves are multiples of 2^-24.
    if (size < 2 ** -14) lost += (size - Math.max(HALF_MIN * Math.floor(size / HALF_MIN + 0.5), size === 0 ? 0 : HALF_MIN)) ** 2;
  }
  const name = nameOf(key);
  if (beyond > 0) {
    const which = values.length === 1 ? `${name} is ${format(largest)}` : `${beyond} values of ${name} reach ${format(largest)}`;
    return { reason: `${which}, beyond 65504`, isLarge: true };
  }
  if (lost <= power * WEIGHT_ERROR ** 2) return undefined;
  // Added to anything that matters, what is lost of them does not.
  if (flow.readers.get(key)?.every(({ node }) => node?.op === "Add" || node?.op === "Sub") === true) return undefined;
  return { reason: `${name} is too small for float16`, isLarge: false };
}

/**
 * Whether a constant stands for infinity: a mask in front of a Softmax, a limit of Clip, the filling of a Pad. Cut to float16 it does the same.
 * Values on the way are added to `cut`.
 */
function endsInLimits(flow: Flow, start: ValueKey, cut: Set<ValueKey>): boolean {
  const seen = new Set<ValueKey>();
  const queue = [start];
  for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
    if (seen.has(key)) continue;
    seen.add(key);
    for (const { node, slot, outputs } of flow.readers.get(key) ?? []) {
      if (node === undefined) return false;
      const isLimit =
        SATURATING.has(node.op) ||
        (node.op === "Clip" && slot > 0) ||
        (node.op === "Pad" && slot === 2) ||
        (ATTENTION.has(node.op) && slot >= 3);
      if (isLimit) continue;
      if (!PASSING.has(node.op)) return false;
      queue.push(...outputs);
    }
  }
  for (const key of seen) cut.add(key);
  return true;
}

/** What a wide value makes wide, where nothing was measured. */
function passOn(flow: Flow, start: ValueKey, wide: Map<ValueKey, string>, ranges: HalfRanges | undefined): void {
  const reason = wide.get(start)!;
  const queue = [start];
  for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
    for (const { node, slot, outputs } of flow.readers.get(key) ?? []) {
      if (node === undefined || !PASSING.has(node.op) || (node.op === "Pad" && slot > 0) || (node.op === "Resize" && slot > 0)) continue;
      for (const output of outputs) {
        if (wide.has(output) || ranges?.values.has(nameOf(output)) === true) continue;
        wide.set(output, reason);
        queue.push(output);
      }
    }
  }
}

/** Values that are sums of integer products, cast to floats. */
function integerSums({ bodies, producers }: Flow): readonly ValueKey[] {
  return bodies.flatMap(({ path, nodes }) =>
    nodes.flatMap(({ op, inputs, outputs }) => {
      const source = op === "Cast" ? producers.get(keyOf(path, inputs[0]!))?.op : undefined;
      return source === "MatMulInteger" || source === "ConvInteger" ? [keyOf(path, outputs[0]!)] : [];
    }),
  );
}

/**
 * Squares that are summed up or averaged, and what that gives: the variances of normalizations written out. Values past 255 overflow there, which
 * large models have.
 */
async function variancesOf({ bodies, readers }: Flow): Promise<readonly ValueKey[]> {
  const found: ValueKey[] = [];
  for (const body of bodies) {
    const resolver = new ConstantResolver(body);
    for (const node of body.nodes) {
      if (node.domain !== "" || !(await isSquare(node, resolver))) continue;
      const key = keyOf(body.path, node.outputs[0]!);
      const sums = readers.get(key) ?? [];
      if (sums.length === 0 || !sums.every(({ node: reader }) => reader?.op === "ReduceMean" || reader?.op === "ReduceSum")) continue;
      found.push(key, ...sums.flatMap(({ outputs }) => outputs));
    }
  }
  return found;
}

async function isSquare({ op, inputs }: OnnxNode, resolver: ConstantResolver): Promise<boolean> {
  if (op === "Mul") return inputs[0] === inputs[1];
  const exponent = op === "Pow" ? resolver.resolve(inputs[1] ?? "")?.tensor : undefined;
  return exponent?.dtype === "F32" && elementCount(exponent.shape) === 1 && (await readFloat32(exponent))[0] === 2;
}

/** Inputs of BatchNormalization that its mean and variance say to leave float16. */
async function statisticsOf({ bodies }: Flow): Promise<ReadonlyMap<ValueKey, string>> {
  const found = new Map<ValueKey, string>();
  for (const body of bodies) {
    if (!body.nodes.some(({ op }) => op === "BatchNormalization")) continue;
    const resolver = new ConstantResolver(body);
    for (const node of body.nodes) {
      if (node.op !== "BatchNormalization" || node.domain !== "") continue;
      const [mean, variance] = [3, 4].map((slot) => resolver.resolve(node.inputs[slot] ?? "")?.tensor);
      if (mean === undefined || variance === undefined || elementCount(mean.shape) !== elementCount(variance.shape)) continue;
      const [means, variances] = [await readFloat32(mean), await readFloat32(variance)];
      const largest = means.reduce((most, value, c) => Math.max(most, Math.abs(value) + DEVIATIONS * Math.sqrt(variances[c]!)), 0);
      const name = node.inputs[0]!;
      if (largest > HALF_MAX) found.set(keyOf(body.path, name), `the statistics of ${name} allow for ${format(largest)}`);
    }
  }
  return found;
}

function hasBodies({ attributes }: OnnxNode): boolean {
  return [...attributes.values()].some(({ kind }) => kind === "graph" || kind === "graphs");
}

function format(value: number): string {
  return value.toPrecision(3).replace(/\.?0+(?=e|$)/, "");
}
