//! Defaults of each family's transformers class, for keys that config.json leaves out.

/// The values that a configuration class of transformers 5 has where config.json has none.
///
/// Sizes are not among those that are assumed: the class has some, but they are those of one published model, so a
/// configuration without them is an error that names them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// `vocab_size` of the class.
    pub vocab_size: usize,
    /// `hidden_size` of the class.
    pub hidden_size: usize,
    /// `intermediate_size` of the class.
    pub intermediate_size: usize,
    /// `num_hidden_layers` of the class.
    pub num_hidden_layers: usize,
    /// `num_attention_heads` of the class.
    pub num_attention_heads: usize,
    /// Key heads; `None` for as many as query heads.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `None` for `hidden_size` over `num_attention_heads`.
    pub head_dim: Option<usize>,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of RoPE's frequencies.
    pub rope_theta: f64,
    /// That of layers with a window, in families where it is another (`rope_local_base_freq`).
    pub local_rope_theta: f64,
    /// Tokens of the window; `None` for no window.
    pub sliding_window: Option<usize>,
    /// First layer with a window, where `use_sliding_window` switches them on.
    pub max_window_layers: usize,
    /// Number of experts.
    pub num_local_experts: usize,
    /// Experts that a token goes through.
    pub num_experts_per_tok: usize,
    /// Width of an expert, in families where `moe_intermediate_size` says it.
    pub moe_intermediate_size: usize,
    /// Width of the expert that every token goes through, in families that have one.
    pub shared_expert_intermediate_size: usize,
    /// What the score scale is the inverse root of, in families that have this key.
    pub query_pre_attn_scalar: f64,
    /// Bound of the scores, in families that have one.
    pub attn_logit_softcapping: Option<f64>,
    /// Bound of the logits, in families that have one.
    pub final_logit_softcapping: Option<f64>,
    /// Id that starts a text.
    pub bos_token_id: Option<u32>,
    /// Id that ends a text.
    pub eos_token_id: Option<u32>,
}

impl Defaults {
    /// The class's own value of a size that config.json must have.
    pub(super) fn size(&self, key: &str) -> Option<usize> {
        match key {
            "vocab_size" => Some(self.vocab_size),
            "hidden_size" => Some(self.hidden_size),
            "intermediate_size" => Some(self.intermediate_size),
            "moe_intermediate_size" => Some(self.moe_intermediate_size),
            "shared_expert_intermediate_size" => Some(self.shared_expert_intermediate_size),
            "num_hidden_layers" => Some(self.num_hidden_layers),
            "num_attention_heads" => Some(self.num_attention_heads),
            _ => None,
        }
    }
}

/// `LlamaConfig`.
pub(super) const LLAMA: Defaults = Defaults {
    vocab_size: 32_000,
    hidden_size: 4096,
    intermediate_size: 11_008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: None,
    head_dim: None,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000.0,
    local_rope_theta: 10_000.0,
    sliding_window: None,
    max_window_layers: 0,
    num_local_experts: 8,
    num_experts_per_tok: 2,
    moe_intermediate_size: 0,
    shared_expert_intermediate_size: 0,
    query_pre_attn_scalar: 256.0,
    attn_logit_softcapping: None,
    final_logit_softcapping: None,
    bos_token_id: Some(1),
    eos_token_id: Some(2),
};

/// `MistralConfig`.
pub(super) const MISTRAL: Defaults = Defaults {
    intermediate_size: 14_336,
    num_key_value_heads: Some(8),
    max_position_embeddings: 4096 * 32,
    sliding_window: Some(4096),
    ..LLAMA
};

/// `MixtralConfig`.
pub(super) const MIXTRAL: Defaults = Defaults {
    rms_norm_eps: 1e-5,
    rope_theta: 1_000_000.0,
    sliding_window: None,
    ..MISTRAL
};

/// `Qwen2Config`; MiMo's class is derived from it.
pub(super) const QWEN2: Defaults = Defaults {
    vocab_size: 151_936,
    intermediate_size: 22_016,
    num_key_value_heads: Some(32),
    max_position_embeddings: 32_768,
    sliding_window: Some(4096),
    max_window_layers: 28,
    bos_token_id: None,
    eos_token_id: None,
    ..LLAMA
};

/// `Qwen3Config`.
pub(super) const QWEN3: Defaults = Defaults {
    head_dim: Some(128),
    ..QWEN2
};

/// `Gemma2Config`.
pub(super) const GEMMA2: Defaults = Defaults {
    vocab_size: 256_000,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: Some(4),
    head_dim: Some(256),
    max_position_embeddings: 8192,
    sliding_window: Some(4096),
    attn_logit_softcapping: Some(50.0),
    final_logit_softcapping: Some(30.0),
    bos_token_id: Some(2),
    eos_token_id: Some(1),
    ..LLAMA
};

/// `Gemma3TextConfig`.
pub(super) const GEMMA3: Defaults = Defaults {
    vocab_size: 262_208,
    max_position_embeddings: 131_072,
    rope_theta: 1_000_000.0,
    attn_logit_softcapping: None,
    final_logit_softcapping: None,
    ..GEMMA2
};

/// `SmolLM3Config`.
pub(super) const SMOLLM3: Defaults = Defaults {
    vocab_size: 128_256,
    hidden_size: 2048,
    num_hidden_layers: 36,
    num_attention_heads: 16,
    num_key_value_heads: Some(4),
    max_position_embeddings: 32_768,
    rope_theta: 2_000_000.0,
    bos_token_id: Some(128_000),
    eos_token_id: Some(128_001),
    ..LLAMA
};

/// `Olmo2Config`.
pub(super) const OLMO2: Defaults = Defaults {
    vocab_size: 50_304,
    rms_norm_eps: 1e-5,
    bos_token_id: None,
    eos_token_id: Some(50_279),
    ..LLAMA
};

/// `Phi3Config`.
pub(super) const PHI3: Defaults = Defaults {
    vocab_size: 32_064,
    hidden_size: 3072,
    intermediate_size: 8192,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    eos_token_id: Some(32_000),
    ..LLAMA
};

/// `Qwen2MoeConfig`.
pub(super) const QWEN2_MOE: Defaults = Defaults {
    hidden_size: 2048,
    intermediate_size: 5632,
    num_hidden_layers: 24,
    num_attention_heads: 16,
    num_key_value_heads: Some(16),
    num_local_experts: 60,
    num_experts_per_tok: 4,
    moe_intermediate_size: 1408,
    shared_expert_intermediate_size: 5632,
    ..QWEN2
};

/// `Qwen3MoeConfig`.
pub(super) const QWEN3_MOE: Defaults = Defaults {
    hidden_size: 2048,
    intermediate_size: 6144,
    num_hidden_layers: 24,
    num_key_value_heads: Some(4),
    num_local_experts: 128,
    num_experts_per_tok: 8,
    moe_intermediate_size: 768,
    ..QWEN2
};

/// `DeepseekV3Config`, of which converted models have every key that counts.
pub(super) const DEEPSEEK_V3: Defaults = Defaults {
    vocab_size: 129_280,
    hidden_size: 7168,
    intermediate_size: 18_432,
    num_hidden_layers: 61,
    num_attention_heads: 128,
    max_position_embeddings: 4096,
    bos_token_id: Some(0),
    eos_token_id: Some(1),
    ..LLAMA
};
