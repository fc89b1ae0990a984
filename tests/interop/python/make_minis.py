"""Random two- and three-layer models of every architecture, in shapes and options that the fixtures do not have, with golden outputs.

    python make_minis.py --out <folder outside the repository> [--only name,name]

Each variant becomes a directory laid out as those in fixtures/models/minis: config.json and model.safetensors as transformers writes
them, config.hub-v4.json where transformers 4 can describe the same model (checked here to give the same logits), golden.json
(token ids) and golden.safetensors (float32 logits of the stored weights, eager attention). Needs the packages of requirements.txt.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

BASE = dict(vocab_size=90, num_hidden_layers=2, max_position_embeddings=256)
DENSE = dict(BASE, hidden_size=40, intermediate_size=72, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}


def default_rope(theta: float) -> dict:
    return {"rope_type": "default", "rope_theta": theta}


def gemma3_rope(full: dict, local: float) -> dict:
    return {"full_attention": full, "sliding_attention": default_rope(local)}


# name, family, configuration, further settings: dtype, drop (configuration keys removed from the file), hub (tensor names as old
# repositories have them), v4=False (transformers 4 has no words for it), v4 (keys that transformers 4 needs besides)
VARIANTS = [
    ("llama-mqa-no-head-dim", "llama", dict(DENSE, hidden_size=40, num_attention_heads=5, num_key_value_heads=1, mlp_bias=True), dict(drop=["head_dim"])),
    ("llama-one-head", "llama", dict(DENSE, hidden_size=24, num_attention_heads=1, num_key_value_heads=1, vocab_size=131, rms_norm_eps=1e-3), {}),
    ("llama-seven-heads-wide", "llama", dict(DENSE, hidden_size=56, num_attention_heads=7, num_key_value_heads=7, head_dim=20, attention_bias=True, mlp_bias=True), {}),
    ("llama-dynamic", "llama", dict(DENSE, max_position_embeddings=32, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}), {}),
    ("llama-dynamic-short", "llama", dict(DENSE, max_position_embeddings=64, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}), {}),
    ("llama-yarn", "llama", dict(DENSE, rope_parameters=YARN), {}),
    ("llama-yarn-betas", "llama", dict(DENSE, head_dim=32, rope_parameters=dict(YARN, beta_fast=16.0, beta_slow=2.0, attention_factor=0.9)), {}),
    ("llama-yarn-mscale", "llama", dict(DENSE, head_dim=32, rope_parameters=dict(YARN, mscale=0.8, mscale_all_dim=1.0, truncate=False)), {}),
    ("llama-longrope", "llama", dict(DENSE, head_dim=8, rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "factor": 8.0,
        "original_max_position_embeddings": 32, "short_factor": [1.0, 1.1, 1.4, 2.0], "long_factor": [1.0, 2.0, 4.0, 7.0]}), dict(v4=False)),
    ("llama-llama3-tied", "llama", dict(DENSE, head_dim=24, tie_word_embeddings=True, rope_parameters={"rope_type": "llama3", "rope_theta": 300000.0,
        "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0, "original_max_position_embeddings": 48}), dict(dtype="float16")),
    ("llama-linear", "llama", dict(DENSE, rope_parameters={"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.5}), {}),
    ("llama-gelu", "llama", dict(DENSE, hidden_act="gelu"), dict(dtype="float32")),
    ("llama-gelu-new", "llama", dict(DENSE, hidden_act="gelu_new"), dict(dtype="float32")),
    ("llama-relu-old-buffers", "llama", dict(DENSE, hidden_act="relu"), dict(hub="llama-buffers")),
    ("llama-tied-stored-head", "llama", dict(DENSE, tie_word_embeddings=True), dict(hub="stored-head")),
    ("mistral-no-window", "mistral", dict(DENSE, sliding_window=None, head_dim=12), {}),
    ("mistral-window-5", "mistral", dict(DENSE, hidden_size=30, num_attention_heads=3, num_key_value_heads=3, sliding_window=5, tie_word_embeddings=True), dict(drop=["head_dim"])),
    ("mistral-yarn", "mistral", dict(DENSE, sliding_window=None, rope_parameters=YARN), {}),
    ("mixtral-eight-three", "mixtral", dict(DENSE, num_local_experts=8, num_experts_per_tok=3, sliding_window=9), {}),
    ("mixtral-two-one", "mixtral", dict(DENSE, num_local_experts=2, num_experts_per_tok=1, sliding_window=None, head_dim=16), {}),
    ("mixtral-all-experts", "mixtral", dict(DENSE, num_local_experts=3, num_experts_per_tok=3, sliding_window=None, tie_word_embeddings=True), {}),
    ("qwen2-mqa-untied", "qwen2", dict(DENSE, num_key_value_heads=1, use_sliding_window=False), {}),
    ("qwen2-window-upper", "qwen2", dict(DENSE, num_hidden_layers=3, use_sliding_window=True, sliding_window=11, max_window_layers=1), dict(v4=dict(use_sliding_window=True, max_window_layers=1))),
    ("qwen2-yarn", "qwen2", dict(DENSE, tie_word_embeddings=True, rope_parameters=YARN), {}),
    ("qwen3-bias-odd", "qwen3", dict(DENSE, num_attention_heads=3, num_key_value_heads=3, head_dim=24, attention_bias=True), {}),
    ("qwen3-window", "qwen3", dict(DENSE, head_dim=8, use_sliding_window=True, sliding_window=7, max_window_layers=0, rms_norm_eps=1e-5), {}),
    ("qwen3-yarn-tied", "qwen3", dict(DENSE, head_dim=16, tie_word_embeddings=True, rope_parameters=YARN), dict(dtype="float32")),
    ("qwen3-moe-not-normalised", "qwen3-moe", dict(DENSE, moe_intermediate_size=28, head_dim=16, num_experts=5, num_experts_per_tok=2, norm_topk_prob=False), {}),
    ("qwen3-moe-step-2", "qwen3-moe", dict(DENSE, num_hidden_layers=3, moe_intermediate_size=28, head_dim=12, num_experts=9, num_experts_per_tok=4, decoder_sparse_step=2,
        norm_topk_prob=True, attention_bias=True), {}),
    ("qwen3-moe-top-1", "qwen3-moe", dict(DENSE, moe_intermediate_size=36, head_dim=16, num_experts=4, num_experts_per_tok=1, norm_topk_prob=False, tie_word_embeddings=True), {}),
    ("gemma2-no-caps", "gemma2", dict(DENSE, head_dim=8, sliding_window=10, query_pre_attn_scalar=16, attn_logit_softcapping=None, final_logit_softcapping=None, tie_word_embeddings=True), {}),
    ("gemma2-three-layers", "gemma2", dict(DENSE, hidden_size=42, hidden_activation="gelu", num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1, head_dim=20, sliding_window=6, query_pre_attn_scalar=31,
        attn_logit_softcapping=9.0, final_logit_softcapping=5.0, tie_word_embeddings=True), {}),
    ("gemma2-own-layer-types", "gemma2", dict(DENSE, num_hidden_layers=3, head_dim=16, sliding_window=8, query_pre_attn_scalar=16, attn_logit_softcapping=5.0,
        final_logit_softcapping=None, tie_word_embeddings=True, attention_bias=True, layer_types=["full_attention", "sliding_attention", "sliding_attention"]), dict(v4=False)),
    ("gemma3-pattern-3", "gemma3", dict(DENSE, num_hidden_layers=4, head_dim=12, sliding_window=9, query_pre_attn_scalar=12, tie_word_embeddings=True,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=gemma3_rope(default_rope(1000000.0), 20000.0)), {}),
    ("gemma3-default-pattern", "gemma3", dict(DENSE, num_hidden_layers=7, head_dim=8, sliding_window=6, query_pre_attn_scalar=10, tie_word_embeddings=True), {}),
    ("gemma3-caps-mqa", "gemma3", dict(DENSE, hidden_size=42, num_attention_heads=3, num_key_value_heads=1, head_dim=20, sliding_window=16, query_pre_attn_scalar=20, tie_word_embeddings=True,
        attn_logit_softcapping=3.0, final_logit_softcapping=4.0, layer_types=["sliding_attention", "full_attention"],
        rope_parameters=gemma3_rope({"rope_type": "linear", "rope_theta": 500000.0, "factor": 3.0}, 10000.0)), {}),
    ("phi3-plain", "phi3", dict(DENSE, hidden_size=48, pad_token_id=0, sliding_window=None), {}),
    ("phi3-window-tied", "phi3", dict(DENSE, hidden_size=36, num_attention_heads=3, num_key_value_heads=1, pad_token_id=0, sliding_window=12, tie_word_embeddings=True), {}),
    ("phi3-longrope-su", "phi3", dict(DENSE, hidden_size=48, num_attention_heads=3, num_key_value_heads=3, pad_token_id=0, sliding_window=None, max_position_embeddings=128,
        original_max_position_embeddings=32, rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 32, "partial_rotary_factor": 0.5,
        "short_factor": [1.0, 1.0, 1.2, 1.5], "long_factor": [1.0, 1.5, 3.0, 4.0]}), {}),
    ("gpt2-default-inner", "gpt2", dict(vocab_size=70, n_embd=24, n_layer=2, n_head=3, n_positions=64), {}),
    ("gpt2-odd-inner", "gpt2", dict(vocab_size=70, n_embd=30, n_layer=3, n_head=5, n_inner=70, n_positions=48, activation_function="gelu", layer_norm_epsilon=1e-3), dict(dtype="bfloat16")),
    ("gpt2-scaling", "gpt2", dict(vocab_size=70, n_embd=32, n_layer=3, n_head=4, n_positions=64, scale_attn_by_inverse_layer_idx=True, activation_function="relu"), {}),
    ("gpt2-unscaled-untied", "gpt2", dict(vocab_size=70, n_embd=32, n_layer=2, n_head=4, n_positions=64, scale_attn_weights=False, tie_word_embeddings=False), {}),
    ("gpt2-hub-names", "gpt2", dict(vocab_size=70, n_embd=32, n_layer=2, n_head=4, n_positions=64), dict(hub="gpt2")),
    ("opt-gelu-three-heads", "opt", dict(BASE, hidden_size=36, word_embed_proj_dim=36, ffn_dim=60, num_attention_heads=3, activation_function="gelu"), dict(dtype="float16")),
    ("opt-project-pre-norm", "opt", dict(BASE, hidden_size=40, word_embed_proj_dim=20, ffn_dim=64, num_attention_heads=4, do_layer_norm_before=True), dict(dtype="float16")),
    ("opt-350m-style", "opt", dict(BASE, num_hidden_layers=3, hidden_size=40, word_embed_proj_dim=16, ffn_dim=64, num_attention_heads=5, do_layer_norm_before=False), dict(dtype="float16")),
    ("opt-no-bias", "opt", dict(BASE, hidden_size=40, word_embed_proj_dim=40, ffn_dim=64, num_attention_heads=4, enable_bias=False), {}),
    ("opt-no-affine", "opt", dict(BASE, hidden_size=40, word_embed_proj_dim=40, ffn_dim=64, num_attention_heads=4, layer_norm_elementwise_affine=False), {}),
    ("opt-no-final-norm", "opt", dict(BASE, hidden_size=40, word_embed_proj_dim=40, ffn_dim=64, num_attention_heads=4, _remove_final_layer_norm=True), {}),
    ("bert-relu-three-types", "bert", dict(BASE, hidden_size=36, intermediate_size=50, num_attention_heads=3, num_hidden_layers=3, type_vocab_size=3, hidden_act="relu"), {}),
    ("bert-gelu-new-f16", "bert", dict(BASE, hidden_size=40, intermediate_size=64, num_attention_heads=5, type_vocab_size=2, hidden_act="gelu_new", layer_norm_eps=1e-6), dict(dtype="float16")),
    ("bert-hub-gamma-beta", "bert", dict(BASE, hidden_size=32, intermediate_size=64, num_attention_heads=4, type_vocab_size=2), dict(hub="bert")),
]

CLASSES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "mistral": ("MistralConfig", "MistralForCausalLM"),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
    "qwen3-moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM"),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    "phi3": ("Phi3Config", "Phi3ForCausalLM"),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel"),
    "opt": ("OPTConfig", "OPTForCausalLM"),
    "bert": ("BertConfig", "BertModel"),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED = {"gpt2": "float32", "bert": "float32"}
ZERO_CENTRED_NORMS = ("gemma2", "gemma3")


def draw_weights(model, family: str, seed: int, tied: bool) -> None:
    """Weights large enough that every option changes the logits visibly."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            centre = 1.0 if name.endswith("weight") and family not in ZERO_CENTRED_NORMS else 0.0
            value = 0.25 * noise + centre
        elif "embed" in name.lower() or ".wte" in name or ".wpe" in name:
            value = noise * (0.35 if tied else 0.8)
        else:
            sharp = 2.0 if "lm_head" in name or name.endswith("gate.weight") else 1.25
            value = noise * sharp / parameter.shape[-1] ** 0.5
        parameter.data.copy_(value)


