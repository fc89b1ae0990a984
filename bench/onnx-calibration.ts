/**
 * Calibrating an ONNX model beside plainly running it on the same samples, in one process.
 *
 *   npx tsx bench/onnx-calibration.ts model.onnx inputs.npz [samples]
 */
import { createEngine } from "../model/engines/index.ts";
import { findOnnxSites } from "../model/onnx/sites.ts";
import { openOnnxModel } from "../model/sources/onnx.ts";
import { observeOnnx } from "../quantize/onnx/observe.ts";
import { inputChannels } from "../quantize/onnx/smooth.ts";
import { loadOnnxSamples } from "../quantize/onnx/samples.ts";

const [path, data, count] = process.argv.slice(2);
if (path === undefined || data === undefined) throw new Error("usage: npx tsx bench/onnx-calibration.ts model.onnx inputs.npz [samples]");
const engine = await createEngine("onnxruntime", { threads: 2 });
const source = await openOnnxModel(path);
const { model } = source.blocks[0]!.graph.whole!;
const samples = await loadOnnxSamples(source, [data], count === undefined ? {} : { samples: Number(count) });
const inputs = new Map(
  findOnnxSites(model).flatMap((site) => (site.kind === "linear" && site.observable ? [[site.input, inputChannels(site)] as const] : [])),
);

async function plain(): Promise<void> {
  const compiled = await engine.compile(source.blocks[0]!.graph);
  for await (const { inputs: feeds } of samples.runs()) await compiled.run(feeds);
  await compiled.release();
}

const calibrations: readonly [string, () => Promise<unknown>][] = [false, true].map((histogram) => [
  histogram ? "histograms" : "extrema by channel",
  () =>
    observeOnnx(
      model,
      samples,
      [...inputs].map(([value, channels]) => ({ value, histogram, ...(!histogram && { channels }) })),
      { engine },
    ),
]);

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const before = performance.now();
  await work();
  return (performance.now() - before) / 1000;
}

for (const work of [plain, ...calibrations.map(([, run]) => run)]) await work();
for (let round = 0; round < 3; round++) {
  const alone = await seconds(plain);
  for (const [name, run] of calibrations) {
    const taken = await seconds(run);
    console.log(`${name}: plain run ${alone.toFixed(2)} s, calibration ${taken.toFixed(2)} s, ratio ${(alone / taken).toFixed(2)}`);
  }
}
await engine.close();
