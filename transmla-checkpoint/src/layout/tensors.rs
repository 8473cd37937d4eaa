//! The tensors that a configuration implies, by their names in Hugging Face checkpoints.

use super::names::layer_prefix;
use crate::checkpoint::writer::TensorSpec;
use crate::config::attention::AttentionConfig;
use crate::config::expert_rule::MlpNames;
use crate::config::family::{BiasRule, NormPlacement};
use crate::config::grouped::GroupedConfig;
use crate::config::latent::LatentConfig;
use crate::config::model::ModelConfig;

/// Every tensor that a model of this configuration must have, layer after layer.
///
/// Optional biases of latent attention are not among them: the checkpoint says which exist.
pub fn model_tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    tensor_groups(config).flatten().collect()
}

/// [`model_tensors`] in groups, each made when it is asked for.
pub(super) fn tensor_groups(config: &ModelConfig) -> impl Iterator<Item = Vec<TensorSpec>> {
    let hidden = config.hidden_size;
    let embedding = TensorSpec::new("model.embed_tokens.weight", [config.vocab_size, hidden]);
    let mut last = vec![TensorSpec::new("model.norm.weight", [hidden])];
    if !config.tie_word_embeddings {
        last.push(TensorSpec::new("lm_head.weight", [config.vocab_size, hidden]));
    }
    let layers = (0..config.num_hidden_layers)
        .flat_map(|index| [attention_tensors(config, index), residual_tensors(config, index)]);
    std::iter::once(vec![embedding]).chain(layers).chain([last])
}

/// The attention tensors of one layer.
pub fn attention_tensors(config: &ModelConfig, index: usize) -> Vec<TensorSpec> {
    let prefix = format!("{}.self_attn", layer_prefix(index));
    match &config.attention {
        AttentionConfig::Grouped(grouped) => grouped_tensors(config, grouped, &prefix),
        AttentionConfig::Latent(latent) => latent_tensors(config, latent, &prefix),
    }
}

/// Whether a tensor belongs to the attention of a layer that is run, and so to what a conversion replaces.
pub fn is_attention_tensor(name: &str) -> bool {
    name.starts_with("model.layers.") && name.contains(".self_attn.")
}

/// The tensors of one layer that attention conversion leaves as they are: norms and MLP or experts.
pub fn residual_tensors(config: &ModelConfig, index: usize) -> Vec<TensorSpec> {
    let prefix = layer_prefix(index);
    let hidden = config.hidden_size;
    let norms: &[&str] = match config.family.norm_placement {
        NormPlacement::Before => &["input_layernorm", "post_attention_layernorm"],
        NormPlacement::Around => &[
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        ],
        NormPlacement::After => &["post_attention_layernorm", "post_feedforward_layernorm"],
    };
    let mut tensors: Vec<TensorSpec> = norms
        .iter()
        .map(|name| TensorSpec::new(format!("{prefix}.{name}.weight"), [hidden]))
        .collect();
    let mut mlp = |prefix: &str, names: MlpNames, inner: usize| {
        for (name, shape) in [
            (names.gate, [inner, hidden]),
            (names.up, [inner, hidden]),
            (names.down, [hidden, inner]),
        ] {
            tensors.push(TensorSpec::new(format!("{prefix}.{name}.weight"), shape));
        }
    };
    match config.experts_of(index) {
        None => mlp(&format!("{prefix}.mlp"), MlpNames::DENSE, config.intermediate_size),
        Some(experts) => {
            let prefix = format!("{prefix}.{}", experts.rule.module);
            for expert in 0..experts.count {
                mlp(&format!("{prefix}.experts.{expert}"), experts.rule.names, experts.width);
            }
            let mut rows = vec![("gate", experts.count)];
            if let Some(width) = experts.shared_width {
                mlp(&format!("{prefix}.shared_expert"), MlpNames::DENSE, width);
                rows.push(("shared_expert_gate", 1));
            }
            for (name, rows) in rows {
                tensors.push(TensorSpec::new(format!("{prefix}.{name}.weight"), [rows, hidden]));
            }
        }
    }
    tensors
}

