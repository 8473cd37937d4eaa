"""Latent attention with biases, normalised queries, windows and soft-caps, on vLLM's `MLAAttention`."""

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention import MLAAttention
from vllm.model_executor.layers.attention.mla_attention import MLACommonBackend
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ColumnParallelLinear, ReplicatedLinear, RowParallelLinear
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.model_loader.weight_utils import sharded_weight_loader
from vllm.model_executor.utils import set_weight_attrs
from vllm.platforms import current_platform

from .features import Features, rope_parameters

# Latent and rotary key that vLLM's kernel for CPUs is made for.
CPU_SHAPE = (512, 64)


class LatentAttention(nn.Module):
    """Tensor names are those of the checkpoint, so that DeepSeek's loader finds them."""

    def __init__(self, vllm_config: VllmConfig, features: Features, layer: int, prefix: str):
        super().__init__()
        config, quant = vllm_config.model_config.hf_config, vllm_config.quant_config
        if not vllm_config.model_config.use_mla:
            raise ValueError("VLLM_MLA_DISABLE is set, and this model has no other attention than the latent one")
        parts = get_tensor_model_parallel_world_size()
        heads, hidden = config.num_attention_heads, config.hidden_size
        if heads % parts:
            raise ValueError(f"{heads} heads cannot be shared by {parts} devices (tensor_parallel_size)")
        self.heads = heads // parts
        self.rank, self.rope = config.kv_lora_rank, config.qk_rope_head_dim
        self.nope, self.value = config.qk_nope_head_dim, config.v_head_dim
        self.query = self.nope + (self.rope if features.query_norm is None else 0)
        if parts > 1 and features.query_norm not in (None, self.nope):
            raise ValueError(
                "this model normalises the queries of all heads together, which cannot be shared by devices; leave "
                "tensor_parallel_size at 1"
            )

        def linear(kind, name, width_in, width_out, bias=False):
            module = kind(width_in, width_out, bias=bias, quant_config=quant, prefix=f"{prefix}.{name}")
            setattr(self, name, module)

        def latent_norm(width):
            return RMSNorm(width, eps=config.rms_norm_eps) if features.latent_norms else Contiguous()

        query_rank = config.q_lora_rank
        self.low_rank = query_rank is not None
        if self.low_rank:
            linear(ReplicatedLinear, "q_a_proj", hidden, query_rank, features.query_latent_bias)
            self.q_a_layernorm = latent_norm(query_rank)
            linear(ColumnParallelLinear, "q_b_proj", query_rank, heads * self.query, features.query_bias)
        else:
            linear(ColumnParallelLinear, "q_proj", hidden, heads * self.query, features.query_bias)
        self.q_norm = None
        if features.query_norm is not None:
            self.q_norm = RMSNorm(features.query_norm, eps=config.rms_norm_eps)
            self.q_rope_proj = HeadMaps(self.heads, self.nope, self.rope)
        linear(ReplicatedLinear, "kv_a_proj_with_mqa", hidden, self.rank + self.rope, features.latent_bias)
        self.kv_a_layernorm = latent_norm(self.rank)
        linear(ColumnParallelLinear, "kv_b_proj", self.rank, heads * (self.nope + self.value))
        linear(RowParallelLinear, "o_proj", heads * self.value, hidden, features.output_bias)
        self.rotary_emb = get_rope(
            self.rope,
            max_position=config.max_position_embeddings,
            is_neox_style=False,
            rope_parameters=rope_parameters(config, layer),
        )
        self.mla_attn = MLAAttention(
            num_heads=self.heads,
            scale=features.scale,
            qk_nope_head_dim=self.nope,
            qk_rope_head_dim=self.rope,
            v_head_dim=self.value,
            q_lora_rank=query_rank,
            kv_lora_rank=self.rank,
            kv_b_proj=self.kv_b_proj,
            cache_config=vllm_config.cache_config,
            quant_config=quant,
            prefix=f"{prefix}.attn",
            **special(features, layer, (self.rank, self.rope), vllm_config.model_config.max_model_len),
        )

    def queries(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries without position and those to be turned, [tokens, heads, ...]."""
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)[0]))[0] if self.low_rank else self.q_proj(x)[0]
        if self.q_norm is None:
            return q.view(-1, self.heads, self.query).split((self.nope, self.rope), dim=-1)
        # The weight of the norm is as wide as what it spans.
        q = self.q_norm(q.contiguous().unflatten(-1, (-1, self.q_norm.weight.shape[0]))).view(-1, self.heads, self.nope)
        return q, self.q_rope_proj(q)

    def forward(self, positions, hidden_states, llama_4_scaling=None):
        q_nope, q_rope = self.queries(hidden_states)
        latent, k_rope = self.kv_a_proj_with_mqa(hidden_states)[0].split((self.rank, self.rope), dim=-1)
        # vLLM 0.32's rotary kernel for CPUs is wrong for tensors of three dimensions with more than one head.
        q_rope, k_rope = self.rotary_emb(positions, q_rope.flatten(1), k_rope.contiguous())
        attended = self.mla_attn(
            torch.cat((q_nope, q_rope.view(-1, self.heads, self.rope)), dim=-1),
            self.kv_a_layernorm(latent),
            k_rope.unsqueeze(1),
            output_shape=(hidden_states.shape[0], self.heads * self.value),
        )
        return self.o_proj(attended)[0]


class HeadMaps(nn.Module):
    """A matrix for each head of this device."""

    def __init__(self, heads: int, width_in: int, width_out: int):
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.empty(heads * width_out, width_in), requires_grad=False)
        set_weight_attrs(self.weight, {"weight_loader": sharded_weight_loader(0)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, heads, in] to [tokens, heads, out]."""
        return torch.einsum("thd,hrd->thr", x, self.weight.unflatten(0, (self.heads, -1)))


class Contiguous(nn.Module):
    """In the place of a norm, whose result is never a slice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous()


def special(features: Features, layer: int, shape: tuple[int, int], context: int) -> dict:
    """Arguments of `MLAAttention` for what vLLM's own kernels have not; none where they have everything.

    A window that is no shorter than the longest request hides nothing.
    """
    window = features.window(layer)
    if window is not None and window >= context:
        window = None
    if current_platform.is_cpu():
        if window is None and features.softcap is None and shape == CPU_SHAPE:
            return {}
        from .cpu import PlainMLABackend

        return {"attn_backend": PlainMLABackend, "window": window, "softcap": features.softcap}
    numbers = sum(shape)
    if not MLACommonBackend.supports_head_size(numbers):
        raise ValueError(
            f"{shape[0]} + {shape[1]} numbers per token: on this device vLLM takes a cache of latents of "
            f"{MLACommonBackend.get_supported_head_sizes()}; serve on a CPU, or convert with --kv-lora-rank 512 "
            "--qk-mqa-dim 64"
        )
    if window is not None:
        raise ValueError(
            f"layer {layer} has a window of {window} tokens, which no kernel of vLLM for latent attention has on this "
            f"device; serve with --max-model-len {window} or less, or on a CPU"
        )
    if features.softcap is not None:
        raise ValueError(
            f"attention scores are soft-capped at {features.softcap}, which no kernel of vLLM for latent attention does "
            "on this device; serve on a CPU, or with transformers"
        )
    return {}
