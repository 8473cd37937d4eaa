"""Models that transmla converted to multi-head latent attention, for stock transformers.

One decoder for all families; `TransMLAConfig` says what a family adds. The cache holds, per token and layer, the latent
and the one rotary key that all heads share, or those of each group of heads (`latent_groups`), and nothing else. Tied, a latent is
the value of its heads and their key without position as it is (`tied_latent`).
"""

import inspect
import math

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_transmla import (
    FULL,
    SLIDING,
    Gemma2MLAConfig,
    Gemma3MLAConfig,
    GraniteMLAConfig,
    LlamaMLAConfig,
    MiMoMLAConfig,
    MistralMLAConfig,
    MixtralMLAConfig,
    Olmo2MLAConfig,
    Phi3MLAConfig,
    Qwen2MLAConfig,
    Qwen2MoeMLAConfig,
    Qwen3MLAConfig,
    Qwen3MoeMLAConfig,
    SmolLM3MLAConfig,
    TransMLAConfig,
)

# What this version of transformers calls the cache in its outputs; callers may use either name.
CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"
# What makes the mask of a kind of layer, with the names of the arguments that this version has.
MASKS = {
    kind: (make, set(inspect.signature(make).parameters))
    for kind, make in ((FULL, create_causal_mask), (SLIDING, create_sliding_window_causal_mask))
}


class RMSNorm(nn.Module):
    def __init__(self, width, eps, from_one=False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width) if from_one else torch.ones(width))
        self.eps, self.from_one = eps, from_one

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.from_one:
            return (wide * (1.0 + self.weight.float())).to(x.dtype)
        return self.weight * wide.to(x.dtype)


def frequencies(rope, width, context):
    """Radians per token of each pair, and the factor on rotated vectors."""
    pairs = torch.arange(0, width, 2, dtype=torch.float64)
    plain = float(rope["rope_theta"]) ** (-pairs / width)
    kind = rope["rope_type"]
    if kind == "default":
        return plain, 1.0
    factor = rope.get("factor")
    if kind == "linear":
        return plain / factor, 1.0
    original = rope.get("original_max_position_embeddings") or context
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = original * plain / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - kept) * plain / factor + kept * plain, 1.0
    if kind == "yarn":
        return yarn(rope, plain, width, original, factor or context / original)
    raise ValueError(f"rope_type is {kind!r}; expected default, linear, llama3 or yarn")


