"""Heals a small random model with torch, and records what comes of it: the oracle of `torch.rs`.

    python record.py

writes the folder `torch` beside this file: `original` (a Llama), `converted` (a dense DeepSeek-V3 with the same embeddings),
`input_ids.safetensors` and `expected`: the projections of attention after a few steps of torch's AdamW on weights divided by the
size of their row and column. Written for transformers 5 and torch 2.
"""

import math
import os

import torch
from safetensors.torch import save_file
from torch.func import functional_call
from transformers import AutoConfig, AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "torch")
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ORIGINAL = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5}
CONVERTED = {
    **SMALL,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 2,
    "kv_lora_rank": 10,
    "q_lora_rank": None,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "moe_intermediate_size": 8,
    "n_routed_experts": 2,
    "n_shared_experts": 1,
    "num_experts_per_tok": 1,
    "n_group": 1,
    "topk_group": 1,
    "rms_norm_eps": 1e-6,
}
PROJECTIONS = ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
# As `torch.rs` has them.
STEPS, RATE, WARMUP, DECAY, LONGEST, KL, CE, SEED = 4, 0.02, 0.5, 0.1, 0.05, 1.0, 0.1, 42
SEQUENCES, TOKENS = 5, 12


def write(model, name):
    folder = os.path.join(FOLDER, name)
    os.makedirs(folder, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in model.named_parameters()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.to_json_file(os.path.join(folder, "config.json"))


def make(kind, keys):
    config = AutoConfig.for_model(kind, **keys)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            parameter.copy_(1 + 0.1 * noise if parameter.dim() == 1 else noise * parameter.shape[-1] ** -0.5)
    return model


def held_out(count, seed):
    """The last of a shuffle by splitmix64, as `heal::order` has it."""
    order, state, mask = list(range(count)), seed, (1 << 64) - 1
    for last in range(count - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        other = z % (last + 1)
        order[last], order[other] = order[other], order[last]
    return order[-1]


def units(weight):
    square = weight**2
    rows, columns = square.mean(1, keepdim=True), square.mean(0, keepdim=True)
    return (rows * columns / square.mean()).sqrt()


def rate(step):
    warm = max(WARMUP * STEPS, 1.0)
    if step < warm:
        return min((step + 1) / warm, 1.0)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(STEPS - warm, 1.0)))


def main():
    torch.manual_seed(3)
    original, converted = make("llama", ORIGINAL), make("deepseek_v3", CONVERTED)
    with torch.no_grad():
        converted.model.embed_tokens.weight.copy_(original.model.embed_tokens.weight)
        converted.lm_head.weight.copy_(original.lm_head.weight)
    write(original, "original")
    write(converted, "converted")
    ids = torch.randint(3, SMALL["vocab_size"], (SEQUENCES, TOKENS))
    rows = [row for row in range(SEQUENCES) if row != held_out(SEQUENCES, SEED)]
    # What picks the step is seen as well, so that the last one is picked.
    ids[held_out(SEQUENCES, SEED)] = ids[rows[0]]
    text = ids[rows]

    frozen = {name: value.detach() for name, value in converted.named_parameters()}
    trained = [name for name in frozen if any(f".{part}.weight" in name for part in PROJECTIONS)]
    sizes = {name: units(frozen[name]) for name in trained}
    moving = {name: torch.nn.Parameter(frozen[name] / sizes[name]) for name in trained}
    optimiser = torch.optim.AdamW(moving.values(), lr=RATE, betas=(0.9, 0.95), eps=1e-12, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    with torch.no_grad():
        target = original(text, use_cache=False).logits.log_softmax(-1)
    for step in range(STEPS):
        now = {name: moving[name] * sizes[name] for name in trained}
        logs = functional_call(converted, {**frozen, **now}, (text,), {"use_cache": False}).logits.log_softmax(-1)
        kl = (target.exp() * (target - logs)).sum(-1).mean()
        ce = -logs[:, :-1].gather(-1, text[:, 1:, None]).mean()
        optimiser.zero_grad()
        (KL * kl + CE * ce).backward()
        length = torch.nn.utils.clip_grad_norm_(moving.values(), LONGEST)
        print(f"step {step}: divergence {kl:.6f}, cross-entropy {ce:.6f}, gradient {length:.4f}")
        optimiser.step()
        schedule.step()
    expected = {name: (moving[name] * sizes[name]).detach().contiguous() for name in trained}
    os.makedirs(os.path.join(FOLDER, "expected"), exist_ok=True)
    save_file(expected, os.path.join(FOLDER, "expected", "model.safetensors"), metadata={"format": "pt"})
    save_file({"input_ids": ids}, os.path.join(FOLDER, "input_ids.safetensors"))


if __name__ == "__main__":
    main()
