"""Small random towers with goldens of transformers: fixtures/models/towers/clip-text, clip-vision and vit.

    python make_towers.py --out fixtures/models/towers
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection, ViTConfig, ViTForImageClassification


def randomize(model: torch.nn.Module) -> None:
    """Weights far from their start, so that every tensor matters."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if parameter.dim() > 1 else 0.1
            parameter.copy_(torch.randn_like(parameter) * spread + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def write(folder: Path, model: torch.nn.Module, goldens: dict[str, torch.Tensor], golden: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    save_file({name: value.contiguous() for name, value in goldens.items()}, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps({**golden, "transformers": transformers.__version__, "torch": torch.__version__}) + "\n")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", type=Path, required=True)
    out = arguments.parse_args().out
    torch.manual_seed(5)
    shared = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 24}
    text = CLIPTextModelWithProjection(
        CLIPTextConfig(**shared, vocab_size=96, max_position_embeddings=20, eos_token_id=95, bos_token_id=94, pad_token_id=95, attn_implementation="eager")
    ).eval()
    randomize(text)
    prompts = {"a": [94, 5, 17, 80, 3, 95], "b": [94, 41, 9, 9, 60, 22, 13, 95, 95, 95]}
    goldens = {}
    with torch.no_grad():
        for letter, ids in prompts.items():
            result = text(input_ids=torch.tensor([ids]))
            goldens[f"{letter}.text_embeds"] = result.text_embeds
            goldens[f"{letter}.last_hidden_state"] = result.last_hidden_state
    write(out / "clip-text", text, goldens, {"case": "clip-text", "prompts": {letter: {"ids": ids} for letter, ids in prompts.items()}})
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**shared, image_size=16, patch_size=4, attn_implementation="eager")).eval()
    randomize(vision)
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        result = vision(pixel_values=pixels)
    goldens = {"pixel_values": pixels, "image_embeds": result.image_embeds, "last_hidden_state": result.last_hidden_state}
    write(out / "clip-vision", vision, goldens, {"case": "clip-vision"})
    shared.pop("projection_dim")
    vit = ViTForImageClassification(ViTConfig(**shared, image_size=12, patch_size=4, num_labels=5, attn_implementation="eager")).eval()
    randomize(vit)
    pixels = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        logits = vit(pixel_values=pixels).logits
    write(out / "vit", vit, {"pixel_values": pixels, "logits": logits}, {"case": "vit"})


if __name__ == "__main__":
    main()