def yarn(rope, plain, width, original, factor):
    def dimension(turns):
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope["rope_theta"]))

    def sharpening(weight):
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    low, high = dimension(rope.get("beta_fast") or 32.0), dimension(rope.get("beta_slow") or 1.0)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = (min(max(bound, 0), width - 1) for bound in (low, high))
    ramp = (torch.arange(width // 2, dtype=torch.float64) - low) / ((high - low) or 0.001)
    slow = ramp.clamp(0, 1)
    scaled = plain / factor * slow + plain * (1 - slow)
    share, all_dims = rope.get("mscale"), rope.get("mscale_all_dim")
    attention_factor = rope.get("attention_factor")
    if attention_factor is None:
        attention_factor = sharpening(share) / sharpening(all_dims) if share and all_dims else sharpening(1.0)
    return scaled, attention_factor


def rotate(x, cos, sin):
    """Turns interleaved pairs: `x` is [batch, heads, seq, width], `cos` and `sin` are [batch, 1, seq, width / 2]."""
    real, imaginary = x[..., 0::2], x[..., 1::2]
    return torch.stack((real * cos - imaginary * sin, real * sin + imaginary * cos), dim=-1).flatten(-2)


class LatentAttention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.config, self.layer = config, layer
        self.heads, self.rank = config.num_attention_heads, config.kv_lora_rank
        self.nope, self.rope, self.value = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        self.groups, self.tied = config.key("latent_groups", 1), bool(config.key("tied_latent", False))
        hidden, eps = config.hidden_size, config.rms_norm_eps
        bias, output_bias = config.biases
        norms = bool(config.key("use_qkv_norm", False))
        spans = config.family.get("qk_norm")
        normed_heads = spans is not None
        self.query = self.nope if normed_heads else self.nope + self.rope
        # The weight of a norm is as wide as what it spans: a head's query, or those of all.
        spanned = self.heads * self.nope if spans == "all" else self.nope
        query_rank = config.key("q_lora_rank")
        if query_rank is None:
            self.q_proj = nn.Linear(hidden, self.heads * self.query, bias=bias)
        else:
            self.q_a_proj = nn.Linear(hidden, query_rank, bias=False)
            self.q_a_layernorm = RMSNorm(query_rank, eps) if norms else None
            self.q_b_proj = nn.Linear(query_rank, self.heads * self.query, bias=bias)
        self.low_rank = query_rank is not None
        self.q_norm = RMSNorm(spanned, eps) if normed_heads else None
        self.q_rope_proj = nn.Linear(self.nope, self.heads * self.rope, bias=False) if normed_heads else None
        # Keys that keep their norm: its weight is in `kv_b_proj`, its scales, one for a head or for all, are made of the keys and cached.
        self.scales = config.key("key_norm_heads") or 0
        if self.scales:
            self.k_proj = nn.Linear(hidden, self.scales * config.key("key_norm_width", self.nope), bias=bias)
            self.k_norm = KeyScale(self.scales, eps)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self.groups * (self.rank + self.rope), bias=bias)
        self.kv_a_layernorm = RMSNorm(self.rank, eps) if norms else None
        if not self.tied:
            self.kv_b_proj = nn.Linear(self.rank, self.heads * (self.nope + self.value), bias=False)
        self.o_proj = nn.Linear(self.heads * self.value, hidden, bias=output_bias)
        width = self.nope + self.rope
        if config.family.get("gemma"):
            width = config.key("query_pre_attn_scalar", width)
        self.scale = width**-0.5
        self.softcap = config.key("attn_logit_softcapping") if config.family.get("gemma") else None

    def queries(self, x):
        """Queries without position and those to be turned, [batch, heads, seq, ...]."""
        if self.low_rank:
            latent = self.q_a_proj(x)
            q = self.q_b_proj(latent if self.q_a_layernorm is None else self.q_a_layernorm(latent))
        else:
            q = self.q_proj(x)
        if self.q_norm is None:
            q = q.unflatten(-1, (self.heads, self.query)).transpose(1, 2)
            return q[..., : self.nope], q[..., self.nope :]
        q = self.q_norm(q.unflatten(-1, (-1, self.q_norm.weight.shape[0])))
        q = q.flatten(-2).unflatten(-1, (self.heads, self.nope))
        maps = self.q_rope_proj.weight.unflatten(0, (self.heads, self.rope))
        return q.transpose(1, 2), torch.einsum("bshd,hrd->bhsr", q, maps)

    def forward(self, x, cos, sin, mask, cache, positions, weights):
        """What a layer adds to the residual stream, and its attention weights where they are asked for."""
        q_nope, q_rope = self.queries(x)
        q_rope = rotate(q_rope, cos, sin)
        down = self.kv_a_proj_with_mqa(x).unflatten(-1, (self.groups, self.rank + self.rope)).transpose(1, 2)
        latent, k_rope = down.split((self.rank, self.rope), dim=-1)  # [batch, groups, seq, ...]
        if self.kv_a_layernorm is not None:
            latent = self.kv_a_layernorm(latent)
        k_rope = rotate(k_rope, cos, sin)
        if self.scales:
            k_rope = torch.cat((k_rope, self.k_norm(self.k_proj(x)).unsqueeze(1)), dim=-1)
        if cache is not None:
            # Static caches of earlier versions write where they are told to.
            latent, k_rope = cache.update(latent, k_rope, self.layer, {"cache_position": positions})
        factors = None
        if self.scales:
            k_rope, factors = k_rope.split((self.rope, self.scales), dim=-1)
            # [batch, heads, 1, seq]
            factors = factors.transpose(1, 3).repeat_interleave(self.heads // self.scales, dim=1).transpose(2, 3)
        # Absorbed: queries meet the latent itself, and kv_b_proj is applied to what is few.
        if self.tied:
            q_latent = q_nope
        else:
            up = self.kv_b_proj.weight.view(self.heads, self.nope + self.value, self.rank)
            q_latent = q_nope @ up[:, : self.nope]  # [batch, heads, new, rank]
        fused = self.config._attn_implementation == "sdpa" and self.softcap is None and not weights and factors is None
        if fused:
            mixed, shares = self.attend_fused(q_latent, q_rope, latent, k_rope, mask)
        else:
            mixed, shares = self.attend(q_latent, q_rope, latent, k_rope, mask, factors)
        values = mixed if self.tied else mixed @ up[:, self.nope :].transpose(1, 2)  # [batch, heads, new, value]
        return self.o_proj(values.transpose(1, 2).flatten(2)), shares if weights else None

    def attend(self, q_latent, q_rope, latent, k_rope, mask, factors):
        """Sums of latents, [batch, heads, new, rank], and the weights in them."""
        if self.groups > 1:
            latent, k_rope = self.of_heads(latent), self.of_heads(k_rope)
        scores = (q_latent * self.scale) @ latent.transpose(2, 3) + (q_rope * self.scale) @ k_rope.transpose(2, 3)
        if factors is not None:
            scores = scores * factors
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        scores = scores.float()
        if mask is None and scores.shape[2] > 1:
            # What fused attention understands without a mask: the first query sees the first key.
            mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            hides = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if hides else scores + mask
        shares = scores.softmax(-1).to(latent.dtype)
        return shares @ latent, shares

    def of_heads(self, shared):
        """What groups have, [batch, groups, seq, width], for each of their heads."""
        repeated = shared.unsqueeze(2).expand(-1, -1, self.heads // self.groups, -1, -1)
        return repeated.flatten(1, 2)

    def attend_fused(self, q_latent, q_rope, latent, k_rope, mask):
        queries, keys = torch.cat((q_latent, q_rope), dim=-1), torch.cat((latent, k_rope), dim=-1)
        if queries.shape[2] == 1:
            # Heads of a group as rows of one head, so that what is cached is not repeated for each.
            rows = queries.squeeze(2).unflatten(1, (self.groups, -1))
            mixed = F.scaled_dot_product_attention(rows, keys, latent, attn_mask=mask, scale=self.scale)
            return mixed.flatten(1, 2).unsqueeze(2), None
        keys, latent = self.of_heads(keys), self.of_heads(latent)
        mixed = F.scaled_dot_product_attention(
            queries, keys, latent, attn_mask=mask, is_causal=mask is None, scale=self.scale
        )
        return mixed, None


class KeyScale(nn.Module):
    """What the linear keys of each scale are to be multiplied by to be normalised, from the keys that are to be."""

    def __init__(self, scales, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(scales)), eps

    def forward(self, keys):
        square = keys.unflatten(-1, (self.weight.shape[0], -1)).float().square().mean(-1)
        return (torch.rsqrt(square + self.eps) * self.weight.float()).to(keys.dtype)


class MLP(nn.Module):
    def __init__(self, config, names=("gate_proj", "up_proj", "down_proj"), inner=None):
        super().__init__()
        hidden, inner = config.hidden_size, inner or config.intermediate_size
        self.names = names
        for name, width_in, width_out in zip(names, (hidden, hidden, inner), (inner, inner, hidden)):
            setattr(self, name, nn.Linear(width_in, width_out, bias=False))
        activation = config.key("hidden_act", "silu")
        if config.family.get("gemma"):
            activation = config.key("hidden_activation", config.key("hidden_act", "gelu_pytorch_tanh"))
        self.gelu = activation == "gelu_pytorch_tanh"

    def forward(self, x):
        gate, up, down = (getattr(self, name) for name in self.names)
        gated = F.gelu(gate(x), approximate="tanh") if self.gelu else F.silu(gate(x))
        return down(gated * up(x))


class Experts(nn.Module):
    """The best few of many MLPs by a softmax over all, and in some families one that all tokens share."""

    def __init__(self, config, module):
        super().__init__()
        hidden, count = config.hidden_size, config.num_local_experts
        self.per_token = config.key("num_experts_per_tok", 2)
        self.gate = nn.Linear(hidden, count, bias=False)
        # Mixtral's are as wide as its MLPs would be, and their shares are normalised; others have keys for both.
        if module == "block_sparse_moe":
            self.normalised = True
            self.experts = nn.ModuleList(MLP(config, ("w1", "w3", "w2")) for _ in range(count))
        else:
            self.normalised = config.key("norm_topk_prob", False)
            self.experts = nn.ModuleList(MLP(config, inner=config.moe_intermediate_size) for _ in range(count))
        self.has_shared = config.family.get("shared_expert", False)
        if self.has_shared:
            self.shared_expert = MLP(config, inner=config.shared_expert_intermediate_size)
            self.shared_expert_gate = nn.Linear(hidden, 1, bias=False)

    def forward(self, x):
        flat = x.flatten(0, -2)
        shares, chosen = self.gate(flat).float().softmax(-1).topk(self.per_token, dim=-1)
        if self.normalised:
            shares = shares / shares.sum(-1, keepdim=True)
        shares = shares.to(x.dtype)
        out = torch.zeros_like(flat)
        if self.has_shared:
            out = self.shared_expert_gate(flat).sigmoid() * self.shared_expert(flat)
        for index, expert in enumerate(self.experts):
            rows, slots = (chosen == index).nonzero(as_tuple=True)
            if rows.numel():
                out.index_add_(0, rows, expert(flat[rows]) * shares[rows, slots, None])
        return out.view_as(x)


class DecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config, layer):
        super().__init__()
        gemma = config.family.get("gemma", False)

        def norm():
            return RMSNorm(config.hidden_size, config.rms_norm_eps, gemma)

        self.self_attn = LatentAttention(config, layer)
        self.norms = config.family.get("norms", "around" if gemma else "before")
        self.share = config.multiplier("residual_multiplier")
        self.post_attention_layernorm = norm()
        if self.norms != "after":
            self.input_layernorm = norm()
        if self.norms == "around":
            self.pre_feedforward_layernorm = norm()
        if self.norms != "before":
            self.post_feedforward_layernorm = norm()
        module = config.experts_of(layer)
        self.feed = module or "mlp"
        setattr(self, self.feed, Experts(config, module) if module else MLP(config))

    def forward(self, hidden, cos, sin, mask, cache, positions, weights):
        feed = getattr(self, self.feed)
        inputs = hidden if self.norms == "after" else self.input_layernorm(hidden)
        attended, shares = self.self_attn(inputs, cos, sin, mask, cache, positions, weights)
        if self.norms == "after":
            hidden = hidden + self.post_attention_layernorm(attended)
            hidden = hidden + self.post_feedforward_layernorm(feed(hidden))
        elif self.norms == "around":
            hidden = hidden + self.post_attention_layernorm(attended)
            hidden = hidden + self.post_feedforward_layernorm(feed(self.pre_feedforward_layernorm(hidden)))
        else:
            hidden = hidden + attended * self.share
            hidden = hidden + feed(self.post_attention_layernorm(hidden)) * self.share
        return hidden, shares


class TransMLAPreTrainedModel(PreTrainedModel):
    config_class = TransMLAConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_sdpa = True
    # Layers for further tokens are carried along and not run.
    _keys_to_ignore_on_load_unexpected = [r"model\.mtp_layers\."]


class TransMLAModel(TransMLAPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        gemma = config.family.get("gemma", False)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, gemma)
        self.embedding_scale = config.hidden_size**0.5 if gemma else config.multiplier("embedding_multiplier")
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self):
        return self.embed_tokens

    def set_input_embeddings(self, value):
        self.embed_tokens = value

    def angles(self, positions, dtype, kind):
        config = self.config
        radians, factor = frequencies(config.rope_of(kind), config.qk_rope_head_dim, config.max_position_embeddings)
        angles = positions[:, None, :, None].float() * radians.to(positions.device, torch.float32)
        return (angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype)

    def masks(self, attention_mask, embeds, cache, cache_position, position_ids):
        """What the queries of each kind of layer see, as this version of transformers has it for its attention."""
        if isinstance(attention_mask, dict):
            return attention_mask  # `generate` made them beforehand
        given = {
            "config": self.config,
            "inputs_embeds": embeds,
            "input_embeds": embeds,
            "attention_mask": attention_mask,
            "cache": cache,
            "past_key_values": cache,
            "cache_position": cache_position,
            "position_ids": position_ids,
        }
        kinds = {kind: MASKS[kind] for kind in self.config.layer_types}
        return {
            kind: make(**{name: value for name, value in given.items() if name in names})
            for kind, (make, names) in kinds.items()
        }

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        cache=None,
        inputs_embeds=None,
        use_cache=None,
        past_key_values=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        **kwargs,
    ):
        config = self.config
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds must be given")
        cache = past_key_values if cache is None else cache
        use_cache = config.use_cache if use_cache is None else use_cache
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            # Layers run a second time, and would write into a cache twice.
            cache, use_cache = None, False
        if cache is None and use_cache:
            cache = DynamicCache(config=config)
        weights, states = (
            getattr(config, name, False) if asked is None else asked
            for name, asked in (("output_attentions", output_attentions), ("output_hidden_states", output_hidden_states))
        )
        # Later versions take the number of one state as well, 0 included.
        states = states is not None and states is not False

        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if self.embedding_scale != 1.0:
            hidden = hidden * torch.tensor(self.embedding_scale, dtype=hidden.dtype)
        cache_position = kwargs.get("cache_position")
        if cache_position is None:
            past = 0 if cache is None else cache.get_seq_length()
            cache_position = torch.arange(hidden.shape[1], device=hidden.device) + past
        if position_ids is None:
            position_ids = cache_position[None]
        angles = {kind: self.angles(position_ids, hidden.dtype, kind) for kind in set(config.layer_types)}
        masks = self.masks(attention_mask, hidden, cache, cache_position, position_ids)
        all_states, all_shares = [hidden], []
        for layer, kind in zip(self.layers, config.layer_types):
            mask = masks.get(kind)
            hidden, shares = layer(hidden, *angles[kind], mask, cache, cache_position, bool(weights))
            all_states.append(hidden)
            all_shares.append(shares)
        hidden = self.norm(hidden)
        all_states[-1] = hidden
        outputs = BaseModelOutputWithPast(
            last_hidden_state=hidden,
            hidden_states=tuple(all_states) if states else None,
            attentions=tuple(all_shares) if weights else None,
            **{CACHE: cache},
        )
        return outputs if asks_for_dict(config, return_dict) else outputs.to_tuple()


