//! The family table: what distinguishes one `model_type` from another.

use super::defaults::{
    DEEPSEEK_V3, Defaults, GEMMA2, GEMMA3, LLAMA, MISTRAL, MIXTRAL, OLMO2, PHI3, QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE,
    SMOLLM3,
};
use super::expert_rule::ExpertRule;

/// Which attention projections have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BiasRule {
    /// None has.
    Never,
    /// `attention_bias` says it for q, k, v and o.
    AttentionBiasKey,
    /// q, k and v always, o never.
    QueryKeyValue,
    /// q, k and v unless `qkv_bias` is false, o never.
    QkvBiasKey,
}

/// The factor of an RMSNorm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormWeight {
    /// Its weight.
    Plain,
    /// One more than its weight.
    OnePlus,
}

/// Where the norms of a layer sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and before the MLP.
    Before,
    /// Before and after both.
    Around,
    /// After both, in front of the addition to the residual stream; none before.
    After,
}

/// Which queries and keys go through an RMSNorm before RoPE (`q_norm`, `k_norm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// None.
    Never,
    /// Each head's, by one weight of a head's width for all heads.
    EachHead,
    /// Those of all heads together, by one weight as wide as the projection.
    AllHeads,
}

impl QueryKeyNorm {
    /// Whether there is one.
    pub fn is_there(self) -> bool {
        self != Self::Never
    }

    /// Width of its weight on a projection to some heads; nothing without a norm.
    pub fn width(self, heads: usize, head_dim: usize) -> Option<usize> {
        match self {
            Self::Never => None,
            Self::EachHead => Some(head_dim),
            Self::AllHeads => Some(heads * head_dim),
        }
    }

    /// Scales of each token that it has on a projection to some heads.
    pub fn scales(self, heads: usize) -> usize {
        match self {
            Self::Never => 0,
            Self::EachHead => heads,
            Self::AllHeads => 1,
        }
    }
}

/// Which layers have a sliding window of `sliding_window` tokens, if `layer_types` does not say or does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowRule {
    /// None; every key of windows is ignored.
    Never,
    /// All, if `sliding_window` is a number; there is no switch.
    All,
    /// Layers 0, 2, 4 …; there is no switch.
    Alternate,
    /// All but every `sliding_window_pattern`-th (6th where that is absent); there is no switch.
    Pattern,
    /// With `use_sliding_window` alone, all.
    SwitchedAll,
    /// With `use_sliding_window` alone, those from `max_window_layers` on.
    Switched,
    /// With `use_sliding_window` alone, layers 0, 2, 4 … of those in front of `max_window_layers`.
    SwitchedAlternate,
    /// With `use_sliding_window` alone, those without positions.
    SwitchedWithoutPositions,
}

impl WindowRule {
    /// Whether `use_sliding_window` has to be true for any window.
    pub fn is_switched(self) -> bool {
        matches!(
            self,
            Self::SwitchedAll | Self::Switched | Self::SwitchedAlternate | Self::SwitchedWithoutPositions
        )
    }
}

/// Which layers share a RoPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeRule {
    /// All.
    Same,
    /// All, and unscaled: what the class takes besides, `longrope`, is no one model.
    Unscaled,
    /// Those with a window have one (`rope_local_base_freq`), those without another (`rope_theta`, `rope_scaling`);
    /// `rope_parameters` has both, by the names of `layer_types`.
    ByWindow,
    /// All that have one: those that `no_rope_layers` has a 0 for, or every `no_rope_layer_interval`-th (4th where that is
    /// absent too), have no positions.
    SomeLayers,
}

/// Which factors embeddings, scores, additions to the residual stream and logits have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multipliers {
    /// Scores are divided by the root of the query's width; nothing else has a factor.
    Width,
    /// Embeddings are multiplied by the root of their width, scores divided by that of `query_pre_attn_scalar`.
    Roots,
    /// `embedding_multiplier`, `attention_multiplier`, `residual_multiplier`, and `logits_scaling`, which divides.
    Keys,
}

/// Which soft-caps count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftCaps {
    /// None.
    Never,
    /// `final_logit_softcapping`; the class reads the other and does not use it.
    Logits,
    /// Both.
    ScoresAndLogits,
}

