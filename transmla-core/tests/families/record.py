"""Makes the small random model of a family, and records its logits in transformers (fp32, eager attention).

    python record.py gemma3

writes the folder beside this file: config.json, model.safetensors (bf16) and reference.safetensors (`input_ids`, `logits`);
tokenizer and generation config are those of the other folders. Written for transformers 5.24.
"""

import json
import os
import shutil
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
# The folder that tokens and tokenizer are taken from.
MODEL = "gemma2"
SMALL = {
    "vocab_size": 512,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
# What each has besides.
FAMILIES = {
    "smollm3": {
        "model_type": "smollm3",
        "num_hidden_layers": 4,
        "no_rope_layers": [1, 0, 1, 1],
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0},
        "tie_word_embeddings": True,
    },
    "granite": {
        "model_type": "granite",
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.09375,
        "residual_multiplier": 0.22,
        "logits_scaling": 0.5,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "olmo2": {
        "model_type": "olmo2",
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    },
    "phi3": {
        "model_type": "phi3",
        "head_dim": None,
        "sliding_window": 24,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    },
    "qwen3-moe": {
        "model_type": "qwen3_moe",
        "num_hidden_layers": 4,
        "mlp_only_layers": [1],
        "moe_intermediate_size": 40,
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "qwen2-moe": {
        "model_type": "qwen2_moe",
        "decoder_sparse_step": 2,
        "moe_intermediate_size": 40,
        "shared_expert_intermediate_size": 72,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": 24,
        "sliding_window": 24,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
}


def distribution(name, parameter, from_one):
    """Weights that make every part matter: near where training leaves norms, and of a size that keeps activations theirs."""
    noise = torch.randn(parameter.shape)
    if parameter.dim() == 1:
        return 0.1 * noise + (0.0 if from_one or name.endswith(".bias") else 1.0)
    return noise * parameter.shape[-1] ** -0.5


def main(family):
    torch.manual_seed(20)
    keys = {key: value for key, value in {**SMALL, **FAMILIES[family]}.items() if key != "head_dim" or value}
    config = AutoConfig.for_model(keys.pop("model_type"), **keys)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    from_one = config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(distribution(name, parameter, from_one).to(torch.bfloat16).float())
    folder, other = os.path.join(HERE, family), os.path.join(HERE, MODEL)
    os.makedirs(folder, exist_ok=True)
    with safe_open(os.path.join(other, "reference.safetensors"), "pt") as file:
        ids = file.get_tensor("input_ids")
    with torch.no_grad():
        logits = model(ids.long(), use_cache=False).logits
    print(f"{family}: logits {list(logits.shape)}, largest {logits.abs().max():.2f}, spread {logits.std():.2f}")
    save_file({"input_ids": ids, "logits": logits.contiguous()}, os.path.join(folder, "reference.safetensors"))
    stored = {name: value.to(torch.bfloat16).contiguous() for name, value in model.named_parameters()}
    # transformers holds the experts of a layer in one tensor and publishes them apart.
    for name in [name for name in stored if ".mlp.experts." in name]:
        module, matrix = name.rsplit(".", 1)
        for index, value in enumerate(stored.pop(name)):
            parts = zip(("gate_proj", "up_proj"), value.chunk(2)) if matrix == "gate_up_proj" else [(matrix, value)]
            stored.update({f"{module}.{index}.{part}.weight": rows.clone() for part, rows in parts})
    save_file(stored, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    config.dtype = "bfloat16"
    config.architectures = [type(model).__name__]
    written = config.to_dict()
    for key in ("_name_or_path", "chunk_size_feed_forward", "id2label", "label2id", "problem_type", "return_dict"):
        written.pop(key, None)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(written, file, indent=2, sort_keys=True)
        file.write("\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(os.path.join(other, name), folder)


main(sys.argv[1])