def asks_for_dict(config, return_dict):
    return getattr(config, "return_dict", True) if return_dict is None else return_dict


def kept(hidden, logits_to_keep):
    """The positions whose logits are asked for: the last so many (0 for all), or those of a tensor."""
    if isinstance(logits_to_keep, int):
        return hidden[:, -logits_to_keep:] if logits_to_keep else hidden
    return hidden[:, logits_to_keep]


class TransMLAForCausalLM(TransMLAPreTrainedModel, GenerationMixin):
    # A list before version 5.
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    if int(transformers.__version__.split(".")[0]) < 5:
        _tied_weights_keys = list(_tied_weights_keys)

    def __init__(self, config):
        super().__init__(config)
        self.model = TransMLAModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.softcap = config.key("final_logit_softcapping") if config.family.get("gemma") else None
        self.divisor = config.multiplier("logits_scaling")
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        cache=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        logits_to_keep=0,
        past_key_values=None,
        return_dict=None,
        **kwargs,
    ):
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        logits = self.lm_head(kept(outputs.last_hidden_state, logits_to_keep)) / self.divisor
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        outputs = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: outputs.get(CACHE)},
        )
        return outputs if asks_for_dict(self.config, return_dict) else outputs.to_tuple()


# The names that `architectures` and `auto_map` have.


