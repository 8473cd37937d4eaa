//! The table from ggml's architectures (`general.architecture`) to families, as llama.cpp's converter writes them.

use crate::config::ExpertRule;
use crate::config::family::{FAMILIES, FeedForward};

/// An architecture that is read.
#[derive(Debug, PartialEq)]
pub(super) struct Architecture {
    /// `general.architecture`, and the prefix of its keys.
    pub name: &'static str,
    /// `model_type` of the family.
    pub model_type: &'static str,
    /// That of the family with experts, if there are such models.
    pub with_experts: Option<&'static str>,
    /// That of the family with a window on all layers, if there are such models.
    pub with_window: Option<&'static str>,
    /// Whether the rows of queries and keys have rotary pairs side by side, unlike Hugging Face's.
    pub interleaved: bool,
    /// Whether norms have a weight that is one more than Hugging Face's.
    pub norm_one_more: bool,
    /// What `ffn_norm` is called: the norm in front of the MLP.
    pub mlp_norm: &'static str,
    /// What `ffn_up` is called: a matrix of its own, or one with the gate in front.
    pub mlp_up: &'static str,
    /// How layers with and without a window take turns.
    pub windows: Windows,
    /// The number of layers for which scores are divided by the root of `embedding_length / head_count` (llama.cpp knows
    /// Google's 27B models by it); others divide by the root of a head's width. No key says it.
    pub scaled_by_hidden: Option<u64>,
    /// Soft-caps of scores and logits where no key says them.
    pub soft_caps: [Option<f64>; 2],
    /// Whether the shares of the chosen experts are made to sum to 1, which llama.cpp knows by the architecture.
    pub normalised_shares: bool,
}

impl Architecture {
    /// How the family with experts calls them, if there is one.
    pub fn experts(&self) -> Option<ExpertRule> {
        let model_type = self.with_experts?;
        FAMILIES
            .iter()
            .filter(|family| family.model_type == model_type)
            .find_map(|family| match family.feed_forward {
                FeedForward::Experts(rule) => Some(rule),
                FeedForward::Dense => None,
            })
    }
}

/// Layers with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Windows {
    /// None, or all where a key has the window's size.
    ByKey,
    /// None, whatever keys say.
    Never,
    /// All but each so many-th, unless a key says another number.
    Every(u64),
}

const PLAIN: Architecture = Architecture {
    name: "",
    model_type: "",
    with_experts: None,
    with_window: None,
    interleaved: false,
    norm_one_more: false,
    mlp_norm: "post_attention_layernorm",
    mlp_up: "mlp.up_proj",
    windows: Windows::Never,
    scaled_by_hidden: None,
    soft_caps: [None, None],
    normalised_shares: true,
};

pub(super) const ARCHITECTURES: &[Architecture] = &[
    // Mistral's models are of this architecture, and with experts Mixtral's.
    Architecture {
        name: "llama",
        model_type: "llama",
        with_experts: Some("mixtral"),
        with_window: Some("mistral"),
        interleaved: true,
        windows: Windows::ByKey,
        ..PLAIN
    },
    Architecture {
        name: "qwen2",
        model_type: "qwen2",
        ..PLAIN
    },
    Architecture {
        name: "qwen3",
        model_type: "qwen3",
        ..PLAIN
    },
    Architecture {
        name: "qwen2moe",
        model_type: "qwen2_moe",
        with_experts: Some("qwen2_moe"),
        normalised_shares: false,
        ..PLAIN
    },
    Architecture {
        name: "qwen3moe",
        model_type: "qwen3_moe",
        with_experts: Some("qwen3_moe"),
        ..PLAIN
    },
    Architecture {
        name: "gemma2",
        model_type: "gemma2",
        norm_one_more: true,
        mlp_norm: "pre_feedforward_layernorm",
        windows: Windows::Every(2),
        scaled_by_hidden: Some(46),
        soft_caps: [Some(50.0), Some(30.0)],
        ..PLAIN
    },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        norm_one_more: true,
        mlp_norm: "pre_feedforward_layernorm",
        windows: Windows::Every(6),
        scaled_by_hidden: Some(62),
        ..PLAIN
    },
    Architecture {
        name: "phi3",
        model_type: "phi3",
        mlp_up: "mlp.gate_up_proj",
        windows: Windows::ByKey,
        ..PLAIN
    },
];

/// Finds one by name.
pub(super) fn find(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|architecture| architecture.name == name)
}

/// The names of all, for messages.
pub(super) fn names() -> String {
    let names: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_is_a_family() {
        for it in ARCHITECTURES {
            for model_type in [Some(it.model_type), it.with_experts, it.with_window]
                .into_iter()
                .flatten()
            {
                assert!(
                    FAMILIES.iter().any(|family| family.model_type == model_type),
                    "{model_type}"
                );
            }
            assert_eq!(it.experts().is_some(), it.with_experts.is_some(), "{}", it.name);
        }
    }
}
