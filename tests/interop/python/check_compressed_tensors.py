"""Runs an artifact in transformers + compressed-tensors and compares its logits with ours.

    python check_compressed_tensors.py <artifact directory> <our logits .safetensors> <ids.json>

ids.json: [[token ids], ...]; our file holds logits.0 [tokens, vocabulary], logits.1, ... of the same sequences. The library decompresses
the weights and quantizes the activations in its forward pass; everything else is float32. Prints one JSON line; exit 1 below the cosine asked for.

`cosine` is the lowest of all sequences, `median_cosine` their median. Rounding is a cliff: a number that lies on a tie for one order of float32
additions falls the other way for another. Where outliers leave most channels with the codes -1, 0 and 1, one such flip moves the logits of its
sequence visibly (the library, its norms moved by one unit in the last place, gives itself 0.999 to 1), so there the median of many short
sequences tells more than the lowest.
"""

import argparse
import functools
import json
import statistics
import sys
import warnings

import torch
import transformers
from compressed_tensors.compressors.nvfp4 import base as nvfp4
from safetensors.torch import load_file


def quantized_modules(model) -> dict:
    """How many linears the library itself sees as quantized, and how many quantize their inputs."""
    schemes = [m.quantization_scheme for m in model.modules() if getattr(m, "quantization_scheme", None) is not None]
    return {"weights": sum(s.weights is not None for s in schemes), "activations": sum(s.input_activations is not None for s in schemes)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact")
    parser.add_argument("logits")
    parser.add_argument("ids")
    parser.add_argument("--min-cosine", type=float, default=0.9999)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    # NVFP4 weights are unpacked to bfloat16 and scaled there; the kernels of a server do not round in between, and neither do we.
    nvfp4.unpack_fp4_from_uint8 = functools.partial(nvfp4.unpack_fp4_from_uint8, dtype=torch.float32)

    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.artifact, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    model.eval()
    sequences = json.load(open(arguments.ids))
    with torch.no_grad():
        try:
            model(torch.tensor([sequences[0][:1]]))  # the first call decompresses; some formats come out in bfloat16
        except RuntimeError:
            pass
        torch.nn.Module.float(model)

    ours = load_file(arguments.logits)
    cosines, difference, agree, positions = [], 0.0, 0, 0
    with torch.no_grad():
        for i, ids in enumerate(sequences):
            theirs = model(torch.tensor([ids]), use_cache=False).logits[0].float()
            mine = ours[f"logits.{i}"].float()
            if theirs.shape != mine.shape:
                raise SystemExit(f"logits.{i} has shape {list(mine.shape)}, transformers gives {list(theirs.shape)}")
            cosines.append(torch.cosine_similarity(theirs.double().flatten(), mine.double().flatten(), dim=0).item())
            difference = max(difference, (theirs - mine).abs().max().item())
            agree += int((theirs.argmax(-1) == mine.argmax(-1)).sum())
            positions += len(ids)
    missing = {key: sorted(map(str, loading[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if loading[key]}
    result = {
        "artifact": arguments.artifact,
        "sequences": len(sequences),
        "cosine": min(cosines),
        "median_cosine": statistics.median(cosines),
        "max_abs_difference": difference,
        "top1_agreement": agree / positions,
        "quantized": quantized_modules(model),
        "keys": missing,
        "transformers": transformers.__version__,
    }
    print(json.dumps(result))
    return 0 if min(cosines) >= arguments.min_cosine and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
