/**
 * Calibration against one plain onnxruntime session of the same whole model.
 *
 *   npx tsx bench/calibration-throughput.ts [--model dir] [--sequences 16] [--length 512] [--threads 2] [--repeats 3]
 *
 * Without --model a Llama of the shape of a 135M model with random weights is made in a temporary folder.
 * The plain session holds all weights as initializers (prepacked by the runtime) and all blocks in one graph, and is timed without
 * its creation; calibration is timed whole, reading of weights included. Runs alternate, each in a process of its own,
 * so that peak memory is its own too. Lines: median tokens/s, CPU seconds of the timed part, peak RSS of the process.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { calibrate } from "../calibrate/calibrate.ts";
import { createRandom } from "../core/random.ts";
import { fromFloat32, type Tensor } from "../core/tensor.ts";
import { encodeOnnxModel } from "../formats/containers/onnx/write.ts";
import { writeSafetensors } from "../formats/containers/safetensors/write.ts";
import { createEngine } from "../model/engines/index.ts";
import type { Graph, GraphNode } from "../model/graph/graph.ts";
import { graphToOnnx } from "../model/graph/to-onnx.ts";
import { bytesOf } from "../model/host-tensor.ts";
import { tokenSample } from "../model/inputs.ts";
import type { Model } from "../model/model.ts";
import { openModel } from "../model/sources/open.ts";
import { loadWeights } from "../model/weights.ts";

const { values: options } = parseArgs({
  options: {
    model: { type: "string" },
    sequences: { type: "string", default: "16" },
    length: { type: "string", default: "512" },
    threads: { type: "string", default: "2" },
    repeats: { type: "string", default: "3" },
    "batch-tokens": { type: "string", default: "1024" },
    statistics: { type: "string", default: "absmax" },
    role: { type: "string", default: "compare" },
  },
});
const length = Number(options.length);
const sequences = Number(options.sequences);
const threads = Number(options.threads);
const batchTokens = Number(options["batch-tokens"]);
const tokens = sequences * length;

interface Measurement {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly peakMegabytes: number;
  readonly createSeconds: number;
}

const ROLES = ["calibrate", "session", "session-without-head"] as const;

if (options.role === "compare") await compare();
else console.log(JSON.stringify(await measure(options.role)));

async function compare(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "calibration-bench-"));
  try {
    const path = options.model ?? folder;
    if (options.model === undefined) await writeSyntheticModel(folder);
    const results = new Map<string, Measurement[]>(ROLES.map((role) => [role, []]));
    for (let repeat = 0; repeat < Number(options.repeats); repeat++) {
      for (const role of ROLES) results.get(role)!.push(measureInProcess(role, path));
    }
    console.log(
      `${sequences} x ${length} tokens, ${threads} threads, runs of ${batchTokens} tokens, ${options.statistics}, median of ${options.repeats}`,
    );
    for (const [role, list] of results) {
      const speed = tokens / median(list.map(({ seconds }) => seconds));
      const columns = [
        `${speed.toFixed(0)} tokens/s`,
        `${median(list.map(({ cpuSeconds }) => cpuSeconds)).toFixed(1)} CPU s`,
        `${median(list.map(({ peakMegabytes }) => peakMegabytes)).toFixed(0)} MB peak`,
        `created in ${median(list.map(({ createSeconds }) => createSeconds)).toFixed(1)} s`,
      ];
      console.log(role.padEnd(22), columns.map((column) => column.padStart(16)).join("  "));
    }
    for (const role of ROLES.slice(1)) {
      const ratio =
        median(results.get(role)!.map(({ seconds }) => seconds)) / median(results.get("calibrate")!.map(({ seconds }) => seconds));
      console.log(`calibrate / ${role}: ${ratio.toFixed(3)}`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

function measureInProcess(role: string, path: string): Measurement {
  const flags = ["--role", role, "--model", path];
  for (const name of ["sequences", "length", "threads", "batch-tokens", "statistics"] as const) flags.push(`--${name}`, options[name]);
  const child = spawnSync(process.execPath, ["--import", "tsx", fileURLToPath(import.meta.url), ...flags], { encoding: "utf8" });
  if (child.status !== 0) throw new Error(`${role} failed: ${child.stderr}`);
  return JSON.parse(child.stdout.trim().split("\n").at(-1)!) as Measurement;
}

async function measure(role: string): Promise<Measurement> {
  const created = performance.now();
  const model = await openModel(options.model!);
  const random = createRandom(7);
  const ids = Array.from({ length: sequences }, () => Array.from({ length }, () => random.below(model.facts.vocabularySize)));
  let run: () => Promise<void>;
  if (role === "calibrate") {
    const engine = await createEngine("onnxruntime", { threads });
    const samples = ids.map((list) => tokenSample(model, list));
    run = async () => {
      await calibrate(model, samples, { engine, statistics: options.statistics.split(","), batchTokens });
    };
  } else {
    const { session, output } = await createWholeSession(model, role === "session");
    run = async () => {
      const rows = Math.max(1, Math.floor(batchTokens / length));
      for (let start = 0; start < sequences; start += rows) await session.run(sessionFeeds(ids.slice(start, start + rows)), [output]);
    };
  }
  const createSeconds = (performance.now() - created) / 1000;
  const cpu = process.cpuUsage();
  const start = performance.now();
  await run();
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { seconds, cpuSeconds: (user + system) / 1e6, peakMegabytes: process.resourceUsage().maxRSS / 1024, createSeconds };
}

function sessionFeeds(batch: readonly (readonly number[])[]): Record<string, OrtTensor> {
  const dims = [batch.length, length];
  const positions = batch.flatMap((list) => list.map((_, i) => BigInt(i)));
  return {
    input_ids: new OrtTensor("int64", BigInt64Array.from(batch.flat(), BigInt), dims),
    position_ids: new OrtTensor("int64", BigInt64Array.from(positions), dims),
  };
}

/** All blocks in one graph, weights as initializers. */
async function createWholeSession(model: Model, withHead: boolean): Promise<{ session: InferenceSession; output: string }> {
  const nodes: GraphNode[] = [];
  const constants = new Map<string, Tensor>();
  const carried = new Map(model.inputs.map(({ name }) => [name, name]));
  const blocks = withHead ? model.blocks : model.blocks.filter(({ role }) => role !== "epilogue");
  for (const [index, block] of blocks.entries()) {
    const { graph, reads, writes } = block;
    const rename = (name: string): string =>
      name === "" ? "" : Object.hasOwn(reads, name) ? carried.get(reads[name]!)! : `${index}/${name}`;
    for (const [name, tensor] of graph.constants) constants.set(rename(name), tensor);
    for (const [name, weight] of await loadWeights(block)) {
      constants.set(rename(name), { dtype: weight.dtype, shape: weight.shape, bytes: bytesOf(weight) });
    }
    for (const node of graph.nodes) {
      nodes.push({ ...node, name: `${index}/${node.name}`, inputs: node.inputs.map(rename), outputs: node.outputs.map(rename) });
    }
    for (const [output, name] of Object.entries(writes)) carried.set(name, rename(output));
  }
  const output = carried.get(withHead ? model.outputs[0]! : "hidden")!;
  const graph: Graph = {
    name: "whole",
    inputs: model.inputs,
    weights: [],
    constants,
    nodes,
    outputs: [output],
    opsets: model.blocks[0]!.graph.opsets,
  };
  const bytes = encodeOnnxModel(graphToOnnx(graph));
  const session = await InferenceSession.create(bytes, { intraOpNumThreads: threads, interOpNumThreads: 1, graphOptimizationLevel: "all" });
  return { session, output };
}

