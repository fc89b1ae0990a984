// What the page of transformersjs.test.ts runs: transformers.js on onnxruntime-web's WASM, models from the server that serves the page.
const { AutoModel, AutoModelForCausalLM, AutoTokenizer, Tensor, env } = await import(`${location.origin}/library/transformers.js`);

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = "/models/";
env.useBrowserCache = false;
env.backends.onnx.wasm.wasmPaths = `${location.origin}/wasm/`;

const int64 = (values) => new Tensor("int64", values.map(BigInt), [1, values.length]);

/** New ids of a greedy continuation, by dtype, and the text of the first. */
async function generate(name, prompt, counts) {
  const ids = {};
  for (const [dtype, count] of Object.entries(counts)) {
    const model = await AutoModelForCausalLM.from_pretrained(name, { dtype, device: "wasm" });
    const settings = { max_new_tokens: count, do_sample: false, eos_token_id: 99_999 };
    const output = await model.generate({ input_ids: int64(prompt), attention_mask: int64(prompt.map(() => 1)), ...settings });
    ids[dtype] = Array.from(output.data, Number).slice(prompt.length);
    await model.dispose();
  }
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  return { ids, text: tokenizer.decode(Object.values(ids)[0]) };
}

/** Last hidden states of an encoder. */
async function encode(name, ids) {
  const model = await AutoModel.from_pretrained(name, { dtype: "fp32", device: "wasm" });
  const inputs = { input_ids: int64(ids), token_type_ids: int64(ids.map(() => 0)), attention_mask: int64(ids.map(() => 1)) };
  const { last_hidden_state: states } = await model(inputs);
  await model.dispose();
  return Array.from(states.data);
}

globalThis.bitwright = { generate, encode };
