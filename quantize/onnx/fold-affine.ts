/**
 * What follows a Conv, ConvTranspose or Gemm with constants alone, channel by channel (BatchNormalization, products, sums), becomes part of its
 * weight and bias. Runtimes do the same when they load a float model, and cannot once the weight is codes.
 * @module
 */
import { elementCount } from "../../core/dtype.ts";
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { makeLazyOnnxTensor, readFloat32, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { intAttribute } from "../../model/onnx/attributes.ts";
import { bodiesOf, mapBodies, type PlacedBody } from "../../model/onnx/bodies.ts";
import { ConstantResolver } from "../../model/onnx/resolve.ts";
import type { OnnxConstant, OnnxSite } from "../../model/onnx/site.ts";
import { findOnnxSites } from "../../model/onnx/sites.ts";
import { OnnxEdits } from "./edits.ts";
import { flowOf, keyOf, type Flow } from "./value-flow.ts";

/** y = scale · x + shift by channel; lists of one value are for all. */
interface Affine {
  readonly scale: Float64Array;
  readonly shift: Float64Array;
}

/** An operator that can go. */
interface Step {
  readonly node: OnnxNode;
  readonly constants: readonly OnnxConstant[];
  /** Whether it does more than add. */
  readonly scales: boolean;
  readonly read: () => Promise<Affine>;
}

export interface FoldedAffines {
  readonly model: OnnxModel;
  /** Operators that are gone, by name, with how many. */
  readonly folded: ReadonlyMap<string, number>;
}

/** Fold wherever nobody else reads the values in between or the weight. Computed in double precision when the tensors are read. */
export function foldAffine(model: OnnxModel): FoldedAffines {
  const sites = findOnnxSites(model).filter(canFold);
  const folded = new Map<string, number>();
  const renamed = new Map<string, string>();
  if (sites.length === 0) return { model, folded };
  const flow = flowOf(model);
  const edits = new OnnxEdits(model);
  const resolvers = new Map<PlacedBody, ConstantResolver>();
  const bodies = new Map(
    bodiesOf(model).map((body) => {
      const resolver = new ConstantResolver(body, body.outer && resolvers.get(body.outer));
      resolvers.set(body, resolver);
      return [body.path, { resolver, places: new Map(body.nodes.map((node, i) => [node, i])) }];
    }),
  );
  for (const site of sites) {
    const { resolver, places } = bodies.get(site.path)!;
    const steps = stepsBehind(site, flow, resolver, places);
    if (!steps.some(({ node }) => node.op !== "Identity")) continue;
    for (const { node, constants } of steps) {
      folded.set(node.op, (folded.get(node.op) ?? 0) + 1);
      for (const constant of constants) edits.abandon(constant);
      edits.replace(site.path, places.get(node)!, []);
    }
    edits.replace(site.path, site.index, [foldInto(edits, site, steps, renamed)]);
  }
  return folded.size === 0 ? { model, folded } : { model: takeNamesBack(edits.apply(), renamed), folded };
}

/** New tensors under the names of those they stand for, where these are free now: sites keep their names. */
function takeNamesBack(model: OnnxModel, renamed: ReadonlyMap<string, string>): OnnxModel {
  const taken = new Set(
    bodiesOf(model).flatMap(({ nodes, initializers }) => [...initializers.keys(), ...nodes.flatMap(({ outputs }) => outputs)]),
  );
  const to = (name: string): string => {
    const old = renamed.get(name);
    return old === undefined || taken.has(old) ? name : old;
  };
  return mapBodies(model, ({ nodes, initializers }) => ({
    initializers: new Map([...initializers].map(([name, tensor]) => [to(name), tensor])),
    nodes: nodes.map((node) => (node.inputs.some((name) => renamed.has(name)) ? { ...node, inputs: node.inputs.map(to) } : node)),
  }));
}

/** One that holds all of its weight and bias in float32, the layout of which is known. */
function canFold({ op, node, weight, bias }: OnnxSite): boolean {
  if (weight.tensor.dtype !== "F32" || (op !== "Conv" && op !== "ConvTranspose" && op !== "Gemm")) return false;
  if ((node.inputs[2] ?? "") !== "" && bias?.tensor.dtype !== "F32") return false;
  if (op !== "Gemm") return true;
  const isOne = (name: string): boolean => {
    const attribute = node.attributes.get(name);
    return attribute === undefined || ((attribute.kind === "float" || attribute.kind === "int") && Number(attribute.value) === 1);
  };
  return (
    isOne("alpha") && isOne("beta") && (bias === undefined || elementCount(bias.tensor.shape) === channelsOf({ op, weight, groups: 1 }))
  );
}

function channelsOf({ op, weight, groups }: Pick<OnnxSite, "op" | "weight" | "groups">): number {
  return weight.tensor.shape[weight.channelAxis]! * (op === "ConvTranspose" ? groups : 1);
}

function stepsBehind(site: OnnxSite, flow: Flow, resolver: ConstantResolver, places: ReadonlyMap<OnnxNode, number>): readonly Step[] {
  const { path, weight } = site;
  // A weight that others read would be stored twice.
  const isOwn = [weight.value, ...weight.chain.flatMap(({ inputs }) => inputs.slice(0, 1))].every(
    (name) => (flow.readers.get(keyOf(weight.source.path, name)) ?? flow.readers.get(keyOf(path, name)))?.length === 1,
  );
  const steps: Step[] = [];
  for (let value = site.output; ; value = steps.at(-1)!.node.outputs[0]!) {
    const readers = flow.readers.get(keyOf(path, value)) ?? [];
    const { node, slot } = readers[0] ?? {};
    if (readers.length !== 1 || node === undefined || !places.has(node)) return steps;
    const step = stepOf(node, slot!, site, resolver);
    if (step === undefined || (step.scales && !isOwn)) return steps;
    steps.push(step);
  }
}

function stepOf(node: OnnxNode, slot: number, site: OnnxSite, resolver: ConstantResolver): Step | undefined {
  if (node.domain !== "") return undefined;
  if (node.op === "Identity") return { node, constants: [], scales: false, read: async () => identity() };
  if (node.op === "BatchNormalization") return slot === 0 ? normalization(node, channelsOf(site), resolver) : undefined;
  const constant = resolver.resolve(node.inputs[1 - slot] ?? "");
  if (constant === undefined || node.inputs.length !== 2 || !liesAlongChannels(constant.tensor, site)) return undefined;
  const read = (make: (values: Float64Array) => Affine) => async (): Promise<Affine> =>
    make(Float64Array.from(await readFloat32(constant.tensor)));
  const one = Float64Array.of(1);
  const none = Float64Array.of(0);
  const step = (scales: boolean, make: (values: Float64Array) => Affine): Step => ({
    node,
    constants: [constant],
    scales,
    read: read(make),
  });
  switch (node.op) {
    case "Add":
      return step(false, (shift) => ({ scale: one, shift }));
    case "Sub":
      return slot === 0
        ? step(false, (values) => ({ scale: one, shift: values.map((value) => -value) }))
        : step(true, (shift) => ({ scale: Float64Array.of(-1), shift }));
    case "Mul":
      return step(true, (scale) => ({ scale, shift: none }));
    case "Div":
      return slot === 0 ? step(true, (values) => ({ scale: values.map((value) => 1 / value), shift: none })) : undefined;
    default:
      return undefined;
  }
}

function identity(): Affine {
  return { scale: Float64Array.of(1), shift: Float64Array.of(0) };
}

function normalization(node: OnnxNode, channels: number, resolver: ConstantResolver): Step | undefined {
  const isPlain = intAttribute(node, "training_mode", 0) === 0 && intAttribute(node, "spatial", 1) === 1;
  if (!isPlain || node.outputs.slice(1).some((name) => name !== "")) return undefined;
  const constants = node.inputs.slice(1).flatMap((name) => resolver.resolve(name) ?? []);
  if (constants.length !== 4 || constants.some(({ tensor }) => tensor.dtype !== "F32" || elementCount(tensor.shape) !== channels))
    return undefined;
  const attribute = node.attributes.get("epsilon");
  const epsilon = attribute?.kind === "float" ? attribute.value : 1e-5;
  const read = async (): Promise<Affine> => {
    const [gamma, beta, mean, variance] = await Promise.all(constants.map(async ({ tensor }) => readFloat32(tensor)));
    const scale = Float64Array.from(gamma!, (value, c) => value / Math.sqrt(variance![c]! + epsilon));
    return { scale, shift: scale.map((value, c) => beta![c]! - mean![c]! * value) };
  };
  return { node, constants, scales: true, read };
}

/** Whether a constant has one value, or one a channel of what the site gives. */
function liesAlongChannels({ dtype, shape }: OnnxTensor, site: OnnxSite): boolean {
  const rank = site.weight.tensor.shape.length;
  if (dtype !== "F32" || shape.length > rank) return false;
  const axis = site.op === "Gemm" ? shape.length - 1 : shape.length - rank + 1;
  return shape.every((size, i) => size === 1 || (i === axis && size === channelsOf(site)));
}

/** The site with weight and bias that do what the steps did; it writes the last step's value. */
function foldInto(edits: OnnxEdits, site: OnnxSite, steps: readonly Step[], renamed: Map<string, string>): OnnxNode {
  const { node, weight, bias, path } = site;
  const channels = channelsOf(site);
  /** All steps one after the other. */
  const compose = async (): Promise<Affine> => {
    const scale = new Float64Array(channels).fill(1);
    const shift = new Float64Array(channels);
    if (bias !== undefined) shift.set(await readFloat32(bias.tensor));
    for (const { read } of steps) {
      const next = await read();
      const at = (values: Float64Array, c: number): number => values[values.length === 1 ? 0 : c]!;
      for (let c = 0; c < channels; c++) {
        scale[c] = scale[c]! * at(next.scale, c);
        shift[c] = shift[c]! * at(next.scale, c) + at(next.shift, c);
      }
    }
    return { scale, shift };
  };
  const inputs = [...node.inputs];
  const { value, tensor, source } = weight;
  if (steps.some(({ scales }) => scales)) {
    const scaled = makeLazyOnnxTensor("F32", tensor.shape, async () => {
      const { scale } = await compose();
      return bytesOf(scaleChannels(await readFloat32(tensor), site, scale));
    });
    inputs[weight.slot] = edits.constant(source.path, value, withPlace(scaled, weight.stored));
    renamed.set(inputs[weight.slot]!, weight.chain.length === 0 ? value : source.name);
    edits.abandon(weight);
  }
  if (steps.some(({ node: { op } }) => op !== "Mul" && op !== "Div" && op !== "Identity") || bias !== undefined) {
    if (bias !== undefined) edits.abandon(bias);
    const shifted = makeLazyOnnxTensor("F32", [channels], async () => bytesOf(Float32Array.from((await compose()).shift)));
    inputs[2] = edits.constant(path, bias?.value ?? `${value}_bias`, shifted);
    if (bias !== undefined) renamed.set(inputs[2], bias.value);
  }
  return { ...node, inputs, outputs: [steps.at(-1)!.node.outputs[0]!] };
}

/** External data stays external. */
function withPlace(tensor: OnnxTensor, { external }: OnnxTensor): OnnxTensor {
  return external === undefined ? tensor : { ...tensor, external };
}

/** Weights times the scale of the channel they lead to. Of a grouped ConvTranspose: a channel of the group of the input's channel. */
function scaleChannels(values: Float32Array, { op, weight, groups }: OnnxSite, scale: Float64Array): Float32Array {
  const { shape } = weight.tensor;
  const rows = shape[weight.channelAxis]!;
  const inner = shape.slice(weight.channelAxis + 1).reduce((product, size) => product * size, 1);
  const perGroup = op === "ConvTranspose" ? shape[0]! / groups : Infinity;
  return values.map((value, i) => {
    const row = Math.floor(i / inner) % rows;
    const group = Math.floor(i / (inner * rows) / perGroup);
    return value * scale[(op === "ConvTranspose" ? group * rows : 0) + row]!;
  });
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
