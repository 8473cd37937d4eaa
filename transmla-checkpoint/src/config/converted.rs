//! The configuration of a converted model, made from that of its source.

use super::attention::AttentionConfig;
use super::family::DEEPSEEK;
use super::features::{Activation, SlidingWindow, WindowLayers};
use super::latent::LatentConfig;
use super::latent_json::{LatentForm, LatentStyle};
use super::layer_ropes::LayerRopes;
use super::model::ModelConfig;
use super::rope::{RopeConfig, RopeLayout};
use super::scaling::RopeScaling;

impl ModelConfig {
    /// The configuration of this model converted to the given latent shapes: what reading [`Self::latent_json`] gives, but for
    /// [`Self::raw`], which is empty.
    pub fn converted(&self, latent: &LatentConfig, form: &LatentForm) -> Self {
        let scaled = form.style == LatentStyle::Family || form.scaled_rope;
        let ropes = match form.style {
            LatentStyle::Family => self.rope.clone(),
            // Stock code has one for all layers; rotary keys of zeros turn without a difference.
            LatentStyle::DeepseekV3 => LayerRopes::same(*self.rope.main()),
        };
        let rope = ropes.map(|source| RopeConfig {
            theta: source.theta,
            dim: latent.qk_rope_head_dim,
            rotated: match source.has_positions() || form.style == LatentStyle::DeepseekV3 {
                true => latent.qk_rope_head_dim,
                false => 0,
            },
            layout: RopeLayout::Interleaved,
            scaling: match scaled {
                true => source.scaling,
                false => RopeScaling::Default,
            },
        });
        let family_form = Self {
            model_type: self.family.latent_model_type(),
            rms_norm_eps: form.rms_norm_eps,
            score_scale: (latent.query_width() as f64).powf(-0.5),
            window: self.listed_window(),
            rope,
            // The frequencies that are written are left as they are in longer texts.
            rope_limit: None,
            attention: AttentionConfig::Latent(latent.clone()),
            raw: Default::default(),
            notes: Vec::new(),
            ..self.clone()
        };
        match form.style {
            LatentStyle::Family => family_form,
            LatentStyle::DeepseekV3 => Self {
                model_type: DEEPSEEK.model_type.to_owned(),
                family: &DEEPSEEK,
                tie_word_embeddings: false,
                activation: Activation::Silu,
                embedding_scale: 1.0,
                residual_multiplier: 1.0,
                logit_divisor: 1.0,
                score_softcap: None,
                logit_softcap: None,
                window: None,
                experts: None,
                mtp: None,
                ..family_form
            },
        }
    }

    /// The window with every layer listed, where the family's configuration lists them.
    fn listed_window(&self) -> Option<SlidingWindow> {
        let window = self.window.as_ref()?;
        let listed = || (0..self.num_hidden_layers).map(|layer| window.covers(layer)).collect();
        Some(SlidingWindow {
            size: window.size,
            layers: match self.family.layer_types {
                true => WindowLayers::Listed(listed()),
                false => window.layers.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::checkpoint::StorageDtype;
    use crate::config::{FAMILIES, QueryKeyNorm, RopeRule};
    use crate::error::CheckpointError;

    /// Reads what is written for a source, and compares.
    fn check(source: &ModelConfig, latent: &LatentConfig, form: &LatentForm) {
        let read = ModelConfig::from_json(source.latent_json(latent, form)).unwrap();
        let expected = ModelConfig {
            raw: Default::default(),
            ..read
        };
        assert_eq!(source.converted(latent, form), expected);
    }

    fn source(model_type: &str, more: &Value) -> Result<ModelConfig, CheckpointError> {
        let mut raw = json!({
            "model_type": model_type, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 40,
            "moe_intermediate_size": 12, "shared_expert_intermediate_size": 20,
        });
        raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ModelConfig::from_json(raw.as_object().unwrap().clone())
    }

    #[test]
    fn it_is_what_its_config_json_says() {
        let llama3 = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        let types = ["full_attention", "sliding_attention", "full_attention"];
        // Without a list Gemma 3's pattern would ask for a window.
        let full = ["full_attention"; 3];
        let variants = [
            json!({}),
            json!({"tie_word_embeddings": true, "rms_norm_eps": 3e-7, "rope_theta": 12_345.5}),
            json!({"tie_word_embeddings": false, "attention_bias": true, "bos_token_id": null, "eos_token_id": [3, 4]}),
            json!({"rope_scaling": llama3}),
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.0}}),
            json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 77}),
            json!({"sliding_window": 5, "use_sliding_window": true, "max_window_layers": 1}),
            json!({"sliding_window": 5, "use_sliding_window": true, "layer_types": types}),
            json!({"sliding_window": null, "layer_types": full, "num_nextn_predict_layers": 2}),
            json!({
                "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.015625,
                "logits_scaling": 8.0, "no_rope_layers": [0, 1, 1], "use_sliding_window": true, "sliding_window": 5,
            }),
            json!({"no_rope_layers": [0, 0, 0]}),
            json!({"norm_topk_prob": true, "mlp_only_layers": [1], "num_experts": 9, "num_experts_per_tok": 3}),
            json!({"decoder_sparse_step": 4}),
            json!({"attn_logit_softcapping": 6.0, "final_logit_softcapping": null, "query_pre_attn_scalar": 144}),
        ];
        for family in FAMILIES {
            for more in &variants {
                let source = source(family.model_type, more);
                if family.rope == RopeRule::Unscaled && more.get("rope_scaling").is_some() {
                    source.unwrap_err();
                    continue;
                }
                let source = source.unwrap();
                for (style, q_lora_rank) in [(LatentStyle::Family, None), (LatentStyle::DeepseekV3, Some(8))] {
                    for scaled_rope in [false, true] {
                        let stock = style == LatentStyle::DeepseekV3;
                        let form = LatentForm {
                            style,
                            rms_norm_eps: if stock { 1e-6 } else { source.rms_norm_eps },
                            dtype: StorageDtype::Bf16,
                            scaled_rope,
                        };
                        let latent = LatentConfig {
                            q_lora_rank,
                            latent_groups: 1,
                            tied: false,
                            kv_lora_rank: 6,
                            qk_nope_head_dim: 8,
                            qk_rope_head_dim: 4,
                            v_head_dim: 8,
                            latent_norm_eps: stock.then_some(1e-6),
                            biases: source.grouped().unwrap().qkv_bias,
                            key_norm_heads: (family.qk_norm.is_there() && !stock).then_some(1),
                            key_norm_width: (family.qk_norm == QueryKeyNorm::AllHeads && !stock).then_some(8),
                        };
                        check(&source, &latent, &form);
                        if !stock && !family.qk_norm.is_there() {
                            let grouped = LatentConfig {
                                latent_groups: 2,
                                tied: true,
                                kv_lora_rank: 8,
                                ..latent
                            };
                            check(&source, &grouped, &form);
                        }
                    }
                }
            }
        }
    }
}
