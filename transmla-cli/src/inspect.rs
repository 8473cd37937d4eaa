//! `transmla inspect`: what a model is, and what it can be converted to.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use transmla_convert::{
    LARGEST_RECIPE, RECIPE_FILE, Recipe, approximation, auto_obstacle, has_weights, shapes_for_budget,
};
use transmla_core::checkpoint::read_regular_text;
use transmla_core::config::RopeScaling;
use transmla_core::model::{carried_tensors, check_headers, model_tensors, unused_tensors};
use transmla_core::{AttentionConfig, Checkpoint, ModelConfig};

use crate::flags;
use crate::model::declared_bytes;
use crate::options::model::ModelArguments;
use crate::options::output::OutputArguments;
use crate::printer::Printer;
use crate::table::{self, Table};

/// Show a model's shapes, the size of its KV cache, and what it can be converted to.
///
/// Reads config.json and the headers of the weights alone.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  transmla inspect --model-path org/model --json")]
pub struct InspectArguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    output: OutputArguments,
}

/// Tokens that cache sizes are told for.
const TOKENS: usize = 1000;

/// Budgets that shapes are suggested for.
const BUDGETS: [f64; 2] = [0.5, 0.25];

#[derive(Debug, Serialize)]
struct Inspection {
    model_path: String,
    model_type: String,
    family: &'static str,
    layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    attention_heads: usize,
    vocab_size: usize,
    context: usize,
    #[serde(flatten)]
    weights: Weights,
    kv_cache: CacheSize,
    attention: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversion: Option<Conversion>,
    suggestions: Vec<Suggestion>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    converted_from: Option<String>,
}

/// The weights that are there, or that config.json implies.
#[derive(Debug, Serialize)]
struct Weights {
    parameters: u64,
    weight_bytes: u64,
    dtypes: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unused_tensors: Vec<String>,
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
            dtypes: BTreeMap::new(),
            unused_tensors: Vec::new(),
        }
    }
}

#[derive(Debug, Serialize)]
struct CacheSize {
    numbers_per_token_and_layer: usize,
    mib_per_1000_tokens_bf16: f64,
}

/// What a conversion keeps; nothing for a model that is converted already.
#[derive(Debug, Serialize)]
struct Conversion {
    exact: bool,
    approximation: Option<&'static str>,
    class: String,
    deepseek_style: bool,
    deepseek_style_obstacle: Option<String>,
}

#[derive(Debug, Serialize)]
struct Suggestion {
    kv_budget: String,
    qk_mqa_dim: usize,
    kv_lora_rank: usize,
}

pub fn run(arguments: &InspectArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.output);
    let folder = arguments.model.locate(&printer)?;
    let config = ModelConfig::read(folder.path())?;
    let weights = match has_weights(folder.path()) {
        true => Weights::read(folder.path(), &config)?,
        false => Weights::implied(&config),
    };
    let numbers = config.attention.cache_numbers();
    let recipe = read_regular_text(&folder.path().join(RECIPE_FILE), LARGEST_RECIPE).ok();
    let inspection = Inspection {
        model_path: arguments.model.model_path.clone(),
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
        },
        attention: attention(&config),
        conversion: conversion(&config),
        suggestions: suggestions(&config),
        notes: config.notes.clone(),
        converted_from: recipe.and_then(|text| Some(Recipe::from_toml(&text).ok()?.model_path)),
    };
    printer.result(&describe(&inspection, &config), &inspection)
}

fn mebibytes(numbers: usize, layers: usize) -> f64 {
    (numbers * layers * TOKENS * 2) as f64 / f64::from(1 << 20)
}

fn attention(config: &ModelConfig) -> Value {
    match &config.attention {
        AttentionConfig::Grouped(grouped) => json!({
            "kind": "grouped",
            "num_key_value_heads": grouped.num_key_value_heads,
            "head_dim": grouped.head_dim,
            "rope_theta": config.rope.theta,
            "qkv_bias": grouped.qkv_bias,
            "output_bias": grouped.output_bias,
        }),
        AttentionConfig::Latent(latent) => json!({
            "kind": "latent",
            "q_lora_rank": latent.q_lora_rank,
            "kv_lora_rank": latent.kv_lora_rank,
            "qk_nope_head_dim": latent.qk_nope_head_dim,
            "qk_rope_head_dim": latent.qk_rope_head_dim,
            "v_head_dim": latent.v_head_dim,
            "rope_theta": config.rope.theta,
            "latent_norms": latent.latent_norm_eps.is_some(),
        }),
    }
}

fn conversion(config: &ModelConfig) -> Option<Conversion> {
    config.grouped()?;
    let (approximation, obstacle) = (approximation(config), auto_obstacle(config, &Recipe::default()));
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
    let suggest = |budget: &f64| {
        let (qk_mqa_dim, kv_lora_rank) = shapes_for_budget(config, *budget).ok()?;
        Some(Suggestion {
            kv_budget: format!("{}%", budget * 100.0),
            qk_mqa_dim,
            kv_lora_rank,
        })
    };
    BUDGETS.iter().filter_map(suggest).collect()
}

