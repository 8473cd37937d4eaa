//! What `transmla inspect` tells people.

use transmla_core::config::{
    ExpertConfig, GroupedConfig, LatentConfig, Multipliers, NormPlacement, QueryKeyNorm, RopeScaling,
};
use transmla_core::{AttentionConfig, ModelConfig};

use super::inspection::{Conversion, Inspection, Suggestion, TOKENS, Weights, mebibytes};
use crate::latents;
use crate::table::{self, Table};

/// The whole table.
pub fn describe(it: &Inspection, config: &ModelConfig) -> Table {
    let mut table = Table::new(it.model_path.clone());
    table.row("family", format!("{} (model_type {})", it.family, it.model_type));
    table.row(
        "shape",
        format!(
            "{} layers, hidden {}, MLP {}, vocabulary {}, context {}",
            it.layers, it.hidden_size, it.intermediate_size, it.vocab_size, it.context
        ),
    );
    match &config.attention {
        AttentionConfig::Grouped(grouped) => grouped_attention(&mut table, config, grouped),
        AttentionConfig::Latent(latent) => latent_attention(&mut table, config, latent),
    }
    let features = features(config);
    if !features.is_empty() {
        table.row("with", features.join(", "));
    }
    weights(&mut table, &it.weights);
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
    if config.grouped().is_none() {
        table.row("", format!("per token and layer {}", table::token_bytes(config)));
    }
    if let Some(source) = &it.converted_from {
        table.row("converted", format!("from {source}; transmla.toml is the recipe"));
    }
    if let Some(found) = &it.conversion {
        conversion(&mut table, config, found);
    }
    suggestions(&mut table, &it.suggestions, it.layers);
    table
}

fn grouped_attention(table: &mut Table, config: &ModelConfig, grouped: &GroupedConfig) {
    let biases = match (grouped.qkv_bias, grouped.output_bias) {
        (true, true) => ", biases on q, k, v, o",
        (true, false) => ", biases on q, k, v",
        (false, true) => ", a bias on o",
        (false, false) => "",
    };
    let (queries, theta) = (config.num_attention_heads, thetas(config));
    let (heads, width) = (grouped.num_key_value_heads, grouped.head_dim);
    table.row(
        "attention",
        format!("{queries} query heads, {heads} key/value heads of {width}, RoPE theta {theta}{biases}"),
    );
}

fn latent_attention(table: &mut Table, config: &ModelConfig, latent: &LatentConfig) {
    let (heads, theta) = (config.num_attention_heads, thetas(config));
    table.row(
        "attention",
        format!("{heads} heads, {}, RoPE theta {theta}", latents::describe(latent)),
    );
    if let Some(devices) = latents::per_device(config) {
        table.row("", devices);
    }
    let queries = latent
        .q_lora_rank
        .map_or("full".to_owned(), |rank| format!("rank {rank}"));
    let norms = if latent.latent_norm_eps.is_some() { "with" } else { "no" };
    let scales = latent
        .key_norm_heads
        .map_or_else(String::new, |heads| format!(", {heads} cached scales of key norms"));
    table.row(
        "",
        format!(
            "keys without position {} and values {} per head, queries {queries}, {norms} latent norms{scales}",
            latent.qk_nope_head_dim, latent.v_head_dim
        ),
    );
}

/// The base of RoPE's frequencies, or each with the number of layers that have it.
fn thetas(config: &ModelConfig) -> String {
    let kinds = config.rope.kinds();
    if config.rope.turning().count() < 2 {
        return config.rope.main().theta.to_string();
    }
    let described = kinds.iter().enumerate().map(|(kind, rope)| {
        let layers = (0..config.num_hidden_layers)
            .filter(|layer| config.rope.kind_of(*layer) == kind)
            .count();
        format!("{} on {layers} layers", rope.theta)
    });
    described.collect::<Vec<_>>().join(" and ")
}

/// The experts of a model: how many, how wide where that is not the MLP's width, and in which layers.
fn experts(it: &ExpertConfig, config: &ModelConfig) -> String {
    let mut text = format!("{} experts, {} per token", it.count, it.per_token);
    if it.rule.by_keys {
        text += &format!(", each of {}", it.width);
    }
    if let Some(width) = it.shared_width {
        text += &format!(", one shared of {width}");
    }
    if !it.dense_layers.is_empty() {
        let sparse = config.num_hidden_layers - it.dense_layers.len();
        text += &format!(", on {sparse} of {} layers", config.num_hidden_layers);
    }
    text
}

