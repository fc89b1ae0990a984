// A statistic of one's own: the share of activations beyond six standard deviations, at every linear layer.
import { calibrate, createEngine, loadTokenizer, openModel, tensorOf, tokenSample, type Statistic } from "bitwright";

interface Tails {
  readonly count: number;
  readonly beyond: number;
}

const tails: Statistic<Tails> = {
  name: "tails",
  summary: "share of activations beyond six standard deviations of their batch",
  create: () => ({ count: 0, beyond: 0 }),
  update: (state, parts) => {
    const values = parts.flatMap(({ data }) => Array.from(data as Float32Array));
    const deviation = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
    return { count: state.count + values.length, beyond: state.beyond + values.filter((x) => Math.abs(x) > 6 * deviation).length };
  },
  merge: (a, b) => ({ count: a.count + b.count, beyond: a.beyond + b.beyond }),
  finish: ({ count, beyond }) => ({ "": tensorOf(Float32Array.of(beyond / count), [1]) }),
};

const directory = "fixtures/models/tiny-llama";
const model = await openModel(directory);
const tokenizer = await loadTokenizer(directory);
const engine = await createEngine("auto");
const text = "In the beginning God created the heaven and the earth. And the earth was without form, and void.";
const calibration = await calibrate(model, [tokenSample(model, tokenizer.encode(text))], { statistics: [tails], engine });
for (const [name, tensor] of calibration.tensors) {
  const share = new DataView(tensor.bytes.buffer, tensor.bytes.byteOffset).getFloat32(0, true);
  if (name.includes("layers.0.")) console.log(`${name}: ${(100 * share).toFixed(2)} %`);
}
await engine.close();
