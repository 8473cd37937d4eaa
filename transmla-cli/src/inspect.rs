//! `transmla inspect`: what a model is, and what it can be converted to.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use transmla_convert::{Recipe, shapes_for_budget};
use transmla_core::model::check_headers;
use transmla_core::{AttentionConfig, Checkpoint, ModelConfig};

use crate::arguments::{ModelArguments, OutputArguments};
use crate::printer::Printer;
use crate::table::{self, Table};

/// Show a model's shapes, the size of its KV cache, and what it can be converted to.
///
/// Reads config.json and the headers of the weights alone.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  transmla inspect --model-path org/model --format json")]
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
    parameters: u64,
    weight_bytes: u64,
    dtypes: BTreeMap<String, usize>,
    kv_cache: CacheSize,
    attention: Value,
    suggestions: Vec<Suggestion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    converted_from: Option<String>,
}

#[derive(Debug, Serialize)]
struct CacheSize {
    numbers_per_token_and_layer: usize,
    mib_per_1000_tokens_bf16: f64,
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
    let checkpoint = Checkpoint::open(folder.path())?;
    check_headers(&config, &checkpoint)?;
    let mut dtypes = BTreeMap::new();
    let mut parameters = 0;
    for name in checkpoint.names() {
        let raw = checkpoint.raw(name)?;
        parameters += raw.shape.iter().product::<usize>() as u64;
        *dtypes.entry(format!("{:?}", raw.dtype)).or_insert(0) += 1;
    }
    let numbers = config.attention.cache_numbers();
    let recipe = std::fs::read_to_string(folder.path().join("transmla.toml")).ok();
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
        parameters,
        weight_bytes: checkpoint.total_bytes(),
        dtypes,
        kv_cache: CacheSize {
            numbers_per_token_and_layer: numbers,
            mib_per_1000_tokens_bf16: mebibytes(numbers, config.num_hidden_layers),
        },
        attention: attention(&config),
        suggestions: suggestions(&config),
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
            let biases = if grouped.qkv_bias { ", biases on q, k, v" } else { "" };
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
    let dtypes: Vec<String> = it.dtypes.keys().map(|dtype| dtype.to_lowercase()).collect();
    table.row(
        "weights",
        format!(
            "{} parameters, {} ({})",
            table::count(it.parameters),
            table::bytes(it.weight_bytes),
            dtypes.join(", ")
        ),
    );
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