/// What the family adds to the plain decoder.
fn features(config: &ModelConfig) -> Vec<String> {
    let mut features = Vec::new();
    let mut add = |feature: Option<String>| features.extend(feature);
    let scaling = config.rope.scaling;
    add((scaling != RopeScaling::Default).then(|| format!("RoPE scaling {}", scaling.rope_type())));
    add(config
        .rope_limit
        .map(|limit| format!("dynamic RoPE scaling, run up to {limit} tokens, where it changes nothing")));
    add(config.window.as_ref().map(|window| {
        let layers = (0..config.num_hidden_layers)
            .filter(|layer| window.covers(*layer))
            .count();
        format!("a window of {} tokens on {layers} layers", window.size)
    }));
    add(config
        .experts
        .map(|it| format!("{} experts, {} per token", it.count, it.per_token)));
    let normalised = match config.grouped() {
        Some(_) => "normalised queries and keys",
        None => "normalised queries",
    };
    add(config.family.qk_norm.then(|| normalised.into()));
    add(config.score_softcap.map(|cap| format!("scores up to {cap}")));
    add(config.logit_softcap.map(|cap| format!("logits up to {cap}")));
    add(config
        .mtp
        .map(|it| table::plural(it.layers, "multi-token-prediction layer") + ", carried over"));
    features
}

fn describe(inspection: &Inspection, config: &ModelConfig) -> String {
    let mut table = Table::new(inspection.model_path.clone());
    let it = inspection;
    table.row("family", format!("{} (model_type {})", it.family, it.model_type));
    table.row(
        "shape",
        format!(
            "{} layers, hidden {}, MLP {}, vocabulary {}, context {}",
            it.layers, it.hidden_size, it.intermediate_size, it.vocab_size, it.context
        ),
    );
    let theta = config.rope.theta;
    match &config.attention {
        AttentionConfig::Grouped(grouped) => {
            let (heads, width) = (grouped.num_key_value_heads, grouped.head_dim);
            let queries = it.attention_heads;
            let biases = match (grouped.qkv_bias, grouped.output_bias) {
                (true, true) => ", biases on q, k, v, o",
                (true, false) => ", biases on q, k, v",
                (false, true) => ", a bias on o",
                (false, false) => "",
            };
            table.row(
                "attention",
                format!("{queries} query heads, {heads} key/value heads of {width}, RoPE theta {theta}{biases}"),
            );
        }
        AttentionConfig::Latent(latent) => {
            let queries = latent
                .q_lora_rank
                .map_or("full".to_owned(), |rank| format!("rank {rank}"));
            table.row(
                "attention",
                format!(
                    "{} heads, latent {}, shared rotary key {}, RoPE theta {theta}",
                    it.attention_heads, latent.kv_lora_rank, latent.qk_rope_head_dim
                ),
            );
            let norms = if latent.latent_norm_eps.is_some() { "with" } else { "no" };
            table.row(
                "",
                format!(
                    "keys without position {} and values {} per head, queries {queries}, {norms} latent norms",
                    latent.qk_nope_head_dim, latent.v_head_dim
                ),
            );
        }
    }
    let features = features(config);
    if !features.is_empty() {
        table.row("with", features.join(", "));
    }
    let dtypes: Vec<String> = it.weights.dtypes.keys().map(|dtype| dtype.to_lowercase()).collect();
    table.row(
        "weights",
        format!(
            "{} parameters, {} ({})",
            table::count(it.weights.parameters),
            table::bytes(it.weights.weight_bytes),
            match dtypes.is_empty() {
                true => "by config.json; there are none here".to_owned(),
                false => dtypes.join(", "),
            }
        ),
    );
    if let [first, rest @ ..] = &it.weights.unused_tensors[..] {
        let more = match rest.len() {
            0 => String::new(),
            more => format!(" and {} like it", table::plural(more, "tensor")),
        };
        table.row("", format!("{first}{more}, no part of the language model, left out"));
    }
    for note in &it.notes {
        table.row("note", note.clone());
    }
    table.row(
        "KV cache",
        format!(
            "{} numbers per token and layer, {:.2} MiB per {TOKENS} tokens in bf16",
            it.kv_cache.numbers_per_token_and_layer, it.kv_cache.mib_per_1000_tokens_bf16
        ),
    );
    if let Some(source) = &it.converted_from {
        table.row("converted", format!("from {source}; transmla.toml is the recipe"));
    }
    if let Some(conversion) = &it.conversion {
        table.row(
            "conversion",
            match conversion.approximation {
                None => "exact in form: what is lost is what the smaller cache leaves out".into(),
                Some(why) => format!("approximate: {why}"),
            },
        );
        table.row(
            "",
            match &conversion.deepseek_style_obstacle {
                None => format!(
                    "as stock DeepseekV3ForCausalLM{}, or {} with --style family",
                    match config
                        .grouped()
                        .is_some_and(|grouped| grouped.qkv_bias || grouped.output_bias)
                    {
                        true => " with biases, which transformers alone runs",
                        false => "",
                    },
                    conversion.class
                ),
                Some(why) => format!("as {} with its code, not stock: {why}", conversion.class),
            },
        );
    }
    for (index, suggestion) in it.suggestions.iter().enumerate() {
        let numbers = suggestion.qk_mqa_dim + suggestion.kv_lora_rank;
        table.row(
            if index == 0 { "convert with" } else { "" },
            format!(
                "--kv-budget {} (--qk-mqa-dim {} --kv-lora-rank {}): {numbers} numbers, {:.2} MiB",
                suggestion.kv_budget,
                suggestion.qk_mqa_dim,
                suggestion.kv_lora_rank,
                mebibytes(numbers, it.layers)
            ),
        );
    }
    table.to_string()
}
