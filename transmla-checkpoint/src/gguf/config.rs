//! The keys of a file as config.json.

use serde_json::{Map, Value, json};

use super::architecture::Windows;
use super::model::Model;
use super::rope;
use crate::error::CheckpointError;

/// Keys of things that no supported family has, and the value that means nothing.
const REFUSED: &[(&str, f64)] = &[
    ("logit_scale", 1.0),
    ("embedding_scale", 1.0),
    ("residual_scale", 1.0),
    ("attention.scale", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.temperature_scale", 0.0),
    ("rope.scaling.attn_factor", 1.0),
    ("rope.scaling.yarn_log_multiplier", 0.0),
    ("expert_shared_count", 0.0),
    ("leading_dense_block_count", 0.0),
    ("nextn_predict_layers", 0.0),
    // Softmax.
    ("expert_gating_func", 1.0),
];

/// Base of RoPE's frequencies where no key says it: llama.cpp's, and that of Gemma 3's layers with a window.
const THETA: f64 = 10_000.0;

/// Most layers.
const MOST_LAYERS: u64 = 1 << 16;

/// The keys of config.json that a file's own amount to.
///
/// # Errors
/// A key is missing, or asks for what no supported family has.
pub(super) fn config(model: &Model) -> Result<Map<String, Value>, CheckpointError> {
    let (header, architecture) = (model.main(), model.architecture);
    for (key, nothing) in REFUSED {
        let key = model.key(key);
        if let Some(found) = header.number(&key).filter(|found| found != nothing) {
            return Err(header.invalid(format!("{key} is {found}, which no supported family has")));
        }
    }
    if header.flag(&model.key("attention.causal")) == Some(false) {
        return Err(header.invalid("its attention is not to earlier tokens alone"));
    }
    let heads = model.required("attention.head_count")?;
    let hidden = model.required("embedding_length")?;
    let head = match model.size("attention.key_length")? {
        Some(width) => width,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(header.invalid(format!("{hidden} are not divided by {heads} heads"))),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(found) = model.size(key)?.filter(|found| *found != head) {
            return Err(header.invalid(format!(
                "{} is {found} where heads have {head} dimensions, which no supported family has",
                model.key(key)
            )));
        }
    }
    let eps = model.key("attention.layer_norm_rms_epsilon");
    let eps = header
        .number(&eps)
        .ok_or_else(|| header.invalid(format!("the key {eps} is missing")))?;
    let layers = model.required("block_count")?;
    if layers > MOST_LAYERS {
        return Err(header.invalid(format!("it announces {layers} layers")));
    }
    let experts = model.size("expert_count")?.filter(|count| *count > 0);
    let window = model.size("attention.sliding_window")?.filter(|window| *window > 0);
    let window = window.filter(|_| architecture.windows != Windows::Never);
    let model_type = match (experts, architecture.with_experts, window, architecture.with_window) {
        (Some(_), Some(model_type), ..) | (None, _, Some(_), Some(model_type)) => model_type,
        (Some(count), None, ..) => {
            return Err(header.invalid(format!(
                "it has {count} experts, which no family of its architecture here has"
            )));
        }
        _ => architecture.model_type,
    };
    let mut out = Map::new();
    let mut set = |key: &str, value: Value| out.insert(key.to_owned(), value);
    set("model_type", json!(model_type));
    set("hidden_size", json!(hidden));
    set("intermediate_size", json!(model.required("feed_forward_length")?));
    set("num_hidden_layers", json!(layers));
    set("num_attention_heads", json!(heads));
    set(
        "num_key_value_heads",
        json!(model.size("attention.head_count_kv")?.unwrap_or(heads)),
    );
    set("head_dim", json!(head));
    set("vocab_size", json!(model.vocabulary()?));
    set("max_position_embeddings", json!(model.required("context_length")?));
    set("rms_norm_eps", json!(eps));
    set("tie_word_embeddings", json!(!model.has("output.weight")));
    set("torch_dtype", json!("bfloat16"));
    biases(model, model_type, &mut set)?;
    if let Some(count) = experts {
        set("num_local_experts", json!(count));
        set("num_experts_per_tok", json!(model.required("expert_used_count")?));
        expert_keys(model, layers, &mut set)?;
    }
    windows(model, window, layers, &mut set)?;
    rope_keys(model, &mut set)?;
    if let Some(of_hidden) = architecture.scaled_by_hidden {
        let scalar = match layers == of_hidden && heads > 0 {
            true => hidden / heads,
            false => head,
        };
        set("query_pre_attn_scalar", json!(scalar));
        for (name, default) in ["attn_logit_softcapping", "final_logit_softcapping"]
            .iter()
            .zip(architecture.soft_caps)
        {
            set(name, json!(header.number(&model.key(name)).or(default)));
        }
    }
    let id = |key: &str| header.integer(&format!("tokenizer.ggml.{key}_token_id"));
    set("bos_token_id", json!(id("bos")));
    let mut ends: Vec<u64> = [id("eos"), id("eot")].into_iter().flatten().collect();
    ends.dedup();
    set(
        "eos_token_id",
        match ends[..] {
            [] => Value::Null,
            [end] => json!(end),
            _ => json!(ends),
        },
    );
    Ok(out)
}

/// Biases by the tensors that there are.
fn biases(
    model: &Model,
    model_type: &str,
    set: &mut dyn FnMut(&str, Value) -> Option<Value>,
) -> Result<(), CheckpointError> {
    let there = ["attn_q", "attn_output"].map(|name| model.has(&format!("blk.0.{name}.bias")));
    match (model_type, there) {
        (_, [false, false]) => {
            set("attention_bias", json!(false));
            set("qkv_bias", json!(false));
        }
        ("qwen2", [true, false]) => {}
        ("qwen2_moe", [true, false]) => drop(set("qkv_bias", json!(true))),
        ("llama" | "qwen3" | "qwen3_moe" | "gemma2" | "gemma3_text", [true, _]) => {
            drop(set("attention_bias", json!(true)))
        }
        _ => {
            return Err(model
                .main()
                .invalid(format!("it has biases of attention, which {model_type} has not")));
        }
    }
    Ok(())
}

/// Widths of experts, and what else their family has keys for.
fn expert_keys(
    model: &Model,
    layers: u64,
    set: &mut dyn FnMut(&str, Value) -> Option<Value>,
) -> Result<(), CheckpointError> {
    let (header, normalised) = (model.main(), model.architecture.normalised_shares);
    let key = model.key("expert_weights_norm");
    if let Some(found) = header.flag(&key).filter(|found| *found != normalised) {
        return Err(header.invalid(format!(
            "{key} is {found}, which {} does not have in llama.cpp",
            model.architecture.name
        )));
    }
    let Some(rule) = model.architecture.experts().filter(|rule| rule.by_keys) else {
        return Ok(());
    };
    set(
        "moe_intermediate_size",
        json!(model.required("expert_feed_forward_length")?),
    );
    set("norm_topk_prob", json!(normalised));
    let with_experts = model.layers_with_experts();
    let dense: Vec<u64> = (0..layers).filter(|layer| !with_experts.contains(layer)).collect();
    set("mlp_only_layers", json!(dense));
    set("decoder_sparse_step", json!(1));
    if rule.shared {
        set(
            "shared_expert_intermediate_size",
            json!(model.required("expert_shared_feed_forward_length")?),
        );
    }
    Ok(())
}

/// Which layers have a window.
fn windows(
    model: &Model,
    window: Option<u64>,
    layers: u64,
    set: &mut dyn FnMut(&str, Value) -> Option<Value>,
) -> Result<(), CheckpointError> {
    let every = match model.architecture.windows {
        Windows::Never => {
            set("use_sliding_window", json!(false));
            return Ok(());
        }
        Windows::ByKey => {
            set("sliding_window", json!(window));
            return Ok(());
        }
        Windows::Every(usual) => usual,
    };
    let header = model.main();
    let key = model.key("attention.sliding_window_pattern");
    let listed = header.numbers(&key)?;
    let every = header.integer(&key).unwrap_or(every).max(1);
    let kinds = (0..layers).map(|layer| {
        let sliding = match &listed {
            Some(listed) => listed.get(layer as usize).is_some_and(|sliding| *sliding != 0.0),
            None => (layer + 1) % every != 0,
        };
        match sliding && window.is_some() {
            true => "sliding_attention",
            false => "full_attention",
        }
    });
    let kinds: Vec<&str> = kinds.collect();
    set("sliding_window", json!(window));
    set("layer_types", json!(kinds));
    Ok(())
}

/// RoPE: its base, and how frequencies are scaled.
fn rope_keys(model: &Model, set: &mut dyn FnMut(&str, Value) -> Option<Value>) -> Result<(), CheckpointError> {
    let header = model.main();
    let theta = header.number(&model.key("rope.freq_base")).unwrap_or(THETA);
    set("rope_theta", json!(theta));
    if model.architecture.name == "gemma3" {
        let local = header.number(&model.key("rope.freq_base_swa")).unwrap_or(THETA);
        set("rope_local_base_freq", json!(local));
    }
    let number = |key: &str| header.number(&model.key(key));
    let factor = number("rope.scaling.factor").or(number("rope.scale_linear"));
    let kind = header.text(&model.key("rope.scaling.type"));
    let needed =
        || factor.ok_or_else(|| header.invalid(format!("the key {} is missing", model.key("rope.scaling.factor"))));
    let mut scaling = match kind {
        None if factor.is_none_or(|factor| factor == 1.0) => None,
        Some("none") => None,
        None | Some("linear") => Some(json!({"rope_type": "linear", "factor": needed()?})),
        Some("yarn") => {
            let mut yarn = Map::new();
            yarn.insert("rope_type".into(), json!("yarn"));
            yarn.insert("factor".into(), json!(needed()?));
            for (key, name) in [
                (
                    "rope.scaling.original_context_length",
                    "original_max_position_embeddings",
                ),
                ("rope.scaling.yarn_beta_fast", "beta_fast"),
                ("rope.scaling.yarn_beta_slow", "beta_slow"),
            ] {
                if let Some(found) = number(key) {
                    yarn.insert(name.into(), json!(found));
                }
            }
            Some(Value::Object(yarn))
        }
        Some(other) => {
            return Err(CheckpointError::Unsupported {
                feature: "RoPE scaling of a GGUF file",
                found: other.to_owned(),
                supported: "none, linear, yarn, and Llama 3's by the tensor rope_freqs.weight".into(),
            });
        }
    };
    if let Some(factors) = model.rotary_factors()? {
        let refuse = |problem: &str| Err(header.invalid(format!("its tensor rope_freqs.weight {problem}")));
        match (rope::scaling(&factors, theta), &scaling) {
            (Some(None), _) => {}
            (Some(found), None) => scaling = found,
            (Some(_), Some(_)) => return refuse("scales RoPE a second time, beside its keys"),
            (None, _) => {
                return refuse("has factors that are not those of Llama 3's scaling, the only one that is read");
            }
        }
    }
    set("rope_scaling", scaling.unwrap_or(Value::Null));
    Ok(())
}
