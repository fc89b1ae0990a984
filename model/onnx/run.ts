/**
 * Runs a model that was read from an ONNX file on named tensors, as they are: no batch axis is assumed.
 * @module
 */
import type { Tensor } from "../../core/tensor.ts";
import { completeInputs } from "../complete-inputs.ts";
import type { CompiledGraph, Engine, Values } from "../engines/engine.ts";
import { bytesOf } from "../host-tensor.ts";
import { matchInputs } from "../match-inputs.ts";
import type { Model } from "../model.ts";

/**
 * Feeds of an ONNX model from named tensors; what follows from `input_ids` is filled in.
 *
 * @throws {InputError} as `matchInputs`.
 */
export function onnxFeeds(model: Model, inputs: ReadonlyMap<string, Tensor>): Values {
  return matchInputs(completeInputs(inputs, model.inputs), model.inputs);
}

/** Run once. @throws as {@link onnxFeeds}, and what the engine throws. */
export async function runOnnx(model: Model, inputs: ReadonlyMap<string, Tensor>, engine: Engine): Promise<Map<string, Tensor>> {
  const feeds = onnxFeeds(model, inputs);
  const graph = await engine.compile(model.blocks[0]!.graph);
  try {
    return outputsOf(model, await graph.run(feeds));
  } finally {
    await graph.release();
  }
}

function outputsOf(model: Model, values: Values): Map<string, Tensor> {
  return new Map(
    model.outputs.map((name) => {
      const value = values[name]!;
      return [name, { dtype: value.dtype, shape: value.shape, bytes: bytesOf(value).slice() }];
    }),
  );
}

/** A model's compiled graph, for as long as `work` takes. */
export async function withCompiled<Result>(
  engine: Engine,
  models: readonly Model[],
  work: (graphs: readonly CompiledGraph[]) => Promise<Result>,
) {
  const graphs: CompiledGraph[] = [];
  try {
    for (const model of models) graphs.push(await engine.compile(model.blocks[0]!.graph));
    return await work(graphs);
  } finally {
    for (const graph of graphs) await graph.release();
  }
}