def v4_config(config: dict, extra: dict) -> dict:
    """The same configuration in the words of transformers 4."""
    new = ("rope_parameters", "dtype", "transformers_version", "layer_types", "_sliding_window_pattern")
    out = {key: value for key, value in config.items() if key not in new}
    out["torch_dtype"], out["transformers_version"] = config["dtype"], "4.51.0"
    rope = config.get("rope_parameters")
    if rope and "full_attention" in rope:
        out["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
        out["sliding_window_pattern"] = config["layer_types"].index("full_attention") + 1
    if rope:
        scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
        out["rope_theta"] = rope["rope_theta"]
        if "partial_rotary_factor" in rope:
            out["partial_rotary_factor"] = rope["partial_rotary_factor"]
        if scaling["rope_type"] == "longrope":
            out["original_max_position_embeddings"] = scaling.pop("original_max_position_embeddings")
            scaling["type"] = scaling.pop("rope_type")
        out["rope_scaling"] = None if scaling.get("rope_type") == "default" else scaling
    return dict(sorted((out | extra).items()))


def hub_names(kind: str, tensors: dict, config) -> dict:
    """Tensor names and buffers as repositories made long ago carry them."""
    if kind == "llama-buffers":
        half = config.hidden_size // config.num_attention_heads // 2
        frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
        return tensors | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": frequencies.clone() for i in range(config.num_hidden_layers)}
    if kind == "stored-head":
        return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    if kind == "gpt2":
        out = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        causal = torch.tril(torch.ones(config.n_positions, config.n_positions)).reshape(1, 1, config.n_positions, config.n_positions)
        return out | {f"h.{i}.attn.bias": causal.clone() for i in range(config.n_layer)}
    if kind == "bert":
        rename = lambda name: "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        head = {"cls.predictions.bias": torch.zeros(config.vocab_size), "cls.seq_relationship.bias": torch.zeros(2)}
        positions = {"bert.embeddings.position_ids": torch.arange(config.max_position_embeddings)[None]}
        return {rename(name): tensor for name, tensor in tensors.items()} | head | positions
    raise ValueError(kind)


@torch.no_grad()
def forward(model, ids, extra: dict) -> tuple[dict, float]:
    """Outputs, and the smallest distance in probability between the last expert chosen and the first refused."""
    gaps = [1.0]

    def gate(module, arguments, output):
        chosen = model.config.num_experts_per_tok
        logits = output[0] if isinstance(output, tuple) else output
        top = logits.softmax(-1).sort(-1, descending=True).values
        if chosen < top.shape[-1]:
            gaps.append(float((top[:, chosen - 1] - top[:, chosen]).min()))

    hooks = [m.register_forward_hook(gate) for name, m in model.named_modules() if name.endswith((".mlp.gate", "block_sparse_moe.gate"))]
    out = model(torch.tensor(ids)[None], **{key: torch.tensor(value)[None] for key, value in extra.items()})
    for hook in hooks:
        hook.remove()
    keys = ("last_hidden_state", "pooler_output") if hasattr(out, "pooler_output") else ("logits",)
    return {key: out[key][0].float().contiguous() for key in keys}, min(gaps)


def prompts_of(model, family: str, vocabulary: int, seed: int, longest: int) -> dict:
    """Two prompts; for experts, ones where no choice is a near tie (float32 noise could turn it)."""
    best, best_gap = {}, -1.0
    for attempt in range(200):
        generator = torch.Generator().manual_seed(seed + 1000 * attempt)
        drawn = {}
        for name, length in (("a", min(48, longest)), ("b", 19)):
            drawn[name] = {"ids": torch.randint(2, vocabulary, (length,), generator=generator).tolist()}
            if family == "bert":
                types = model.config.type_vocab_size
                drawn[name]["token_type_ids"] = [i * types // length for i in range(length)]
                drawn[name]["attention_mask"] = [int(i < length - (5 if name == "a" else 0)) for i in range(length)]
        gap = min(forward(model, p["ids"], {k: v for k, v in p.items() if k != "ids"})[1] for p in drawn.values())
        if gap > best_gap:
            best, best_gap = drawn, gap
        if best_gap > 1e-3:
            break
    return best


def build(root: Path, seed: int, name: str, family: str, settings: dict, more: dict) -> str:
    directory = root / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config_class, model_class = (getattr(transformers, which) for which in CLASSES[family])
    config = config_class(**settings)
    model = model_class(config).eval()
    draw_weights(model, family, seed, bool(getattr(config, "tie_word_embeddings", False)) and family != "bert")
    model.tie_weights()
    model.to(DTYPES[more.get("dtype", STORED.get(family, "bfloat16"))])
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    config_path, weights_path = directory / "config.json", directory / "model.safetensors"
    written = json.loads(config_path.read_text())
    for key in more.get("drop", []):
        written.pop(key, None)
    config_path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    load = lambda path: model_class.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    model = load(directory)
    longest = getattr(config, "max_position_embeddings", 48)
    prompts = prompts_of(model, family, config.vocab_size, seed, 48 if "dynamic" in name else longest)
    run = lambda m: {f"{p}.{key}": value for p, fields in prompts.items()
                     for key, value in forward(m, fields["ids"], {k: v for k, v in fields.items() if k != "ids"})[0].items()}
    if "dynamic" in name:  # dynamic scaling keeps state between calls: each prompt starts from a fresh model
        golden = {}
        for p, fields in prompts.items():
            golden |= {f"{p}.{k}": v for k, v in forward(load(directory), fields["ids"], {})[0].items()}
    else:
        golden = run(model)
    notes = []
    if "hub" in more:
        save_file(hub_names(more["hub"], load_file(weights_path), config), weights_path, metadata={"format": "pt"})
        again = run(load(directory))
        notes.append(f"old tensor names: transformers differs by {max(float((again[k] - golden[k]).abs().max()) for k in golden)}")
    if "rope_parameters" in written and more.get("v4", {}) is not False:
        old = v4_config(written, more.get("v4", {}))
        with tempfile.TemporaryDirectory() as temporary:
            shutil.copy(weights_path, temporary)
            (Path(temporary) / "config.json").write_text(json.dumps(old))
            outcome = {f"{p}.{k}": v for p, fields in prompts.items() for k, v in forward(load(temporary), fields["ids"], {})[0].items()}
        difference = max(float((outcome[k] - golden[k]).abs().max()) for k in golden)
        if difference == 0:
            (directory / "config.hub-v4.json").write_text(json.dumps(old, indent=2) + "\n")
        else:
            notes.append(f"transformers reads the older spelling differently ({difference:.3g}): left out")
    save_file(golden, directory / "golden.safetensors")
    (directory / "golden.json").write_text(json.dumps({"case": name, "family": family, "transformers": transformers.__version__, "notes": notes, "prompts": prompts}, indent=1) + "\n")
    return f"{name}: {weights_path.stat().st_size} bytes, |out| max {max(float(v.abs().max()) for v in golden.values()):.2f} {'; '.join(notes)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    only = set(filter(None, arguments.only.split(",")))
    failed = 0
    for index, (name, family, settings, more) in enumerate(VARIANTS):
        if only and name not in only:
            continue
        try:
            print(build(arguments.out, 7000 + index, name, family, settings, more), flush=True)
        except Exception as error:  # one variant that this transformers cannot build must not hide the others
            shutil.rmtree(arguments.out / name, ignore_errors=True)
            failed += 1
            print(f"{name}: NOT BUILT: {type(error).__name__}: {error}", flush=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
