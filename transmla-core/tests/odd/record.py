"""Records what transformers makes of every case of table.json, and the defaults of its configuration classes.

    python record.py

writes recorded.safetensors, `input_ids` and the logits of some positions for each case that transformers runs, and
defaults.json. Weights follow from tensor names alone (`weights` here and in fixture.rs), so no checkpoint is stored.
Written for transformers 5.24.
"""

import json
import os
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
POSITIONS = [7, 15, 23, 31, 39]
transformers.logging.set_verbosity_error()


class MiMoConfig(Qwen2Config):
    """MiMo without its layers for further tokens is Qwen2."""

    model_type = "mimo"


class MiMoForCausalLM(Qwen2ForCausalLM):
    config_class = MiMoConfig


AutoConfig.register("mimo", MiMoConfig)
AutoModelForCausalLM.register(MiMoConfig, MiMoForCausalLM)
_made = {}


def weights(name, shape):
    key = (name, tuple(shape))
    if key not in _made:
        state = 0xCBF29CE484222325
        for byte in name.encode():
            state = ((state ^ byte) * 0x100000001B3) % 2**64
        centre = np.float32(1.0 if "norm" in name else 0.0)
        values = np.empty(int(np.prod(shape)), np.float32)
        for index in range(len(values)):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            unit = np.float32(state >> 40) / np.float32(2**24) - np.float32(0.5)
            values[index] = centre + unit * np.float32(0.6)
        _made[key] = torch.from_numpy(values.reshape(shape))
    return _made[key]


def tensors(config):
    """Names and shapes of a checkpoint of this configuration, as published."""
    family, hidden, inner = config.model_type, config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    by_key = getattr(config, "attention_bias", False) and family in (
        "llama", "qwen3", "gemma2", "gemma3_text", "smollm3", "granite", "olmo2", "qwen3_moe"
    )
    bias = by_key or family in ("qwen2", "mimo") or (family == "qwen2_moe" and config.qkv_bias)
    out = {"model.embed_tokens.weight": [config.vocab_size, hidden], "model.norm.weight": [hidden]}
    if not config.tie_word_embeddings:
        out["lm_head.weight"] = [config.vocab_size, hidden]
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}."
        for name, rows in [("q", queries), ("k", keys), ("v", keys)]:
            out[f"{at}self_attn.{name}_proj.weight"] = [rows, hidden]
            if bias:
                out[f"{at}self_attn.{name}_proj.bias"] = [rows]
        out[f"{at}self_attn.o_proj.weight"] = [hidden, queries]
        if by_key:
            out[f"{at}self_attn.o_proj.bias"] = [hidden]
        if family in ("qwen3", "gemma3_text", "qwen3_moe"):
            for name in ("q_norm", "k_norm"):
                out[f"{at}self_attn.{name}.weight"] = [head]
        if family == "olmo2":
            out[f"{at}self_attn.q_norm.weight"] = [queries]
            out[f"{at}self_attn.k_norm.weight"] = [keys]
        norms = ["post_attention_layernorm"] + (["post_feedforward_layernorm"] if family == "olmo2" else ["input_layernorm"])
        if family.startswith("gemma"):
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for name in norms:
            out[f"{at}{name}.weight"] = [hidden]
        if family == "mixtral":
            out[f"{at}block_sparse_moe.gate.weight"] = [config.num_local_experts, hidden]
            for expert in range(config.num_local_experts):
                for name, shape in [("w1", [inner, hidden]), ("w3", [inner, hidden]), ("w2", [hidden, inner])]:
                    out[f"{at}block_sparse_moe.experts.{expert}.{name}.weight"] = shape
        elif family in ("qwen2_moe", "qwen3_moe") and (layer + 1) % config.decoder_sparse_step == 0 and layer not in config.mlp_only_layers:
            out[f"{at}mlp.gate.weight"] = [config.num_experts, hidden]
            wide = config.moe_intermediate_size
            for expert in range(config.num_experts):
                for name, shape in [("gate", [wide, hidden]), ("up", [wide, hidden]), ("down", [hidden, wide])]:
                    out[f"{at}mlp.experts.{expert}.{name}_proj.weight"] = shape
            if family == "qwen2_moe":
                wide = config.shared_expert_intermediate_size
                out[f"{at}mlp.shared_expert_gate.weight"] = [1, hidden]
                for name, shape in [("gate", [wide, hidden]), ("up", [wide, hidden]), ("down", [hidden, wide])]:
                    out[f"{at}mlp.shared_expert.{name}_proj.weight"] = shape
        else:
            for name, shape in [("gate", [inner, hidden]), ("up", [inner, hidden]), ("down", [hidden, inner])]:
                out[f"{at}mlp.{name}_proj.weight"] = shape
    return out


