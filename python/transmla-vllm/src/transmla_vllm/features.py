"""What a converted model adds to DeepSeek's decoder, from its config.json."""

from dataclasses import dataclass

from .configuration_transmla import TransMLAConfig


@dataclass(frozen=True)
class Features:
    """Of a whole model; what differs by layer is asked by `window`."""

    scale: float
    """What scores are multiplied by."""
    query_bias: bool = False
    """On `q_proj`, or on `q_b_proj` behind a query latent."""
    query_latent_bias: bool = False
    """On `q_a_proj`."""
    latent_bias: bool = False
    """On `kv_a_proj_with_mqa`."""
    output_bias: bool = False
    latent_norms: bool = False
    """Whether query and key/value latents go through norms."""
    query_norm: int | None = None
    """Width of the norm of queries, a head's or that of all heads, behind which a map of each head makes its rotary part
    (`q_rope_proj`)."""
    softcap: float | None = None
    """Bound of scores."""
    final_softcap: float | None = None
    """Bound of logits."""
    around: bool = False
    """Whether there are norms in front of and behind attention and MLP, counted from one."""
    after: bool = False
    """Whether there are norms behind attention and MLP and none in front."""
    embedding_factor: float = 1.0
    residual_factor: float = 1.0
    """Of what attention and MLP add to the residual stream."""
    logits_divisor: float = 1.0
    experts: int | None = None
    expert_width: int | None = None
    """Of each; nothing for that of an MLP."""
    normalised_shares: bool = True
    """Whether the shares of the experts that a token goes through are made to sum to 1."""
    dense_layers: frozenset[int] = frozenset()
    """Layers with one MLP in the place of experts."""
    sliding_window: int | None = None
    sliding_layers: frozenset[int] = frozenset()

    def window(self, layer: int) -> int | None:
        """How many tokens a query of this layer sees, itself included; None for all."""
        return self.sliding_window if layer in self.sliding_layers else None


def features(config) -> Features:
    """Reads a family's configuration, or that of a stock DeepSeek-V3 with biases."""
    width = config.qk_nope_head_dim + config.qk_rope_head_dim
    if not isinstance(config, TransMLAConfig):
        bias = bool(config.attention_bias)
        return Features(
            scale=width**-0.5,
            query_latent_bias=bias and config.q_lora_rank is not None,
            latent_bias=bias,
            output_bias=bias,
            latent_norms=True,
        )
    if config.key("key_norm_heads"):
        raise ValueError(
            "this model caches the scales of its keys' norms (key_norm_heads), which vLLM's caches of latents have no place for; "
            "transformers runs it, and --key-norm regression makes a model without them"
        )
    if config.key("latent_groups", 1) > 1 or config.key("tied_latent", False):
        raise ValueError(
            "this model's heads are in groups with a latent each (latent_groups), or its latents are tied (tied_latent), and vLLM's "
            "attention on latents has one for all heads behind a kv_b_proj; transformers runs it"
        )
    family = config.family
    if family.get("shared_expert"):
        raise ValueError(
            "this model has an expert that all tokens share behind a gate of its own (shared_expert_gate), which vLLM's DeepSeek "
            "classes have not; transformers runs it"
        )
    gemma = family.get("gemma", False)
    bias, output_bias = config.biases
    spans = {"head": config.qk_nope_head_dim, "all": config.num_attention_heads * config.qk_nope_head_dim}
    return Features(
        query_bias=bias,
        latent_bias=bias,
        output_bias=output_bias,
        latent_norms=bool(config.key("use_qkv_norm", False)),
        query_norm=spans.get(family.get("qk_norm")),
        scale=(config.key("query_pre_attn_scalar", width) if gemma else width) ** -0.5,
        softcap=config.key("attn_logit_softcapping") if gemma else None,
        final_softcap=config.key("final_logit_softcapping") if gemma else None,
        around=gemma,
        after=family.get("norms") == "after",
        embedding_factor=config.hidden_size**0.5 if gemma else config.multiplier("embedding_multiplier"),
        residual_factor=config.multiplier("residual_multiplier"),
        logits_divisor=config.multiplier("logits_scaling"),
        experts=config.num_local_experts if family.get("experts") else None,
        expert_width=config.moe_intermediate_size if family.get("experts") == "mlp" else None,
        normalised_shares=family.get("experts") != "mlp" or bool(config.key("norm_topk_prob", False)),
        dense_layers=frozenset(layer for layer in range(config.num_hidden_layers) if config.experts_of(layer) is None),
        sliding_window=config.key("sliding_window"),
        sliding_layers=frozenset(layer for layer in range(config.num_hidden_layers) if config.slides(layer)),
    )


def rope_parameters(config, layer: int = 0) -> dict:
    """RoPE of a layer in the words of vLLM, with what transformers lets a file leave out."""
    if not isinstance(config, TransMLAConfig):
        return dict(config.rope_parameters)
    rope = {name: value for name, value in config.rope_of(config.layer_types[layer]).items() if value is not None}
    if rope["rope_type"] == "yarn":
        context = config.max_position_embeddings
        original = rope.setdefault("original_max_position_embeddings", context)
        rope.setdefault("factor", context / original)
    return rope