/// How the tensors behind attention are called and arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForward {
    /// `mlp.gate_proj`, `mlp.up_proj`, `mlp.down_proj`.
    Dense,
    /// A router and many MLPs.
    Experts(ExpertRule),
}

/// One model family: every difference that the one decoder knows.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// `model_type` of config.json.
    pub model_type: &'static str,
    /// Prefix of the transformers class, as in `LlamaForCausalLM`.
    pub class_prefix: &'static str,
    /// Which projections have biases.
    pub bias: BiasRule,
    /// What the norms of the residual stream multiply by.
    pub norm_weight: NormWeight,
    /// Where they sit.
    pub norm_placement: NormPlacement,
    /// Which queries and keys are normalised before RoPE.
    pub qk_norm: QueryKeyNorm,
    /// Which layers have a sliding window.
    pub window: WindowRule,
    /// Whether `layer_types` says it before that.
    pub layer_types: bool,
    /// Which layers share a RoPE.
    pub rope: RopeRule,
    /// Dense or experts.
    pub feed_forward: FeedForward,
    /// What `attn_logit_softcapping` and `final_logit_softcapping` bound.
    pub soft_caps: SoftCaps,
    /// Factors of embeddings, scores, additions to the residual stream and logits.
    pub multipliers: Multipliers,
    /// Whether a model makes sense only of text that begins with a BOS token.
    pub needs_bos: bool,
    /// Whether `mlp_bias` counts.
    pub mlp_bias_key: bool,
    /// The keys of the activation, the first one that is there counting.
    pub activation_keys: &'static [&'static str],
    /// Activation where config.json names none.
    pub default_activation: &'static str,
    /// Whether embeddings are tied where config.json does not say.
    pub tied_by_default: bool,
    /// Prefix of the multi-token-prediction layers (`num_nextn_predict_layers`): not run, carried over as they are.
    pub mtp_prefix: Option<&'static str>,
    /// Values of keys that config.json leaves out.
    pub defaults: Defaults,
}

/// The values that most families share.
const PLAIN: Family = Family {
    model_type: "",
    class_prefix: "",
    bias: BiasRule::Never,
    norm_weight: NormWeight::Plain,
    norm_placement: NormPlacement::Before,
    qk_norm: QueryKeyNorm::Never,
    window: WindowRule::Never,
    layer_types: false,
    rope: RopeRule::Same,
    feed_forward: FeedForward::Dense,
    soft_caps: SoftCaps::Never,
    multipliers: Multipliers::Width,
    needs_bos: false,
    mlp_bias_key: false,
    activation_keys: &["hidden_act"],
    default_activation: "silu",
    tied_by_default: false,
    mtp_prefix: None,
    defaults: LLAMA,
};

impl Family {
    /// `model_type` of a converted model that keeps its family's name.
    pub fn latent_model_type(&self) -> String {
        format!("{}mla", self.model_type)
    }

    /// Class name of a converted model that keeps its family's name.
    pub fn latent_class(&self) -> String {
        format!("{}MLAForCausalLM", self.class_prefix)
    }

    /// Name of its configuration's class.
    pub fn latent_config_class(&self) -> String {
        format!("{}MLAConfig", self.class_prefix)
    }
}

