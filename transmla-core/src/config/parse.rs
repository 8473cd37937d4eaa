//! From config.json to [`ModelConfig`], refusing what the decoder cannot run.

use std::path::Path;

use serde_json::{Map, Value};

use super::family::DEEPSEEK;
use super::json::Keys;
use super::scaling::deepseek_score_factor;
use super::{
    Activation, AttentionConfig, BiasRule, ExpertConfig, FAMILIES, Family, GroupedConfig, LatentConfig, ModelConfig,
    MtpConfig, RopeConfig, RopeLayout, RopeScaling, SlidingWindow,
};
use crate::CoreError;

impl ModelConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// The file is missing or not JSON, a required key is absent, or the model needs a feature that is not supported.
    pub fn read(folder: &Path) -> Result<Self, CoreError> {
        let path = folder.join("config.json");
        if !path.is_file() {
            return Err(CoreError::MissingFile {
                path,
                hint: "a model folder in hub layout has config.json beside its weights".into(),
            });
        }
        let text = std::fs::read_to_string(&path).map_err(|e| CoreError::io("read", &path, e))?;
        let raw: Map<String, Value> = serde_json::from_str(&text).map_err(|e| CoreError::Json {
            path: path.clone(),
            problem: e.to_string(),
        })?;
        Self::from_json(raw)
    }

    /// Interprets the keys of a config.json.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_json(raw: Map<String, Value>) -> Result<Self, CoreError> {
        let keys = Keys(&raw);
        let model_type = keys.text("model_type")?;
        let (family, form) = find_family(model_type)?;
        refuse_unsupported(&keys, form)?;

        let rms_norm_eps = keys.number("rms_norm_eps")?.unwrap_or(1e-6);
        let num_attention_heads = keys.size("num_attention_heads")?;
        let hidden_size = keys.size("hidden_size")?;
        let attention = match form {
            Form::Grouped => AttentionConfig::Grouped(read_grouped(&keys, family, num_attention_heads, hidden_size)?),
            Form::LatentFamily => AttentionConfig::Latent(LatentConfig::read(&keys, false, rms_norm_eps)?),
            Form::DeepseekV3 => AttentionConfig::Latent(LatentConfig::read(&keys, true, rms_norm_eps)?),
        };
        let num_hidden_layers = keys.layers("num_hidden_layers")?;
        let max_position_embeddings = keys.tokens("max_position_embeddings")?.unwrap_or(2048);
        let (query_width, rope_dim) = match &attention {
            AttentionConfig::Grouped(grouped) => (grouped.head_dim, grouped.head_dim),
            AttentionConfig::Latent(latent) => (latent.query_width(), latent.qk_rope_head_dim),
        };
        let rope = RopeConfig {
            theta: read_theta(&keys)?,
            dim: rope_dim,
            layout: match form {
                Form::Grouped => RopeLayout::HalfSplit,
                _ => RopeLayout::Interleaved,
            },
            scaling: RopeScaling::read(&keys, max_position_embeddings)?,
        };
        let query_scalar = match family.query_pre_attn_scalar {
            true => keys.number("query_pre_attn_scalar")?,
            false => None,
        };
        let mut score_scale = query_scalar.unwrap_or(query_width as f64).powf(-0.5);
        if form == Form::DeepseekV3 {
            score_scale *= deepseek_score_factor(&keys);
        }
        let soft_cap = |key: &str| if family.soft_caps { keys.number(key) } else { Ok(None) };
        Ok(Self {
            model_type: model_type.to_owned(),
            family,
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            vocab_size: keys.vocabulary("vocab_size")?,
            max_position_embeddings,
            rms_norm_eps,
            tie_word_embeddings: match keys.get("tie_word_embeddings") {
                None => family.tied_by_default,
                Some(_) => keys.flag("tie_word_embeddings")?,
            },
            activation: Activation::read(&keys, family)?,
            embedding_scale: match family.scaled_embeddings {
                true => (hidden_size as f64).sqrt(),
                false => 1.0,
            },
            score_scale,
            score_softcap: soft_cap("attn_logit_softcapping")?,
            logit_softcap: soft_cap("final_logit_softcapping")?,
            window: SlidingWindow::read(&keys, family, num_hidden_layers)?,
            experts: ExpertConfig::read(&keys, family)?,
            mtp: read_mtp(&keys, family, &attention)?,
            rope,
            attention,
            eos_token_ids: keys.token_ids("eos_token_id"),
            bos_token_id: keys.token_ids("bos_token_id").first().copied(),
            raw,
        })
    }
}

/// The form that a `model_type` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Grouped,
    LatentFamily,
    DeepseekV3,
}

