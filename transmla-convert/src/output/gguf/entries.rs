//! The tensors of the file: their names in GGUF, and where each comes from.

use transmla_core::model::layer_prefix;
use transmla_core::{LatentConfig, ModelConfig};

/// A tensor of the file, and where it comes from.
pub(super) struct Entry {
    pub name: String,
    /// Its name in a checkpoint.
    pub source: String,
    /// Its shape there.
    pub shape: Vec<usize>,
    pub part: Part,
    pub place: Place,
    /// The layer that it belongs to.
    pub layer: Option<usize>,
}

/// What of a source tensor is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// The key rows of each head of `kv_b_proj`, transposed: `[H, r, d]`.
    Keys,
    /// Its value rows, `[H, d_v, r]`.
    Values,
}

/// What a tensor does to the residual stream, which says what the file's form changes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// One of the attention's, all of which are made anew.
    Attention,
    /// The norm in front of it.
    InputNorm,
    /// What it gives is added to the stream.
    AddedToResidual,
    Elsewhere,
}

/// The tensors in the order of the file; `query_rank` is the width of its query latent, or nothing for full queries.
pub(super) fn entries(config: &ModelConfig, latent: &LatentConfig, query_rank: Option<usize>) -> Vec<Entry> {
    let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    let (rank, rope, queries) = (
        latent.kv_lora_rank,
        latent.qk_rope_head_dim,
        heads * latent.query_width(),
    );
    let mut entries = Vec::new();
    let mut add = |layer: Option<usize>, name: String, source: String, shape: &[usize], place: Place| {
        entries.push(Entry {
            name: format!("{name}.weight"),
            source: format!("{source}.weight"),
            shape: shape.to_vec(),
            part: match name.rsplit('.').next() {
                Some("attn_k_b") => Part::Keys,
                Some("attn_v_b") => Part::Values,
                _ => Part::Whole,
            },
            place,
            layer,
        });
    };
    let vocabulary = [config.vocab_size, hidden];
    let embedding = "model.embed_tokens".to_owned();
    add(
        None,
        "token_embd".into(),
        embedding,
        &vocabulary,
        Place::AddedToResidual,
    );
    let up = [heads * (latent.qk_nope_head_dim + latent.v_head_dim), rank];
    for layer in 0..config.num_hidden_layers {
        let prefix = layer_prefix(layer);
        let mut of_layer = |name: &str, source: &str, shape: &[usize], place: Place| {
            let (name, source) = (format!("blk.{layer}.{name}"), format!("{prefix}.{source}"));
            add(Some(layer), name, source, shape, place);
        };
        of_layer("attn_norm", "input_layernorm", &[hidden], Place::InputNorm);
        let mut attention = |name: &str, source: &str, shape: &[usize]| {
            of_layer(name, &format!("self_attn.{source}"), shape, Place::Attention);
        };
        match query_rank {
            None => attention("attn_q", "q_proj", &[queries, hidden]),
            Some(query_rank) => {
                attention("attn_q_a", "q_a_proj", &[query_rank, hidden]);
                attention("attn_q_a_norm", "q_a_layernorm", &[query_rank]);
                attention("attn_q_b", "q_b_proj", &[queries, query_rank]);
            }
        }
        attention("attn_kv_a_mqa", "kv_a_proj_with_mqa", &[rank + rope, hidden]);
        attention("attn_kv_a_norm", "kv_a_layernorm", &[rank]);
        attention("attn_output", "o_proj", &[hidden, heads * latent.v_head_dim]);
        attention("attn_k_b", "kv_b_proj", &up);
        attention("attn_v_b", "kv_b_proj", &up);
        of_layer("ffn_norm", "post_attention_layernorm", &[hidden], Place::Elsewhere);
        of_layer("ffn_gate", "mlp.gate_proj", &[inner, hidden], Place::Elsewhere);
        of_layer("ffn_up", "mlp.up_proj", &[inner, hidden], Place::Elsewhere);
        of_layer("ffn_down", "mlp.down_proj", &[hidden, inner], Place::AddedToResidual);
    }
    add(
        None,
        "output_norm".into(),
        "model.norm".into(),
        &[hidden],
        Place::Elsewhere,
    );
    if !config.tie_word_embeddings {
        add(None, "output".into(), "lm_head".into(), &vocabulary, Place::Elsewhere);
    }
    entries
}

/// Its shape in the file.
pub(super) fn target_shape(entry: &Entry, config: &ModelConfig, latent: &LatentConfig) -> Vec<usize> {
    let (heads, rank) = (config.num_attention_heads, latent.kv_lora_rank);
    match entry.part {
        Part::Whole => entry.shape.clone(),
        Part::Keys => vec![heads, rank, latent.qk_nope_head_dim],
        Part::Values => vec![heads, latent.v_head_dim, rank],
    }
}

/// A part of `kv_b_proj` as the file has it.
pub(super) fn part(part: Part, values: &[f32], config: &ModelConfig, latent: &LatentConfig) -> Vec<f32> {
    let (nope, value, rank) = (latent.qk_nope_head_dim, latent.v_head_dim, latent.kv_lora_rank);
    let mut out = Vec::with_capacity(values.len());
    for head in values
        .chunks_exact((nope + value) * rank)
        .take(config.num_attention_heads)
    {
        let (keys, up) = head.split_at(nope * rank);
        match part {
            Part::Keys => (0..rank).for_each(|j| out.extend(keys.iter().skip(j).step_by(rank))),
            _ => out.extend_from_slice(up),
        }
    }
    out
}
