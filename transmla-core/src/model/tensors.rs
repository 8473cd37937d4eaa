//! The tensors that a configuration implies, by their names in Hugging Face checkpoints.

use super::layer::layer_prefix;
use crate::config::GroupedConfig;
use crate::{AttentionConfig, Checkpoint, CoreError, LatentConfig, ModelConfig, TensorSpec};

/// Every tensor that a model of this configuration must have, layer after layer.
///
/// Optional biases of latent attention are not among them: the checkpoint says which exist.
pub fn model_tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    tensor_groups(config).flatten().collect()
}

/// [`model_tensors`] in groups, each made when it is asked for.
fn tensor_groups(config: &ModelConfig) -> impl Iterator<Item = Vec<TensorSpec>> {
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

/// The tensors of one layer that attention conversion leaves as they are: norms and MLP.
pub fn residual_tensors(config: &ModelConfig, index: usize) -> Vec<TensorSpec> {
    let prefix = layer_prefix(index);
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    vec![
        TensorSpec::new(format!("{prefix}.input_layernorm.weight"), [hidden]),
        TensorSpec::new(format!("{prefix}.post_attention_layernorm.weight"), [hidden]),
        TensorSpec::new(format!("{prefix}.mlp.gate_proj.weight"), [inner, hidden]),
        TensorSpec::new(format!("{prefix}.mlp.up_proj.weight"), [inner, hidden]),
        TensorSpec::new(format!("{prefix}.mlp.down_proj.weight"), [hidden, inner]),
    ]
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
    tensors
}

fn latent_tensors(config: &ModelConfig, latent: &LatentConfig, prefix: &str) -> Vec<TensorSpec> {
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let query_rows = heads * latent.query_width();
    let (rank, rope) = (latent.kv_lora_rank, latent.qk_rope_head_dim);
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
    add("kv_a_proj_with_mqa", &[rank + rope, hidden]);
    if norms {
        add("kv_a_layernorm", &[rank]);
    }
    add(
        "kv_b_proj",
        &[heads * (latent.qk_nope_head_dim + latent.v_head_dim), rank],
    );
    add("o_proj", &[hidden, heads * latent.v_head_dim]);
    tensors
}

/// Checks a checkpoint's headers against a configuration, before any weight is read.
///
/// # Errors
/// A tensor is absent, has another shape or an unusable number format, or a layer has a tensor that the decoder would
/// ignore (a bias or norm of a variant it does not know).
pub fn check_headers(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<(), CoreError> {
    // The first layer that is not there ends this, however many a damaged configuration claims.
    let mut known = std::collections::BTreeSet::new();
    for spec in tensor_groups(config).flatten() {
        checkpoint.check(&spec.name, &spec.shape)?;
        known.insert(spec.name);
    }
    let optional = |name: &str| match &config.attention {
        AttentionConfig::Latent(latent) => latent.biases && name.contains(".self_attn.") && name.ends_with(".bias"),
        AttentionConfig::Grouped(_) => false,
    };
    // Some exporters keep the rotary table, and the output head of a tied model; both are derived from the rest.
    let derived = |name: &str| name.ends_with(".rotary_emb.inv_freq") || name == "lm_head.weight";
    match checkpoint
        .names()
        .find(|name| !known.contains(*name) && !optional(name) && !derived(name))
    {
        None => Ok(()),
        Some(name) => Err(CoreError::Unsupported {
            feature: "tensor",
            found: format!(
                "{name}, which a {} of this configuration does not have",
                config.model_type
            ),
            supported: "checkpoints whose every tensor the decoder uses".into(),
        }),
    }
}