class LlamaMLAForCausalLM(TransMLAForCausalLM):
    config_class = LlamaMLAConfig


class MistralMLAForCausalLM(TransMLAForCausalLM):
    config_class = MistralMLAConfig


class MixtralMLAForCausalLM(TransMLAForCausalLM):
    config_class = MixtralMLAConfig


class Qwen2MLAForCausalLM(TransMLAForCausalLM):
    config_class = Qwen2MLAConfig


class Qwen3MLAForCausalLM(TransMLAForCausalLM):
    config_class = Qwen3MLAConfig


class MiMoMLAForCausalLM(TransMLAForCausalLM):
    config_class = MiMoMLAConfig


class Gemma2MLAForCausalLM(TransMLAForCausalLM):
    config_class = Gemma2MLAConfig


class Gemma3MLAForCausalLM(TransMLAForCausalLM):
    config_class = Gemma3MLAConfig


class SmolLM3MLAForCausalLM(TransMLAForCausalLM):
    config_class = SmolLM3MLAConfig


class GraniteMLAForCausalLM(TransMLAForCausalLM):
    config_class = GraniteMLAConfig


class Olmo2MLAForCausalLM(TransMLAForCausalLM):
    config_class = Olmo2MLAConfig


class Phi3MLAForCausalLM(TransMLAForCausalLM):
    config_class = Phi3MLAConfig


class Qwen3MoeMLAForCausalLM(TransMLAForCausalLM):
    config_class = Qwen3MoeMLAConfig


class Qwen2MoeMLAForCausalLM(TransMLAForCausalLM):
    config_class = Qwen2MoeMLAConfig