/// The tensors of multi-token-prediction (MTP) layers: never run, and the same in a converted model.
pub fn carried_tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let (Some(mtp), Some(prefix)) = (&config.mtp, config.family.mtp_prefix) else {
        return Vec::new();
    };
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let grouped = GroupedConfig {
        num_key_value_heads: mtp.num_key_value_heads,
        head_dim: mtp.head_dim,
        qkv_bias: config.family.bias == BiasRule::QueryKeyValue,
        output_bias: false,
    };
    let mut tensors = Vec::new();
    for index in 0..mtp.layers {
        let prefix = format!("{prefix}.{index}");
        let mut add = |name: &str, shape: &[usize]| {
            tensors.push(TensorSpec::new(format!("{prefix}.{name}.weight"), shape));
        };
        for name in [
            "input_layernorm",
            "post_attention_layernorm",
            "token_layernorm",
            "hidden_layernorm",
            "final_layernorm",
        ] {
            add(name, &[hidden]);
        }
        add("input_proj", &[hidden, 2 * hidden]);
        add("mlp.gate_proj", &[inner, hidden]);
        add("mlp.up_proj", &[inner, hidden]);
        add("mlp.down_proj", &[hidden, inner]);
        tensors.extend(grouped_tensors(config, &grouped, &format!("{prefix}.self_attn")));
    }
    tensors
}

fn grouped_tensors(config: &ModelConfig, grouped: &GroupedConfig, prefix: &str) -> Vec<TensorSpec> {
    let hidden = config.hidden_size;
    let (queries, keys) = (config.num_attention_heads * grouped.head_dim, grouped.key_width());
    let mut tensors = Vec::new();
    for (name, rows) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
        tensors.push(TensorSpec::new(format!("{prefix}.{name}.weight"), [rows, hidden]));
        if grouped.qkv_bias {
            tensors.push(TensorSpec::new(format!("{prefix}.{name}.bias"), [rows]));
        }
    }
    tensors.push(TensorSpec::new(format!("{prefix}.o_proj.weight"), [hidden, queries]));
    if grouped.output_bias {
        tensors.push(TensorSpec::new(format!("{prefix}.o_proj.bias"), [hidden]));
    }
    let heads = [
        ("q_norm", config.num_attention_heads),
        ("k_norm", grouped.num_key_value_heads),
    ];
    for (name, heads) in heads {
        if let Some(width) = config.family.qk_norm.width(heads, grouped.head_dim) {
            tensors.push(TensorSpec::new(format!("{prefix}.{name}.weight"), [width]));
        }
    }
    tensors
}

fn latent_tensors(config: &ModelConfig, latent: &LatentConfig, prefix: &str) -> Vec<TensorSpec> {
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let (rank, rope) = (latent.kv_lora_rank, latent.qk_rope_head_dim);
    let query_norm = config.family.qk_norm.width(heads, latent.qk_nope_head_dim);
    let query_rows = config.query_rows(latent);
    let norms = latent.latent_norm_eps.is_some();
    let mut tensors = Vec::new();
    let mut add = |name: &str, shape: &[usize]| tensors.push(TensorSpec::new(format!("{prefix}.{name}.weight"), shape));
    match latent.q_lora_rank {
        None => add("q_proj", &[query_rows, hidden]),
        Some(q_rank) => {
            add("q_a_proj", &[q_rank, hidden]);
            if norms {
                add("q_a_layernorm", &[q_rank]);
            }
            add("q_b_proj", &[query_rows, q_rank]);
        }
    }
    if let Some(width) = query_norm {
        add("q_norm", &[width]);
        add("q_rope_proj", &[heads * rope, latent.qk_nope_head_dim]);
    }
    if let (Some(scales), Some(rows)) = (latent.key_norm_heads, latent.key_norm_rows()) {
        add("k_proj", &[rows, hidden]);
        add("k_norm", &[scales]);
    }
    add("kv_a_proj_with_mqa", &[latent.down_rows(), hidden]);
    if norms {
        add("kv_a_layernorm", &[rank]);
    }
    if !latent.tied {
        add(
            "kv_b_proj",
            &[heads * (latent.qk_nope_head_dim + latent.v_head_dim), rank],
        );
    }
    add("o_proj", &[hidden, heads * latent.v_head_dim]);
    tensors
}
