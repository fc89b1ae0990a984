/**
 * An ONNX file as a model of one block.
 *
 * The block's graph stands for the whole file: its nodes can be looked at and any value of the main graph tapped,
 * while engines run the file as it is.
 * @module
 */
import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { DType } from "../../core/dtype.ts";
import { FormatError, UnsupportedError } from "../../core/errors.ts";
import { createTensor, type LazyTensor } from "../../core/tensor.ts";
import { isCoreDType } from "../../formats/containers/onnx/dtypes.ts";
import type { OnnxAttribute, OnnxModel, OnnxNode, OnnxValueInfo } from "../../formats/containers/onnx/model.ts";
import { openOnnx } from "../../formats/containers/onnx/read.ts";
import type { OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import type { Attribute, Graph, GraphNode, ValueType } from "../graph/graph.ts";
import type { LinearSite, Model } from "../model.ts";
import type { OnnxSite } from "../onnx/site.ts";
import { findOnnxSites } from "../onnx/sites.ts";

const EXTENSION = ".onnx";
/** Family of every model that was read from an ONNX file. */
export const ONNX_FAMILY = "onnx";

/**
 * The ONNX file that `path` means: itself, or the only one in a directory (or in its folder `onnx`) that holds no
 * safetensors.
 *
 * @throws {FormatError} `format.config` when a directory holds several and none is named model.onnx.
 */
export async function findOnnxFile(path: string): Promise<string | undefined> {
  if (path.toLowerCase().endsWith(EXTENSION)) return path;
  const names = await readdir(path).catch(() => undefined);
  if (names === undefined || names.some((name) => /\.(?:safetensors|bwc)$|\.safetensors\.index\.json$/.test(name))) return undefined;
  for (const folder of [path, join(path, "onnx")]) {
    const files = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith(EXTENSION)).toSorted();
    if (files.length === 0) continue;
    const chosen = files.length === 1 ? files[0]! : files.find((name) => name === `model${EXTENSION}`);
    if (chosen !== undefined) return join(folder, chosen);
    throw new FormatError("format.config", `${folder} holds ${files.join(", ")}; give the path of one of them`, { folder, files });
  }
  return undefined;
}

/** A model of one block from an ONNX file; no file stays open. @throws as `openOnnx` and {@link onnxToModel}. */
export async function openOnnxModel(path: string): Promise<Model> {
  const onnx = await openOnnx(path);
  await onnx.close();
  return onnxToModel(onnx, path);
}

/**
 * @param path - the file the model was read from and still says the same as.
 * @throws {UnsupportedError} `unsupported.format` naming an input that is no tensor of a known type and rank.
 */
export function onnxToModel(onnx: OnnxModel, path?: string): Model {
  const name = path === undefined ? onnx.graph.name : basename(path, EXTENSION);
  const { graph } = onnx;
  const inputs = inputsOf(onnx).map(valueType);
  const outputs = graph.outputs.map((output) => output.name);
  const nodes = graph.nodes.map(convertNode);
  const tensors = new Map<string, LazyTensor>();
  for (const [key, tensor] of graph.initializers) if (isCoreDType(tensor.dtype)) tensors.set(key, lazyTensor(key, tensor, tensor.dtype));
  const sites = findOnnxSites(onnx);
  const whole: Graph = {
    name,
    inputs,
    weights: [],
    constants: new Map(),
    nodes,
    outputs,
    opsets: Object.fromEntries(onnx.opsets),
    whole: { model: onnx, ...(path !== undefined && { path }) },
  };
  const same = (names: readonly string[]): Record<string, string> => Object.fromEntries(names.map((value) => [value, value]));
  return {
    facts: {
      family: ONNX_FAMILY,
      className: name,
      vocabularySize: 0,
      maxPositions: Number.POSITIVE_INFINITY,
      hiddenSize: 0,
      dtype: mainDType(tensors),
      tiedHead: false,
      output: outputs.includes("logits") ? "logits" : "last_hidden_state",
    },
    config: {},
    ...(path !== undefined && { directory: dirname(path) }),
    blocks: [
      {
        name,
        role: "block",
        graph: whole,
        weights: new Map(sites.flatMap(({ weight }) => weightOf(weight.value, weight.tensor))),
        reads: same(inputs.map((input) => input.name)),
        writes: same(outputs),
        sites: sites.flatMap((site) => linearSite(site, nodes)),
      },
    ],
    inputs,
    outputs,
    tensors,
    activations: new Map(),
  };
}