fn find_family(model_type: &str) -> Result<(&'static Family, Form), CoreError> {
    if model_type == DEEPSEEK.model_type {
        return Ok((&DEEPSEEK, Form::DeepseekV3));
    }
    for family in FAMILIES {
        if model_type == family.model_type {
            return Ok((family, Form::Grouped));
        }
        if model_type == family.latent_model_type() {
            return Ok((family, Form::LatentFamily));
        }
    }
    let mut supported: Vec<&str> = FAMILIES.iter().map(|f| f.model_type).collect();
    supported.push(DEEPSEEK.model_type);
    Err(CoreError::Unsupported {
        feature: "model_type",
        found: format!("{model_type:?}"),
        supported: supported.join(", "),
    })
}

fn refuse_unsupported(keys: &Keys<'_>, form: Form) -> Result<(), CoreError> {
    let refuse = |feature: &'static str, found: &Value, supported: &str| {
        Err(CoreError::Unsupported {
            feature,
            found: found.to_string(),
            supported: supported.to_owned(),
        })
    };
    if let Some(found) = keys.get("quantization_config") {
        return refuse("quantization_config", found, "unquantised fp32, fp16 or bf16 weights");
    }
    for key in ["vision_config", "audio_config"] {
        if keys.get(key).is_some() {
            return refuse(
                key,
                &Value::from("present"),
                "language models alone, without towers for other inputs",
            );
        }
    }
    if let Some(found) = keys.get("mlp_bias").filter(|v| *v != &Value::Bool(false)) {
        return refuse("mlp_bias", found, "MLPs without biases");
    }
    for rope in [
        Some(keys.0),
        object(keys, "rope_scaling"),
        object(keys, "rope_parameters"),
    ] {
        let factor = rope.and_then(|rope| Keys(rope).get("partial_rotary_factor"));
        if let Some(found) = factor.filter(|found| found.as_f64() != Some(1.0)) {
            return refuse("partial_rotary_factor", found, "1");
        }
    }
    if form == Form::DeepseekV3 {
        let dense = keys.get("first_k_dense_replace").and_then(Value::as_u64).unwrap_or(0);
        if dense < keys.size("num_hidden_layers")? as u64 {
            let found = Value::from(dense);
            return refuse(
                "experts (first_k_dense_replace)",
                &found,
                "models whose layers are all dense",
            );
        }
        if keys.get("rope_interleave").is_some_and(|v| v != &Value::Bool(true)) {
            return refuse("rope_interleave", &Value::Bool(false), "true");
        }
    }
    Ok(())
}

fn object<'a>(keys: &Keys<'a>, key: &str) -> Option<&'a Map<String, Value>> {
    keys.get(key).and_then(Value::as_object)
}

/// Layers for further tokens, whose attention stays grouped when the model's own is converted.
fn read_mtp(keys: &Keys<'_>, family: &Family, attention: &AttentionConfig) -> Result<Option<MtpConfig>, CoreError> {
    // 0 is how some configurations say that there are none.
    let none = keys.get("num_nextn_predict_layers").and_then(Value::as_u64) == Some(0);
    if family.mtp_prefix.is_none() || none {
        return Ok(None);
    }
    let Some(layers) = keys.optional_size("num_nextn_predict_layers")? else {
        return Ok(None);
    };
    let (num_key_value_heads, head_dim) = match attention {
        AttentionConfig::Grouped(grouped) => (grouped.num_key_value_heads, grouped.head_dim),
        AttentionConfig::Latent(latent) => (keys.size("mtp_num_key_value_heads")?, latent.v_head_dim),
    };
    Ok(Some(MtpConfig {
        layers,
        num_key_value_heads,
        head_dim,
    }))
}

fn read_grouped(
    keys: &Keys<'_>,
    family: &Family,
    num_attention_heads: usize,
    hidden_size: usize,
) -> Result<GroupedConfig, CoreError> {
    let num_key_value_heads = keys
        .optional_size("num_key_value_heads")?
        .unwrap_or(num_attention_heads);
    if !num_attention_heads.is_multiple_of(num_key_value_heads) {
        return Err(CoreError::config(
            "num_key_value_heads",
            format!("{num_key_value_heads} does not divide num_attention_heads {num_attention_heads}"),
        ));
    }
    let head_dim = match keys.optional_size("head_dim")? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
        None => {
            return Err(CoreError::config(
                "head_dim",
                "is absent and num_attention_heads does not divide hidden_size",
            ));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(CoreError::config(
            "head_dim",
            format!("{head_dim} must be even for RoPE"),
        ));
    }
    let by_key = keys.flag("attention_bias")?;
    let (qkv_bias, output_bias) = match family.bias {
        BiasRule::Never => (false, false),
        BiasRule::AttentionBiasKey => (by_key, by_key),
        BiasRule::QueryKeyValue => (true, false),
    };
    Ok(GroupedConfig {
        num_key_value_heads,
        head_dim,
        qkv_bias,
        output_bias,
    })
}