/// All families that the decoder runs.
pub const FAMILIES: &[Family] = &[
    Family {
        model_type: "llama",
        class_prefix: "Llama",
        bias: BiasRule::AttentionBiasKey,
        mlp_bias_key: true,
        ..PLAIN
    },
    Family {
        model_type: "mistral",
        class_prefix: "Mistral",
        window: WindowRule::All,
        layer_types: true,
        defaults: MISTRAL,
        ..PLAIN
    },
    Family {
        model_type: "mixtral",
        class_prefix: "Mixtral",
        window: WindowRule::All,
        feed_forward: FeedForward::Experts(ExpertRule::MIXTRAL),
        defaults: MIXTRAL,
        ..PLAIN
    },
    Family {
        model_type: "qwen2",
        class_prefix: "Qwen2",
        bias: BiasRule::QueryKeyValue,
        window: WindowRule::Switched,
        layer_types: true,
        defaults: QWEN2,
        ..PLAIN
    },
    Family {
        model_type: "qwen3",
        class_prefix: "Qwen3",
        bias: BiasRule::AttentionBiasKey,
        qk_norm: QueryKeyNorm::EachHead,
        window: WindowRule::Switched,
        layer_types: true,
        defaults: QWEN3,
        ..PLAIN
    },
    Family {
        model_type: "mimo",
        class_prefix: "MiMo",
        bias: BiasRule::QueryKeyValue,
        window: WindowRule::Switched,
        layer_types: true,
        mtp_prefix: Some("model.mtp_layers"),
        defaults: QWEN2,
        ..PLAIN
    },
    Family {
        model_type: "gemma2",
        class_prefix: "Gemma2",
        bias: BiasRule::AttentionBiasKey,
        norm_weight: NormWeight::OnePlus,
        norm_placement: NormPlacement::Around,
        window: WindowRule::Alternate,
        layer_types: true,
        soft_caps: SoftCaps::ScoresAndLogits,
        multipliers: Multipliers::Roots,
        needs_bos: true,
        // Published files have `hidden_act` too, which no class reads.
        activation_keys: &["hidden_activation"],
        default_activation: "gelu_pytorch_tanh",
        tied_by_default: true,
        defaults: GEMMA2,
        ..PLAIN
    },
    Family {
        model_type: "gemma3_text",
        class_prefix: "Gemma3",
        bias: BiasRule::AttentionBiasKey,
        norm_weight: NormWeight::OnePlus,
        norm_placement: NormPlacement::Around,
        qk_norm: QueryKeyNorm::EachHead,
        window: WindowRule::Pattern,
        layer_types: true,
        rope: RopeRule::ByWindow,
        soft_caps: SoftCaps::Logits,
        multipliers: Multipliers::Roots,
        needs_bos: true,
        activation_keys: &["hidden_activation"],
        default_activation: "gelu_pytorch_tanh",
        tied_by_default: true,
        defaults: GEMMA3,
        ..PLAIN
    },
    Family {
        model_type: "smollm3",
        class_prefix: "SmolLM3",
        bias: BiasRule::AttentionBiasKey,
        window: WindowRule::SwitchedWithoutPositions,
        layer_types: true,
        rope: RopeRule::SomeLayers,
        mlp_bias_key: true,
        tied_by_default: true,
        defaults: SMOLLM3,
        ..PLAIN
    },
    Family {
        model_type: "granite",
        class_prefix: "Granite",
        bias: BiasRule::AttentionBiasKey,
        multipliers: Multipliers::Keys,
        mlp_bias_key: true,
        ..PLAIN
    },
    Family {
        model_type: "olmo2",
        class_prefix: "Olmo2",
        bias: BiasRule::AttentionBiasKey,
        norm_placement: NormPlacement::After,
        qk_norm: QueryKeyNorm::AllHeads,
        defaults: OLMO2,
        ..PLAIN
    },
    // Its fused projections are cut where a checkpoint is opened.
    Family {
        model_type: "phi3",
        class_prefix: "Phi3",
        window: WindowRule::All,
        rope: RopeRule::Unscaled,
        defaults: PHI3,
        ..PLAIN
    },
    Family {
        model_type: "qwen3_moe",
        class_prefix: "Qwen3Moe",
        bias: BiasRule::AttentionBiasKey,
        qk_norm: QueryKeyNorm::EachHead,
        window: WindowRule::SwitchedAll,
        feed_forward: FeedForward::Experts(ExpertRule::QWEN),
        defaults: QWEN3_MOE,
        ..PLAIN
    },
    Family {
        model_type: "qwen2_moe",
        class_prefix: "Qwen2Moe",
        bias: BiasRule::QkvBiasKey,
        window: WindowRule::SwitchedAlternate,
        layer_types: true,
        feed_forward: FeedForward::Experts(ExpertRule {
            shared: true,
            ..ExpertRule::QWEN
        }),
        defaults: QWEN2_MOE,
        ..PLAIN
    },
];

/// The stock DeepSeek form: not a source of conversions, a form that converted models take.
pub(super) const DEEPSEEK: Family = Family {
    model_type: "deepseek_v3",
    class_prefix: "DeepseekV3",
    bias: BiasRule::AttentionBiasKey,
    defaults: DEEPSEEK_V3,
    ..PLAIN
};