def fused(tensors):
    """Projections one below the other, as the class has them."""
    out = {}
    for name, value in tensors.items():
        for whole, parts in {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}.items():
            for part in parts:
                name = name.replace(f".{part}.", f".{whole}.")
        out.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in out.items()}


def run(case, bases, ids):
    raw = {k: v for k, v in bases[case["family"]].items() if k not in case.get("unset", [])}
    raw.update(case.get("set", {}))
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(raw, file)
        config = AutoConfig.from_pretrained(folder)
        there = {
            name: shape
            for name, shape in tensors(config).items()
            if not any(part in name for part in case.get("drop", []))
        }
        there.update({name: shape for name, shape in case.get("add", [])})
        # A tied model may be stored with its head alone: the same matrix by the other name.
        stored = {name: weights(name, shape).clone() for name, shape in there.items()}
        if config.model_type == "phi3":
            stored = fused(stored)
        save_file(stored, f"{folder}/model.safetensors")
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        missing = [name for name in report["missing_keys"] if not name.endswith(".bias")]
        if missing:
            raise ValueError(f"started at random: {missing}")
        with torch.no_grad():
            return model.eval()(ids, use_cache=False).logits[0, POSITIONS].contiguous()


def main():
    with open(os.path.join(HERE, "table.json")) as file:
        table = json.load(file)
    ids = torch.from_numpy((np.arange(40) * 17 % 37 + 3).astype(np.int64))[None]
    recorded = {"input_ids": ids, "positions": torch.tensor(POSITIONS)}
    for case in table["cases"]:
        expects = "refused" if "says" in case else "like" if "like" in case else "logits"
        try:
            logits = run(case, table["bases"], ids)
            found = f"runs, largest {logits.abs().max():.3f}"
            if expects == "logits":
                recorded[case["name"]] = logits
            elif expects == "like":
                found += f", {(logits - recorded[case['like']]).abs().max():.1e} from {case['like']}"
        except Exception as error:
            said = str(error).splitlines() or [""]
            found = f"{type(error).__name__}: {said[0][:110]}"
            if expects == "logits":
                found = "UNEXPECTED " + found
        print(f"{case['name']:60} {expects:8} {found}")
    save_file(recorded, os.path.join(HERE, "recorded.safetensors"))
    keys = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
    max_position_embeddings rms_norm_eps rope_theta rope_local_base_freq sliding_window max_window_layers num_local_experts num_experts num_experts_per_tok
    moe_intermediate_size norm_topk_prob shared_expert_intermediate_size qkv_bias
    query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping bos_token_id eos_token_id tie_word_embeddings
    embedding_multiplier attention_multiplier residual_multiplier logits_scaling attention_bias hidden_act hidden_activation""".split()
    defaults = {}
    for family in table["bases"]:
        cls = type(AutoConfig.for_model(family))
        fields = {name: field.default for name, field in cls.__dataclass_fields__.items() if name in keys}
        theta = cls.default_theta
        fields["rope_theta"] = theta["global"] if isinstance(theta, dict) else theta
        if isinstance(theta, dict):
            fields["rope_local_base_freq"] = theta["local"]
        defaults[family] = {key: fields[key] for key in keys if key in fields}
    with open(os.path.join(HERE, "defaults.json"), "w") as file:
        file.write("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in defaults.items()) + "\n}\n")


main()