/** What a run must feed: inputs of the graph that have no value of their own. */
export function inputsOf({ graph }: OnnxModel): readonly OnnxValueInfo[] {
  return graph.inputs.filter(({ name }) => !graph.initializers.has(name) && graph.sparseInitializers?.has(name) !== true);
}

/** What names a dimension; converters write "?" or "-1" for any size, several times in one model. */
const NAME = /^[\p{L}_]/u;

function valueType({ name, dtype, shape }: OnnxValueInfo): ValueType {
  if (dtype === undefined || shape === undefined || !isCoreDType(dtype)) {
    const found = dtype === undefined ? "no tensor" : shape === undefined ? "a tensor of unknown rank" : `a tensor of ${dtype}`;
    throw new UnsupportedError(
      "unsupported.format",
      `input ${JSON.stringify(name)} is ${found}; models take tensors of known type and rank`,
      {
        input: name,
        dtype,
      },
    );
  }
  // A dimension without a name is of any size; a name of its own keeps it apart from all others.
  return { name, dtype, shape: shape.map((size, axis) => (typeof size === "string" && !NAME.test(size) ? `${name}:${axis}` : size)) };
}

function lazyTensor(name: string, tensor: OnnxTensor, dtype: DType): LazyTensor {
  const { shape, byteLength, location } = tensor;
  const read = async () => createTensor(dtype, shape, await tensor.read());
  return { name, dtype, shape, byteLength, read, ...(location && { location }) };
}

function weightOf(name: string, tensor: OnnxTensor): [string, LazyTensor][] {
  return isCoreDType(tensor.dtype) ? [[name, lazyTensor(name, tensor, tensor.dtype)]] : [];
}

/** Sites of the main graph whose input has its channels on the last axis. */
function linearSite(site: OnnxSite, nodes: readonly GraphNode[]): readonly LinearSite[] {
  const { weight, kind, observable, name } = site;
  const { shape } = weight.tensor;
  if (kind !== "linear" || !observable || shape.length !== 2 || weight.slot !== 1) return [];
  const { channelAxis } = weight;
  return [
    {
      name,
      localName: name,
      kind,
      node: nodes[site.index]!.name,
      input: site.input,
      output: site.output,
      weight: weight.value,
      ...(site.bias && { bias: site.bias.value }),
      channelAxis: channelAxis === 0 ? 0 : 1,
      rows: shape[channelAxis]!,
      cols: shape[1 - channelAxis]!,
    },
  ];
}

function convertNode(node: OnnxNode, index: number): GraphNode {
  const attributes = [...node.attributes].flatMap(([name, attribute]) => convertAttribute(name, attribute));
  const { op, domain, inputs, outputs } = node;
  return { name: node.name === "" ? `${op}.${index}` : node.name, op, domain, inputs, outputs, attributes: Object.fromEntries(attributes) };
}

/** The attributes that graphs of ours have; the file's own form keeps all. */
function convertAttribute(name: string, attribute: OnnxAttribute): [string, Attribute][] {
  switch (attribute.kind) {
    case "int":
      return [[name, { kind: "int", value: Number(attribute.value) }]];
    case "ints":
      return [[name, { kind: "ints", value: attribute.value.map(Number) }]];
    case "float":
    case "floats":
    case "string":
    case "strings":
      return [[name, attribute]];
    default:
      return [];
  }
}

/** The dtype that holds the most bytes. */
function mainDType(tensors: ReadonlyMap<string, LazyTensor>): DType {
  const bytes = new Map<DType, number>();
  for (const { dtype, byteLength } of tensors.values()) bytes.set(dtype, (bytes.get(dtype) ?? 0) + byteLength);
  return [...bytes].reduce<[DType, number]>((best, next) => (next[1] > best[1] ? next : best), ["F32", 0])[0];
}