/// What the family adds to the plain decoder.
fn features(config: &ModelConfig) -> Vec<String> {
    let mut features = Vec::new();
    let mut add = |feature: Option<String>| features.extend(feature);
    let still = (0..config.num_hidden_layers)
        .filter(|layer| !config.rope.of(*layer).has_positions())
        .count();
    add((still > 0).then(|| format!("no positions on {}", table::plural(still, "layer"))));
    for rope in config.rope.kinds() {
        add((rope.scaling != RopeScaling::Default).then(|| {
            let layers = match config.rope.turning().count() {
                1 => String::new(),
                _ => format!(" where theta is {}", rope.theta),
            };
            format!("RoPE scaling {}{layers}", rope.scaling.rope_type())
        }));
    }
    add(config
        .rope_limit
        .map(|limit| format!("dynamic RoPE scaling, run up to {limit} tokens, where it changes nothing")));
    add(config.window.as_ref().map(|window| {
        let layers = (0..config.num_hidden_layers)
            .filter(|layer| window.covers(*layer))
            .count();
        format!("a window of {} tokens on {layers} layers", window.size)
    }));
    add(config.experts.as_ref().map(|it| experts(it, config)));
    let normalised = match &config.attention {
        AttentionConfig::Latent(latent) if latent.key_norm_heads.is_none() => "normalised queries",
        AttentionConfig::Latent(_) | AttentionConfig::Grouped(_) => "normalised queries and keys",
    };
    add(match config.family.qk_norm {
        QueryKeyNorm::Never => None,
        QueryKeyNorm::EachHead => Some(normalised.into()),
        QueryKeyNorm::AllHeads => Some(format!("{normalised}, all heads together")),
    });
    let behind = config.family.norm_placement == NormPlacement::After;
    add(behind.then(|| "norms behind attention and MLP, none in front".into()));
    add((config.family.multipliers == Multipliers::Keys).then(|| {
        format!(
            "embeddings times {}, scores times {}, additions to the residual stream times {}, logits divided by {}",
            config.embedding_scale, config.score_scale, config.residual_multiplier, config.logit_divisor
        )
    }));
    add(config.score_softcap.map(|cap| format!("scores up to {cap}")));
    add(config.logit_softcap.map(|cap| format!("logits up to {cap}")));
    add(config
        .mtp
        .map(|it| table::plural(it.layers, "multi-token-prediction layer") + ", carried over"));
    features
}

fn weights(table: &mut Table, weights: &Weights) {
    let dtypes: Vec<String> = weights.dtypes.keys().map(|dtype| dtype.to_lowercase()).collect();
    table.row(
        "weights",
        format!(
            "{} parameters, {} ({})",
            table::count(weights.parameters),
            table::bytes(weights.weight_bytes),
            match dtypes.is_empty() {
                true => "by config.json; there are none here".to_owned(),
                false => weights.format.map_or_else(String::new, |format| format!("{format}: ")) + &dtypes.join(", "),
            }
        ),
    );
    if let [first, rest @ ..] = &weights.unused_tensors[..] {
        let more = match rest.len() {
            0 => String::new(),
            more => format!(" and {} like it", table::plural(more, "tensor")),
        };
        table.row("", format!("{first}{more}, no part of the language model, left out"));
    }
}

fn conversion(table: &mut Table, config: &ModelConfig, conversion: &Conversion) {
    table.row(
        "conversion",
        match &conversion.approximation {
            None => "exact in form: what is lost is what the smaller cache leaves out".into(),
            Some(why) => format!("approximate: {why}"),
        },
    );
    let has_biases = config
        .grouped()
        .is_some_and(|grouped| grouped.qkv_bias || grouped.output_bias);
    let biases = match has_biases {
        true => " with biases (for transformers, mlx, mistralrs and vLLM's plugin)",
        false => "",
    };
    let class = &conversion.class;
    table.row(
        "",
        match &conversion.deepseek_style_obstacle {
            None => format!("as stock DeepseekV3ForCausalLM{biases}, or {class} with --style family"),
            Some(why) => format!("as {class} with its code, not stock: {why}"),
        },
    );
}

fn suggestions(table: &mut Table, suggestions: &[Suggestion], layers: usize) {
    for (index, suggestion) in suggestions.iter().enumerate() {
        let numbers = suggestion.cache_numbers;
        table.row(
            if index == 0 { "convert with" } else { "" },
            format!(
                "--kv-budget {} (--qk-mqa-dim {} --kv-lora-rank {}): {numbers} numbers, {:.2} MiB",
                suggestion.kv_budget,
                suggestion.qk_mqa_dim,
                suggestion.kv_lora_rank,
                mebibytes(numbers, layers)
            ),
        );
    }
}