/** 30 layers of 576, 9 heads, 3 key-value heads, MLP 1536, vocabulary 49152, tied: 134.5 M parameters. */
async function writeSyntheticModel(folder: string): Promise<void> {
  const [hidden, mlp, layers, heads, kvHeads, vocabulary] = [576, 1536, 30, 9, 3, 49152];
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: hidden,
    intermediate_size: mlp,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    vocab_size: vocabulary,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100000,
    tie_word_embeddings: true,
    torch_dtype: "bfloat16",
  };
  const random = createRandom(1);
  // One block of noise, read from another place for each tensor: speed does not depend on the values.
  const noise = fromFloat32(
    Float32Array.from({ length: 2 ** 20 }, () => random.normal() * 0.03),
    [2 ** 20],
    "BF16",
  ).bytes;
  const weight = (...shape: number[]): Tensor => {
    const bytes = new Uint8Array(2 * shape.reduce((a, b) => a * b, 1));
    for (let offset = 0, from = 2 * random.below(2 ** 19); offset < bytes.length; from = 0) {
      const piece = noise.subarray(from, from + bytes.length - offset);
      bytes.set(piece, offset);
      offset += piece.length;
    }
    return { dtype: "BF16", shape, bytes };
  };
  const ones = (size: number): Tensor => fromFloat32(new Float32Array(size).fill(1), [size], "BF16");
  const tensors = new Map<string, Tensor>([
    ["model.embed_tokens.weight", weight(vocabulary, hidden)],
    ["model.norm.weight", ones(hidden)],
  ]);
  for (let i = 0; i < layers; i++) {
    const add = (name: string, tensor: Tensor): unknown => tensors.set(`model.layers.${i}.${name}.weight`, tensor);
    add("input_layernorm", ones(hidden));
    add("post_attention_layernorm", ones(hidden));
    add("self_attn.q_proj", weight(hidden, hidden));
    add("self_attn.k_proj", weight((hidden / heads) * kvHeads, hidden));
    add("self_attn.v_proj", weight((hidden / heads) * kvHeads, hidden));
    add("self_attn.o_proj", weight(hidden, hidden));
    add("mlp.gate_proj", weight(mlp, hidden));
    add("mlp.up_proj", weight(mlp, hidden));
    add("mlp.down_proj", weight(hidden, mlp));
  }
  await writeSafetensors(join(folder, "model.safetensors"), tensors, { format: "pt" });
  writeFileSync(join(folder, "config.json"), JSON.stringify(config, undefined, 2));
}
