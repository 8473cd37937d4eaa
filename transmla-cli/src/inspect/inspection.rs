//! What a model is, and what it can be converted to, as numbers.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use transmla_convert::{
    KeyNorm, LARGEST_RECIPE, RECIPE_FILE, Recipe, approximation, auto_obstacle, has_weights, shapes_for_budget,
};
use transmla_core::checkpoint::read_regular_text;
use transmla_core::model::{carried_tensors, check_headers, model_tensors, unused_tensors};
use transmla_core::{AttentionConfig, Checkpoint, ModelConfig};

use crate::flags;
use crate::latents::numbers_by_devices;
use crate::model::{ModelFolder, declared_bytes};
use crate::table::bytes_by_format;

/// Tokens that cache sizes are told for.
pub(super) const TOKENS: usize = 1000;

/// Budgets that shapes are suggested for.
const BUDGETS: [f64; 2] = [0.5, 0.25];

#[derive(Debug, Serialize)]
pub(super) struct Inspection {
    pub(super) model_path: String,
    pub(super) model_type: String,
    pub(super) family: &'static str,
    pub(super) layers: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) attention_heads: usize,
    pub(super) vocab_size: usize,
    pub(super) context: usize,
    #[serde(flatten)]
    pub(super) weights: Weights,
    pub(super) kv_cache: CacheSize,
    pub(super) attention: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conversion: Option<Conversion>,
    pub(super) suggestions: Vec<Suggestion>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) converted_from: Option<String>,
}

impl Inspection {
    /// Reads config.json, the headers of the weights if there are any, and the recipe of a converted model.
    ///
    /// # Errors
    /// Headers that cannot be read or do not fit the configuration.
    pub(super) fn new(model_path: &str, folder: &ModelFolder, config: &ModelConfig) -> anyhow::Result<Self> {
        let weights = match has_weights(folder.path()) {
            true => Weights::read(folder.path(), config)?,
            false => Weights::implied(config),
        };
        let numbers = config.attention.cache_numbers();
        let recipe = read_regular_text(&folder.path().join(RECIPE_FILE), LARGEST_RECIPE).ok();
        Ok(Self {
            model_path: model_path.to_owned(),
            model_type: config.model_type.clone(),
            family: config.family.class_prefix,
            layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            attention_heads: config.num_attention_heads,
            vocab_size: config.vocab_size,
            context: config.max_position_embeddings,
            weights,
            kv_cache: CacheSize {
                numbers_per_token_and_layer: numbers,
                mib_per_1000_tokens_bf16: mebibytes(numbers, config.num_hidden_layers),
                numbers_per_device: numbers_by_devices(config),
                bytes_per_token_and_layer: bytes_by_format(config),
            },
            attention: attention(config),
            conversion: conversion(config),
            suggestions: suggestions(config),
            notes: config.notes.clone(),
            converted_from: recipe.and_then(|text| Some(Recipe::from_toml(&text).ok()?.model_path)),
        })
    }
}

/// The weights that are there, or that config.json implies.
#[derive(Debug, Serialize)]
pub(super) struct Weights {
    pub(super) parameters: u64,
    pub(super) weight_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<&'static str>,
    pub(super) dtypes: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unused_tensors: Vec<String>,
}

