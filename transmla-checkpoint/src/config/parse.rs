//! From config.json to [`ModelConfig`], refusing what the decoder cannot run.

use std::path::Path;

use super::attention::AttentionConfig;
use super::experts::ExpertConfig;
use super::family::{RopeRule, SoftCaps};
use super::features::{Activation, SlidingWindow, layers_with_positions};
use super::form::{Form, find_family};
use super::grouped::GroupedConfig;
use super::json::Keys;
use super::latent::LatentConfig;
use super::layer_ropes::LayerRopes;
use super::model::ModelConfig;
use super::mtp::MtpConfig;
use super::multipliers::Factors;
use super::raw::RawConfig;
use super::refused::refuse_unsupported;
use super::rope::{RopeConfig, RopeLayout};
use super::scaling::{RopeKeys, RopeScaling, deepseek_score_factor};
use crate::checkpoint::folder::{missing_config, not_what_it_should_be};
use crate::checkpoint::reader::Checkpoint;
use crate::checkpoint::regular::{is_there, read_regular};
use crate::error::CheckpointError;
use crate::gguf;

/// Maximum size in bytes of a config.json; those of the largest models have some tens of KiB.
const LARGEST_CONFIG: u64 = 16 << 20;

impl ModelConfig {
    /// Reads `config.json` of a model folder, or what a GGUF file says in its place, and, where weights lie beside it, what their headers say against it.
    ///
    /// # Errors
    /// The file is missing or not JSON, a required key is absent, the model needs a feature that is not supported, or there
    /// are weights that cannot be opened.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let config = Self::read_alone(folder)?;
        if !Checkpoint::is_in(folder) {
            return Ok(config);
        }
        let mut config = config.with_headers(&Checkpoint::open(folder)?)?;
        if folder.join("adapter_config.json").is_file() {
            let note = "an adapter lies beside the weights, which are taken as they are: it is not applied";
            config.notes.push(note.into());
        }
        Ok(config)
    }

    /// Reads `config.json` of a model folder and nothing else.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_alone(folder: &Path) -> Result<Self, CheckpointError> {
        if let Some(first) = gguf::locate(folder)? {
            return Self::from_json(gguf::config(&first)?);
        }
        let path = folder.join("config.json");
        if !is_there(&path) {
            return Err(missing_config(folder));
        }
        let invalid = |problem: String| CheckpointError::Json {
            path: path.clone(),
            problem,
        };
        let bytes = read_regular(&path, LARGEST_CONFIG)?;
        // Some editors start a file with a byte order mark.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let raw = RawConfig::from_slice(text).map_err(|e| {
            let other = not_what_it_should_be(&bytes);
            invalid(match other {
                Some(what) => format!("is {what}"),
                None if e.is_data() => format!("holds no JSON object: {e}"),
                None => format!("is not valid JSON: {e}; download it again, or correct it there"),
            })
        })?;
        Self::from_json(raw)
    }

    /// Interprets the keys of a config.json.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_json(raw: impl Into<RawConfig>) -> Result<Self, CheckpointError> {
        Self::from_raw(raw.into())
    }

    fn from_raw(raw: RawConfig) -> Result<Self, CheckpointError> {
        let keys = Keys(raw.keys());
        let (family, form) = find_family(&keys)?;
        refuse_unsupported(&keys, family, form)?;

        let defaults = &family.defaults;
        let rms_norm_eps = keys.number("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps);
        let num_attention_heads = keys.size_of("num_attention_heads", defaults)?;
        let hidden_size = keys.size_of("hidden_size", defaults)?;
        let attention = match form {
            Form::Grouped => {
                AttentionConfig::Grouped(GroupedConfig::read(&keys, family, num_attention_heads, hidden_size)?)
            }
            Form::LatentFamily => AttentionConfig::Latent(LatentConfig::read(
                &keys,
                Some(family),
                num_attention_heads,
                rms_norm_eps,
            )?),
            Form::DeepseekV3 => {
                AttentionConfig::Latent(LatentConfig::read(&keys, None, num_attention_heads, rms_norm_eps)?)
            }
        };
        let num_hidden_layers = keys.depth_of("num_hidden_layers", defaults)?;
        let context = keys.tokens("max_position_embeddings")?;
        let max_position_embeddings = context.unwrap_or(defaults.max_position_embeddings);
        let (query_width, rope_dim) = match &attention {
            AttentionConfig::Grouped(grouped) => (grouped.head_dim, grouped.head_dim),
            AttentionConfig::Latent(latent) => (latent.query_width(), latent.qk_rope_head_dim),
        };
        let window = SlidingWindow::read(&keys, family, num_hidden_layers)?;
        let positions = |keys: RopeKeys| RopeConfig {
            theta: keys.theta,
            dim: rope_dim,
            rotated: rope_dim,
            layout: match form {
                Form::Grouped => RopeLayout::HalfSplit,
                _ => RopeLayout::Interleaved,
            },
            scaling: keys.scaling,
        };
        let (rope, rope_limit) = match family.rope {
            RopeRule::Same | RopeRule::Unscaled => {
                let read = RopeKeys::read(&keys, family, max_position_embeddings)?;
                (LayerRopes::same(positions(read)), read.limit)
            }
            RopeRule::SomeLayers => {
                let read = RopeKeys::read(&keys, family, max_position_embeddings)?;
                let turning = positions(read);
                let still = RopeConfig {
                    rotated: 0,
                    scaling: RopeScaling::Default,
                    ..turning
                };
                let turns = layers_with_positions(&keys, family, num_hidden_layers)?;
                let of_layer = |layer: usize| if turns[layer] { turning } else { still };
                let ropes = LayerRopes::by_layer(of_layer(0), (1..num_hidden_layers).map(of_layer));
                (ropes, read.limit)
            }
            RopeRule::ByWindow => {
                let [full, sliding] = RopeKeys::read_both(&keys, family, max_position_embeddings)?;
                let of_layer = |layer: usize| match window.as_ref().is_some_and(|window| window.covers(layer)) {
                    true => positions(sliding),
                    false => positions(full),
                };
                let ropes = LayerRopes::by_layer(of_layer(0), (1..num_hidden_layers).map(of_layer));
                (ropes, full.limit.or(sliding.limit))
            }
        };
        let mut factors = Factors::read(&keys, family, hidden_size, query_width, form)?;
        if form == Form::DeepseekV3 {
            factors.scores *= deepseek_score_factor(&keys)?;
        }
        let soft_cap = |counts: bool, key: &str, default: Option<f64>| match counts && !keys.is_null(key) {
            true => Ok(keys.number(key)?.or(default)),
            false => Ok(None),
        };
        Ok(Self {
            model_type: keys.text("model_type")?.to_owned(),
            family,
            hidden_size,
            intermediate_size: keys.size_of("intermediate_size", defaults)?,
            num_hidden_layers,
            num_attention_heads,
            vocab_size: keys.vocabulary("vocab_size", defaults)?,
            max_position_embeddings,
            rms_norm_eps,
            tie_word_embeddings: keys.flag_or("tie_word_embeddings", family.tied_by_default)?,
            activation: Activation::read(&keys, family)?,
            embedding_scale: factors.embeddings,
            score_scale: factors.scores,
            residual_multiplier: factors.residual,
            logit_divisor: factors.logits,
            score_softcap: soft_cap(
                family.soft_caps == SoftCaps::ScoresAndLogits,
                "attn_logit_softcapping",
                defaults.attn_logit_softcapping,
            )?,
            logit_softcap: soft_cap(
                family.soft_caps != SoftCaps::Never,
                "final_logit_softcapping",
                defaults.final_logit_softcapping,
            )?,
            window,
            experts: ExpertConfig::read(&keys, family, num_hidden_layers)?,
            mtp: MtpConfig::read(&keys, family, &attention)?,
            rope,
            rope_limit,
            attention,
            eos_token_ids: keys.token_ids("eos_token_id", defaults.eos_token_id),
            bos_token_id: keys.token_ids("bos_token_id", defaults.bos_token_id).first().copied(),
            raw,
            notes: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value, json};

    fn llama() -> Map<String, Value> {
        let value = json!({
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
            "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "rope_scaling": null, "hidden_act": "silu", "tie_word_embeddings": true,
        });
        value.as_object().cloned().unwrap()
    }

    fn with(key: &str, value: Value) -> Result<ModelConfig, CheckpointError> {
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
        assert_eq!(config.rope.of(0).frequencies()[1], 10000f64.powf(-0.25));
    }

    #[test]
    fn refuses_what_it_cannot_run_by_name() {
        for (key, value, word) in [
            ("model_type", json!("mamba"), "mamba"),
            ("model_type", json!("qwen3_5_moe"), "\"qwen3_5_moe\""),
            ("model_type", json!("qwen3_5_moe_text"), "\"qwen3_5_moe_text\""),
            ("model_type", json!("qwen3_vl_moe"), "\"qwen3_vl_moe\""),
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
            ("rope_scaling", json!({"type": "dynamic"}), "factor"),
            ("rope_scaling", json!({"type": "yarn"}), "factor"),
            (
                "rope_scaling",
                json!({"type": "mrope", "mrope_section": [1, 1, 2]}),
                "mrope",
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
            ("num_key_value_heads", json!(3), "does not divide"),
            ("hidden_size", json!(-1), "hidden_size"),
            ("hidden_size", json!(null), "hidden_size"),
            ("head_dim", json!(7), "even"),
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
        assert_eq!(config.attention_parameters(0).window, Some(24));
        assert_eq!(
            (
                config.attention_parameters(1).window,
                config.attention_parameters(1).softcap
            ),
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
        assert_eq!(
            (
                listed.attention_parameters(0).window,
                listed.attention_parameters(3).window
            ),
            (None, Some(24))
        );
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
}
