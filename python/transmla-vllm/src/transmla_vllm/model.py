"""The decoder of all converted families, on vLLM's DeepSeek-V3."""

import torch
from torch import nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.layernorm import GemmaRMSNorm, RMSNorm
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.models.deepseek_v2 import (
    DeepseekV2DecoderLayer,
    DeepseekV2ForCausalLM,
    DeepseekV2MLP,
    DeepseekV2Model,
    DeepseekV2MoE,
)
from vllm.model_executor.models.gemma2 import Gemma2MLP
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    PPMissingLayer,
    WeightsMapper,
    make_empty_intermediate_tensors_factory,
    make_layers,
)

from .attention import LatentAttention
from .configuration_transmla import TransMLAConfig
from .features import Features, features


def speak_deepseek(config, has: Features) -> None:
    """Gives a family's configuration the keys that DeepSeek's classes read."""
    if not isinstance(config, TransMLAConfig):
        return
    config.first_k_dense_replace = config.num_hidden_layers if has.experts is None else 0
    config.moe_layer_freq = 1
    config.routed_scaling_factor = 1.0
    config.n_group = config.topk_group = 1
    config.n_shared_experts = None
    config.n_routed_experts = has.experts or 0
    config.scoring_func, config.topk_method, config.norm_topk_prob = "softmax", None, has.normalised_shares
    config.moe_intermediate_size = has.expert_width or config.intermediate_size


class DecoderLayer(DeepseekV2DecoderLayer):
    def __init__(self, vllm_config: VllmConfig, has: Features, prefix: str):
        nn.Module.__init__(self)
        config, quant = vllm_config.model_config.hf_config, vllm_config.quant_config
        self.layer_idx = int(prefix.rsplit(".", 1)[-1])
        self.hidden_size = config.hidden_size
        self.routed_scaling_factor = config.routed_scaling_factor
        self.use_mha = self.use_sequence_parallel_moe = False
        self.around, self.after, self.factor = has.around, has.after, has.residual_factor

        def norm():
            return (GemmaRMSNorm if has.around else RMSNorm)(config.hidden_size, eps=config.rms_norm_eps)

        self.self_attn = LatentAttention(vllm_config, has, self.layer_idx, f"{prefix}.self_attn")
        self.post_attention_layernorm = norm()
        if not has.after:
            self.input_layernorm = norm()
        if has.around:
            self.pre_feedforward_layernorm = norm()
        if has.around or has.after:
            self.post_feedforward_layernorm = norm()
        if has.experts is not None and self.layer_idx not in has.dense_layers:
            self.mlp = DeepseekV2MoE(config, vllm_config.parallel_config, quant, prefix=f"{prefix}.mlp")
            return
        activation = getattr(config, "hidden_act", "silu")
        if has.around:
            activation = config.key("hidden_activation", config.key("hidden_act", "gelu_pytorch_tanh"))
        mlp = Gemma2MLP if activation == "gelu_pytorch_tanh" else DeepseekV2MLP
        self.mlp = mlp(config.hidden_size, config.intermediate_size, activation, quant, prefix=f"{prefix}.mlp")

    def forward(self, positions, hidden_states, residual, llama_4_scaling=None):
        if self.after:
            # What the layer before adds last is still beside the residual stream.
            hidden_states = hidden_states if residual is None else hidden_states + residual
            hidden_states = hidden_states + self.post_attention_layernorm(self.self_attn(positions, hidden_states))
            return self.post_feedforward_layernorm(self.mlp(hidden_states)), hidden_states
        if not self.around and self.factor == 1.0:
            return super().forward(positions, hidden_states, residual, llama_4_scaling)
        if residual is None:
            residual, hidden_states = hidden_states, self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        hidden_states = self.self_attn(positions, hidden_states)
        if not self.around:
            hidden_states, residual = self.post_attention_layernorm(hidden_states * self.factor, residual)
            return self.mlp(hidden_states) * self.factor, residual
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states, residual = self.pre_feedforward_layernorm(hidden_states, residual)
        return self.post_feedforward_layernorm(self.mlp(hidden_states)), residual


@support_torch_compile
class TransMLAModel(DeepseekV2Model):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        nn.Module.__init__(self)
        config, quant = vllm_config.model_config.hf_config, vllm_config.quant_config
        has = features(config)
        self.config = config
        self.hidden_size, self.vocab_size = config.hidden_size, config.vocab_size
        # What DeepSeek's loader asks.
        self.use_mha = self.is_v32 = self.is_fused_shared_expert_enabled = False
        self.num_redundant_experts = vllm_config.parallel_config.eplb_config.num_redundant_experts
        self.aux_hidden_state_layers = ()
        group = get_pp_group()
        shared = group.is_first_rank or (config.tie_word_embeddings and group.is_last_rank)
        self.embed_tokens = (
            VocabParallelEmbedding(
                config.vocab_size, config.hidden_size, quant_config=quant, prefix=f"{prefix}.embed_tokens"
            )
            if shared
            else PPMissingLayer()
        )
        # In the number format of the model, as the original has it.
        self.register_buffer("embedding_scale", torch.tensor(has.embedding_factor), persistent=False)
        self.start_layer, self.end_layer, self.layers = make_layers(
            config.num_hidden_layers, lambda prefix: DecoderLayer(vllm_config, has, prefix), prefix=f"{prefix}.layers"
        )
        norm = GemmaRMSNorm if has.around else RMSNorm
        self.norm = norm(config.hidden_size, eps=config.rms_norm_eps) if group.is_last_rank else PPMissingLayer()
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states", "residual"], config.hidden_size
        )

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.embed_tokens(input_ids) * self.embedding_scale


class TransMLAForCausalLM(DeepseekV2ForCausalLM):
    model_cls = TransMLAModel
    packed_modules_mapping = {"gate_up_proj": ["gate_proj", "up_proj"]}
    hf_to_vllm_mapper = WeightsMapper(
        # Layers for further tokens are carried along in the folder and not run.
        orig_to_new_prefix={"model.mtp_layers.": None},
        # Mixtral's experts in the words of DeepSeek's.
        orig_to_new_substr={
            ".block_sparse_moe.": ".mlp.",
            ".w1.": ".gate_proj.",
            ".w2.": ".down_proj.",
            ".w3.": ".up_proj.",
        },
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        config = vllm_config.model_config.hf_config
        has = features(config)
        speak_deepseek(config, has)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if config.tie_word_embeddings and get_pp_group().is_last_rank:
            self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
        self.logits_processor = LogitsProcessor(
            config.vocab_size, scale=1.0 / has.logits_divisor, soft_cap=has.final_softcap
        )

    def load_weights(self, weights):
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
