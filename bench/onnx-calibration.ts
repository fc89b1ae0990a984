/**
 * Calibrating an ONNX model beside plainly running it on the same samples, in one process and with the same threads.
 *
 *   npx tsx bench/onnx-calibration.ts model.onnx inputs.npz [samples]
 *
 * Both open a session, read the samples and run them in the same batches; the plain run keeps nothing. Best of five rounds, one after
 * the other, in wall time. The ratio is how much of the plain run's speed calibration has; the one behind it leaves the opening of the
 * plain run's session out, as if it were open already.
 */
import { createEngine } from "../model/engines/index.ts";
import type { Engine } from "../model/engines/engine.ts";
import { findOnnxSites } from "../model/onnx/sites.ts";
import { onnxToModel, openOnnxModel } from "../model/sources/onnx.ts";
import { observeOnnx, type OnnxTap } from "../quantize/onnx/observe.ts";
import { inputChannels } from "../quantize/onnx/smooth.ts";
import { loadOnnxSamples } from "../quantize/onnx/samples.ts";

const ROUNDS = 5;

const [path, data, count] = process.argv.slice(2);
if (path === undefined || data === undefined) throw new Error("usage: npx tsx bench/onnx-calibration.ts model.onnx inputs.npz [samples]");
const source = await openOnnxModel(path);
const { model } = source.blocks[0]!.graph.whole!;
const samples = await loadOnnxSamples(source, [data], count === undefined ? {} : { samples: Number(count) });
const inputs = [
  ...new Map(
    findOnnxSites(model).flatMap((site) => (site.kind === "linear" && site.observable ? [[site.input, inputChannels(site)] as const] : [])),
  ),
];
const KINDS: readonly (readonly [string, readonly OnnxTap[]])[] = [
  ["extrema", inputs.map(([value]) => ({ value, histogram: false }))],
  ["extrema by channel", inputs.map(([value, channels]) => ({ value, channels, histogram: false }))],
  ["histograms", inputs.map(([value]) => ({ value, histogram: true }))],
];

/** Runs all samples. @returns seconds with and without opening the session. */
async function plain(engine: Engine): Promise<readonly [number, number]> {
  const begun = performance.now();
  const compiled = await engine.compile(onnxToModel(model, path).blocks[0]!.graph);
  const opened = performance.now();
  for await (const { inputs: feeds } of samples.runs()) await compiled.run(feeds);
  const ended = performance.now();
  await compiled.release();
  return [(ended - begun) / 1000, (ended - opened) / 1000];
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const before = performance.now();
  await work();
  return (performance.now() - before) / 1000;
}

for (const threads of [1, 2]) {
  const engine = await createEngine("onnxruntime", { threads });
  const best = KINDS.map(() => Infinity);
  let [whole, alone] = [Infinity, Infinity];
  for (let round = 0; round < ROUNDS; round++) {
    const [withOpening, runs] = await plain(engine);
    whole = Math.min(whole, withOpening);
    alone = Math.min(alone, runs);
    for (const [i, [, taps]] of KINDS.entries()) {
      best[i] = Math.min(best[i]!, await seconds(() => observeOnnx(model, samples, taps, { engine })));
    }
  }
  await engine.close();
  for (const [i, [name]] of KINDS.entries()) {
    const taken = best[i]!;
    console.log(
      `${threads} thread${threads === 1 ? "" : "s"}, ${name}: plain run ${whole.toFixed(2)} s (${alone.toFixed(2)} s with its session open), ` +
        `calibration ${taken.toFixed(2)} s, ratio ${(whole / taken).toFixed(2)} (${(alone / taken).toFixed(2)})`,
    );
  }
}