impl Weights {
    fn read(folder: &Path, config: &ModelConfig) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        check_headers(config, &checkpoint)?;
        let mut dtypes = BTreeMap::new();
        let mut parameters = 0;
        for name in checkpoint.names() {
            parameters += checkpoint.shape(name)?.iter().product::<usize>() as u64;
            *dtypes.entry(checkpoint.dtype(name)?.to_string()).or_insert(0) += 1;
        }
        Ok(Self {
            parameters,
            weight_bytes: checkpoint.total_bytes(),
            format: Some(checkpoint.format()),
            dtypes,
            unused_tensors: unused_tensors(config, &checkpoint).map(str::to_owned).collect(),
        })
    }

    fn implied(config: &ModelConfig) -> Self {
        let tensors = model_tensors(config).into_iter().chain(carried_tensors(config));
        let parameters = tensors.map(|spec| spec.elements() as u64).sum();
        Self {
            parameters,
            weight_bytes: parameters * declared_bytes(config),
            format: None,
            dtypes: BTreeMap::new(),
            unused_tensors: Vec::new(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct CacheSize {
    pub(super) numbers_per_token_and_layer: usize,
    pub(super) mib_per_1000_tokens_bf16: f64,
    /// By format, scales included; those that the model's cache can have.
    /// Of devices that share the heads, by their number.
    pub(super) numbers_per_device: BTreeMap<usize, usize>,
    pub(super) bytes_per_token_and_layer: BTreeMap<String, usize>,
}

/// What a conversion keeps; nothing for a model that is converted already.
#[derive(Debug, Serialize)]
pub(super) struct Conversion {
    pub(super) exact: bool,
    pub(super) approximation: Option<String>,
    pub(super) class: String,
    pub(super) deepseek_style: bool,
    pub(super) deepseek_style_obstacle: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Suggestion {
    pub(super) kv_budget: String,
    pub(super) qk_mqa_dim: usize,
    pub(super) kv_lora_rank: usize,
    /// Numbers of each token and layer that a cache of these shapes has.
    pub(super) cache_numbers: usize,
}

/// Mebibytes of a cache of [`TOKENS`] tokens in bf16.
pub(super) fn mebibytes(numbers: usize, layers: usize) -> f64 {
    (numbers * layers * TOKENS * 2) as f64 / f64::from(1 << 20)
}

fn attention(config: &ModelConfig) -> Value {
    match &config.attention {
        AttentionConfig::Grouped(grouped) => json!({
            "kind": "grouped",
            "num_key_value_heads": grouped.num_key_value_heads,
            "head_dim": grouped.head_dim,
            "rope_theta": rope_theta(config),
            "qkv_bias": grouped.qkv_bias,
            "output_bias": grouped.output_bias,
        }),
        AttentionConfig::Latent(latent) => json!({
            "kind": "latent",
            "q_lora_rank": latent.q_lora_rank,
            "latent_groups": latent.latent_groups,
            "tied_latent": latent.tied,
            "kv_lora_rank": latent.kv_lora_rank,
            "qk_nope_head_dim": latent.qk_nope_head_dim,
            "qk_rope_head_dim": latent.qk_rope_head_dim,
            "v_head_dim": latent.v_head_dim,
            "rope_theta": rope_theta(config),
            "latent_norms": latent.latent_norm_eps.is_some(),
            "key_norm_heads": latent.key_norm_heads,
            "key_norm_width": latent.key_norm_width,
        }),
    }
}

/// A number, or a list with one for each layer where they differ.
fn rope_theta(config: &ModelConfig) -> Value {
    match config.rope.turning().count() {
        0 | 1 => json!(config.rope.main().theta),
        _ => (0..config.num_hidden_layers)
            .map(|layer| config.rope.of(layer).theta)
            .collect(),
    }
}

fn conversion(config: &ModelConfig) -> Option<Conversion> {
    config.grouped()?;
    let recipe = Recipe::default();
    let (approximation, obstacle) = (
        approximation(config, KeyNorm::chosen(&recipe, config)).map(flags::spell),
        auto_obstacle(config, &recipe),
    );
    Some(Conversion {
        exact: approximation.is_none(),
        approximation,
        class: config.family.latent_class(),
        deepseek_style: obstacle.is_none(),
        deepseek_style_obstacle: obstacle.map(|text| flags::spell(&text)),
    })
}

/// Shapes for some budgets; none for a model that is converted already, or too small for the budget.
fn suggestions(config: &ModelConfig) -> Vec<Suggestion> {
    let scales = KeyNorm::chosen(&Recipe::default(), config).scales(config);
    let suggest = |budget: &f64| {
        let (qk_mqa_dim, kv_lora_rank) = shapes_for_budget(config, *budget, scales).ok()?;
        Some(Suggestion {
            kv_budget: format!("{}%", budget * 100.0),
            qk_mqa_dim,
            kv_lora_rank,
            cache_numbers: qk_mqa_dim + kv_lora_rank + scales,
        })
    };
    BUDGETS.iter().filter_map(suggest).collect()
}
