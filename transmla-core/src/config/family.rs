//! The family table: what distinguishes one `model_type` from another.

/// Which attention projections have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BiasRule {
    /// None has.
    Never,
    /// `attention_bias` says it for q, k, v and o.
    AttentionBiasKey,
    /// q, k and v always, o never.
    QueryKeyValue,
}

/// One model family.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// `model_type` of config.json.
    pub model_type: &'static str,
    /// Prefix of the transformers class, as in `LlamaForCausalLM`.
    pub class_prefix: &'static str,
    /// Which projections have biases.
    pub bias: BiasRule,
}

impl Family {
    /// `model_type` of a converted model that keeps its family's name.
    pub fn latent_model_type(&self) -> String {
        format!("{}mla", self.model_type)
    }

    /// Class name of a converted model that keeps its family's name.
    pub fn latent_class(&self) -> String {
        format!("{}MLAForCausalLM", self.class_prefix)
    }
}

/// All families that the decoder runs.
pub const FAMILIES: &[Family] = &[
    Family {
        model_type: "llama",
        class_prefix: "Llama",
        bias: BiasRule::AttentionBiasKey,
    },
    Family {
        model_type: "mistral",
        class_prefix: "Mistral",
        bias: BiasRule::Never,
    },
    Family {
        model_type: "qwen2",
        class_prefix: "Qwen2",
        bias: BiasRule::QueryKeyValue,
    },
];

/// The stock DeepSeek form: not a source of conversions, a form that converted models take.
pub(super) const DEEPSEEK: Family = Family {
    model_type: "deepseek_v3",
    class_prefix: "DeepseekV3",
    bias: BiasRule::AttentionBiasKey,
};