fn read_theta(keys: &Keys<'_>) -> Result<f64, CoreError> {
    let nested = match object(keys, "rope_parameters") {
        Some(rope) => Keys(rope).number("rope_theta")?,
        None => None,
    };
    let theta = nested.or(keys.number("rope_theta")?).unwrap_or(10_000.0);
    if theta < 1.0 {
        return Err(CoreError::config("rope_theta", format!("{theta} is less than 1")));
    }
    Ok(theta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn llama() -> Map<String, Value> {
        let value = json!({
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
            "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "rope_scaling": null, "hidden_act": "silu", "tie_word_embeddings": true,
        });
        value.as_object().cloned().unwrap()
    }

    fn with(key: &str, value: Value) -> Result<ModelConfig, CoreError> {
        let mut raw = llama();
        raw.insert(key.into(), value);
        ModelConfig::from_json(raw)
    }

    #[test]
    fn reads_a_llama() {
        let config = ModelConfig::from_json(llama()).unwrap();
        let grouped = config.grouped().unwrap();
        assert_eq!((grouped.head_dim, grouped.num_key_value_heads), (8, 4));
        assert_eq!(config.attention.cache_numbers(), 64);
        assert_eq!(config.rope.frequencies()[1], 10000f64.powf(-0.25));
    }

    #[test]
    fn refuses_what_it_cannot_run_by_name() {
        for (key, value, word) in [
            ("model_type", json!("mamba"), "mamba"),
            (
                "rope_scaling",
                json!({"rope_type": "longrope", "factor": 4.0}),
                "longrope",
            ),
            (
                "rope_scaling",
                json!({"rope_type": "llama3", "factor": 4.0}),
                "low_freq_factor",
            ),
            ("rope_scaling", json!({"rope_type": "linear"}), "factor"),
            (
                "rope_scaling",
                json!({"rope_type": "linear", "factor": 0.5}),
                "less than 1",
            ),
            (
                "rope_parameters",
                json!({"full_attention": {"rope_type": "default"}}),
                "one RoPE",
            ),
            (
                "rope_parameters",
                json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
                "partial_rotary_factor",
            ),
            ("vision_config", json!({"hidden_size": 8}), "vision_config"),
            ("mlp_bias", json!(true), "mlp_bias"),
            ("quantization_config", json!({"quant_method": "gptq"}), "gptq"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("sliding_window", json!(4096), "4096"),
            ("num_key_value_heads", json!(3), "does not divide"),
            ("hidden_size", json!(-1), "hidden_size"),
            ("hidden_size", json!(null), "hidden_size"),
            ("head_dim", json!(7), "even"),
            ("rope_scaling", json!({"factor": 2.0}), "rope_type default"),
            ("rope_scaling", json!({"rope_type": 3}), "rope_type default"),
            ("rope_scaling", json!("linear"), "not an object"),
            ("rope_parameters", json!({"rope_theta": -1.0}), "rope_theta"),
            ("rope_theta", json!(0.5), "less than 1"),
            ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ] {
            let message = with(key, value).unwrap_err().to_string();
            assert!(message.contains(word), "{key}: {message}");
        }
    }

    #[test]
    fn reads_what_a_family_adds() {
        let mut raw = llama();
        for (key, value) in [
            ("model_type", json!("gemma2")),
            ("query_pre_attn_scalar", json!(16)),
            ("attn_logit_softcapping", json!(50.0)),
            ("final_logit_softcapping", json!(30.0)),
            ("sliding_window", json!(24)),
            ("hidden_activation", json!("gelu_pytorch_tanh")),
        ] {
            raw.insert(key.into(), value);
        }
        raw.remove("tie_word_embeddings");
        let config = ModelConfig::from_json(raw.clone()).unwrap();
        assert_eq!((config.score_scale, config.embedding_scale), (0.25, 8.0));
        assert_eq!(
            (config.activation, config.tie_word_embeddings),
            (Activation::GeluTanh, true)
        );
        assert_eq!(config.scoring(0).window, Some(24));
        assert_eq!(
            (config.scoring(1).window, config.scoring(1).softcap),
            (None, Some(50.0))
        );
        let types = [
            "full_attention",
            "full_attention",
            "full_attention",
            "sliding_attention",
            "full_attention",
        ];
        raw.insert("layer_types".into(), json!(types));
        let listed = ModelConfig::from_json(raw).unwrap();
        assert_eq!((listed.scoring(0).window, listed.scoring(3).window), (None, Some(24)));
    }

    #[test]
    fn experts_that_cannot_be_chosen() {
        let mut raw = llama();
        for (key, value) in [("model_type", json!("mixtral")), ("num_local_experts", json!(1))] {
            raw.insert(key.into(), value);
        }
        let error = ModelConfig::from_json(raw).unwrap_err().to_string();
        assert!(error.contains("num_experts_per_tok"), "{error}");
    }

    #[test]
    fn an_unused_window_is_no_obstacle() {
        let mut raw = llama();
        raw.insert("sliding_window".into(), json!(4096));
        raw.insert("use_sliding_window".into(), json!(false));
        assert!(ModelConfig::from_json(raw).is_ok());
    }
}
