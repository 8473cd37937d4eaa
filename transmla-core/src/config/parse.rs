//! From config.json to [`ModelConfig`], refusing what the decoder cannot run.

use std::path::Path;

use serde_json::{Map, Value};

use super::family::DEEPSEEK;
use super::json::Keys;
use super::{
    AttentionConfig, BiasRule, FAMILIES, Family, GroupedConfig, LatentConfig, ModelConfig, RopeConfig, RopeLayout,
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
        let rope = RopeConfig {
            theta: read_theta(&keys)?,
            dim: match &attention {
                AttentionConfig::Grouped(grouped) => grouped.head_dim,
                AttentionConfig::Latent(latent) => latent.qk_rope_head_dim,
            },
            layout: match form {
                Form::Grouped => RopeLayout::HalfSplit,
                _ => RopeLayout::Interleaved,
            },
        };
        Ok(Self {
            model_type: model_type.to_owned(),
            family,
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            num_hidden_layers: keys.size("num_hidden_layers")?,
            num_attention_heads,
            vocab_size: keys.vocabulary("vocab_size")?,
            max_position_embeddings: keys.tokens("max_position_embeddings")?.unwrap_or(2048),
            rms_norm_eps,
            tie_word_embeddings: keys.flag("tie_word_embeddings")?,
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
    refuse_rope_variants(keys)?;
    if let Some(found) = keys.get("sliding_window") {
        // Qwen2 carries a window that use_sliding_window switches on; Mistral's is on when present.
        let used = keys.get("use_sliding_window").is_none_or(|v| v == &Value::Bool(true));
        if used {
            return refuse("sliding-window attention", found, "sliding_window null");
        }
    }
    if let Some(found) = keys.get("hidden_act").filter(|v| v.as_str() != Some("silu")) {
        return refuse("hidden_act", found, "silu");
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

fn refuse_rope_variants(keys: &Keys<'_>) -> Result<(), CoreError> {
    let refuse = |feature: &'static str, found: &Value, supported: &str| {
        Err(CoreError::Unsupported {
            feature,
            found: found.to_string(),
            supported: supported.to_owned(),
        })
    };
    let partial = |keys: &Keys<'_>| match keys.get("partial_rotary_factor") {
        Some(found) if found.as_f64() != Some(1.0) => refuse("partial_rotary_factor", found, "1"),
        _ => Ok(()),
    };
    partial(keys)?;
    for key in ["rope_scaling", "rope_parameters"] {
        let rope = match keys.get(key) {
            Some(Value::Object(rope)) => Keys(rope),
            Some(found) => return Err(CoreError::config(key, format!("{found} is not an object"))),
            None => continue,
        };
        let kind = rope.get("rope_type").or_else(|| rope.get("type"));
        let scaled = rope.get("factor").is_some();
        if kind.is_some_and(|kind| kind != "default") || (kind.is_none() && scaled) {
            return refuse("RoPE scaling", &Value::Object(rope.0.clone()), "rope_type default");
        }
        partial(&rope)?;
    }
    Ok(())
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
    let nested = match keys.get("rope_parameters") {
        Some(Value::Object(rope)) => Keys(rope).number("rope_theta")?,
        _ => None,
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
            ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0}), "yarn"),
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
    fn an_unused_window_is_no_obstacle() {
        let mut raw = llama();
        raw.insert("sliding_window".into(), json!(4096));
        raw.insert("use_sliding_window".into(), json!(false));
        assert!(ModelConfig::from_json(raw).is_ok());
    }
}
