//! A saved model in stock form as one GGUF file, for llama.cpp's `deepseek2`.

mod vocabulary;

use std::path::Path;

use transmla_core::checkpoint::{GgufTensor, GgufValue, GgufWriter};
use transmla_core::config::RopeScaling;
use transmla_core::model::layer_prefix;
use transmla_core::{AttentionConfig, Checkpoint, LatentConfig, ModelConfig, StorageDtype};

use crate::latent_norm::LatentNorm;
use crate::{ConvertError, FileFormat, Plan};

/// A tensor of the file, and where it comes from.
struct Entry {
    target: String,
    source: String,
    shape: Vec<usize>,
    part: Part,
}

/// What of a source tensor is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// The key rows of each head of `kv_b_proj`, transposed: `[H, r, d]`.
    Keys,
    /// Its value rows, `[H, d_v, r]`.
    Values,
    /// No tensor: a small multiple of the identity.
    Identity,
    /// No tensor: the norm that makes the identity of it.
    IdentityNorm,
}

/// Writes a saved stock DeepSeek-V3 model with dense layers as GGUF, in the number format of its weights; norms in f32.
///
/// llama.cpp runs it by its absorbed form, with one latent per token in the cache. `pre_tokenizer` is llama.cpp's name for
/// how a byte-level tokenizer splits text, where that cannot be told from tokenizer.json.
///
/// # Errors
/// The model is not in stock form, its tokenizer cannot be expressed, a tensor cannot be read, or the file not written.
pub fn write_gguf(folder: &Path, target: &Path, pre_tokenizer: Option<&str>) -> Result<(), ConvertError> {
    let config = ModelConfig::read(folder)?;
    let AttentionConfig::Latent(latent) = &config.attention else {
        return Err(ConvertError::NotLatent {
            model_type: config.model_type.clone(),
        });
    };
    let refuse = |problem: String| Err(ConvertError::Gguf { problem });
    if config.model_type != "deepseek_v3" {
        return refuse(format!(
            "llama.cpp knows DeepSeek's form alone, and this is a {}",
            config.model_type
        ));
    }
    if config.rope.scaling != RopeScaling::Default || latent.biases {
        return refuse("llama.cpp's deepseek2 has no biases, and of RoPE scaling only YaRN".into());
    }
    let checkpoint = Checkpoint::open(folder)?;
    transmla_core::model::check_headers(&config, &checkpoint)?;
    let dtype = StorageDtype::from_safetensors(checkpoint.dtype("model.embed_tokens.weight")?).unwrap_or_default();
    let mut keys = model_keys(&config, latent, dtype);
    keys.extend(vocabulary::keys(folder, &config, pre_tokenizer)?);
    let entries = entries(&config, latent);
    let tensor = |entry: &Entry| GgufTensor {
        name: entry.target.clone(),
        shape: target_shape(entry, &config, latent),
        dtype: match (entry.shape.len(), entry.part, dtype) {
            // ggml's norms take f32 weights, and half precision has no numbers as small as those of the identity.
            (1, _, _) | (_, Part::Identity, StorageDtype::F16) => StorageDtype::F32,
            _ => dtype,
        },
    };
    let mut writer = GgufWriter::create(target, &keys, entries.iter().map(tensor).collect())?;
    for entry in &entries {
        let values = match entry.part {
            Part::Identity => identity(config.hidden_size),
            Part::IdentityNorm => vec![LatentNorm::IDENTITY.weight as f32; config.hidden_size],
            kept => part(kept, checkpoint.values(&entry.source, &entry.shape)?, &config, latent),
        };
        writer.write(&entry.target, &values)?;
    }
    Ok(writer.commit()?)
}

/// Whether a source's tokenizer can go into a GGUF file, where the plan asks for one.
///
/// # Errors
/// [`ConvertError::Gguf`] with what is in the way.
pub fn check_gguf(plan: &Plan, source: &Path) -> Result<(), ConvertError> {
    match plan.options.format {
        FileFormat::Safetensors => Ok(()),
        FileFormat::Gguf => vocabulary::keys(source, &plan.target, plan.options.pre_tokenizer.as_deref()).map(|_| ()),
    }
}

fn model_keys(config: &ModelConfig, latent: &LatentConfig, dtype: StorageDtype) -> Vec<(String, GgufValue)> {
    let mut keys = vec![
        ("general.architecture".to_owned(), GgufValue::Text("deepseek2".into())),
        (
            "general.file_type".into(),
            GgufValue::U32(match dtype {
                StorageDtype::F32 => 0,
                StorageDtype::F16 => 1,
                StorageDtype::Bf16 => 32,
            }),
        ),
    ];
    let mut size = |key: &str, number: usize| {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        keys.push((format!("deepseek2.{key}"), GgufValue::U32(number)));
    };
    let rope = latent.qk_rope_head_dim;
    size("block_count", config.num_hidden_layers);
    size("context_length", config.max_position_embeddings);
    size("embedding_length", config.hidden_size);
    size("feed_forward_length", config.intermediate_size);
    size("vocab_size", config.vocab_size);
    size("attention.head_count", config.num_attention_heads);
    // Absorbed, all heads share the latent.
    size("attention.head_count_kv", 1);
    // Its loader knows full queries in models of some numbers of layers alone.
    size(
        "attention.q_lora_rank",
        latent.q_lora_rank.unwrap_or(config.hidden_size),
    );
    size("attention.kv_lora_rank", latent.kv_lora_rank);
    size("attention.key_length", latent.kv_lora_rank + rope);
    size("attention.value_length", latent.kv_lora_rank);
    size("attention.key_length_mla", latent.query_width());
    size("attention.value_length_mla", latent.v_head_dim);
    size("rope.dimension_count", rope);
    // No layer has experts; the loader asks for these all the same.
    size("leading_dense_block_count", config.num_hidden_layers);
    size("expert_feed_forward_length", config.intermediate_size);
    size("expert_shared_count", 0);
    let mut number = |key: &str, value: f64| {
        keys.push((format!("deepseek2.{key}"), GgufValue::F32(value as f32)));
    };
    number("rope.freq_base", config.rope.theta);
    number("attention.layer_norm_rms_epsilon", config.rms_norm_eps);
    keys
}

fn entries(config: &ModelConfig, latent: &LatentConfig) -> Vec<Entry> {
    let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    let (rank, rope, queries) = (
        latent.kv_lora_rank,
        latent.qk_rope_head_dim,
        heads * latent.query_width(),
    );
    let mut entries = Vec::new();
    let mut add = |target: String, source: String, shape: &[usize], part: Part| {
        entries.push(Entry {
            target: format!("{target}.weight"),
            source: format!("{source}.weight"),
            shape: shape.to_vec(),
            part,
        });
    };
    let vocabulary = [config.vocab_size, hidden];
    add(
        "token_embd".into(),
        "model.embed_tokens".into(),
        &vocabulary,
        Part::Whole,
    );
    for layer in 0..config.num_hidden_layers {
        let prefix = layer_prefix(layer);
        let queries_from = match latent.q_lora_rank {
            Some(_) => "q_b_proj",
            None => {
                let made = |name: &str| format!("blk.{layer}.{name}");
                add(made("attn_q_a"), String::new(), &[hidden, hidden], Part::Identity);
                add(made("attn_q_a_norm"), String::new(), &[hidden], Part::IdentityNorm);
                "q_proj"
            }
        };
        let mut whole = |target: &str, source: &str, shape: &[usize]| {
            add(
                format!("blk.{layer}.{target}"),
                format!("{prefix}.{source}"),
                shape,
                Part::Whole,
            );
        };
        whole("attn_norm", "input_layernorm", &[hidden]);
        if let Some(rank) = latent.q_lora_rank {
            whole("attn_q_a", "self_attn.q_a_proj", &[rank, hidden]);
            whole("attn_q_a_norm", "self_attn.q_a_layernorm", &[rank]);
        }
        let query_rank = latent.q_lora_rank.unwrap_or(hidden);
        whole("attn_q_b", &format!("self_attn.{queries_from}"), &[queries, query_rank]);
        whole("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", &[rank + rope, hidden]);
        whole("attn_kv_a_norm", "self_attn.kv_a_layernorm", &[rank]);
        whole("attn_output", "self_attn.o_proj", &[hidden, heads * latent.v_head_dim]);
        whole("ffn_norm", "post_attention_layernorm", &[hidden]);
        whole("ffn_gate", "mlp.gate_proj", &[inner, hidden]);
        whole("ffn_up", "mlp.up_proj", &[inner, hidden]);
        whole("ffn_down", "mlp.down_proj", &[hidden, inner]);
        let up = [heads * (latent.qk_nope_head_dim + latent.v_head_dim), rank];
        for (target, part) in [("attn_k_b", Part::Keys), ("attn_v_b", Part::Values)] {
            add(
                format!("blk.{layer}.{target}"),
                format!("{prefix}.self_attn.kv_b_proj"),
                &up,
                part,
            );
        }
    }
    add("output_norm".into(), "model.norm".into(), &[hidden], Part::Whole);
    if !config.tie_word_embeddings {
        add("output".into(), "lm_head".into(), &vocabulary, Part::Whole);
    }
    entries
}

/// A query latent that is the input itself, small enough for its norm to be the identity.
fn identity(width: usize) -> Vec<f32> {
    let mut values = vec![0.0; width * width];
    values
        .iter_mut()
        .step_by(width + 1)
        .for_each(|value| *value = LatentNorm::IDENTITY.scale as f32);
    values
}

fn target_shape(entry: &Entry, config: &ModelConfig, latent: &LatentConfig) -> Vec<usize> {
    let (heads, rank) = (config.num_attention_heads, latent.kv_lora_rank);
    match entry.part {
        Part::Whole | Part::Identity | Part::IdentityNorm => entry.shape.clone(),
        Part::Keys => vec![heads, rank, latent.qk_nope_head_dim],
        Part::Values => vec![heads, latent.v_head_dim, rank],
    }
}

fn part(part: Part, values: Vec<f32>, config: &ModelConfig, latent: &LatentConfig) -> Vec<f32> {
    let (nope, value, rank) = (latent.qk_nope_head_dim, latent.v_head_dim, latent.kv_lora_rank);
    if part == Part::Whole {
        return values;
    }
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
