//! A configuration with everything said that config.json leaves to defaults, headers or a second spelling.

use serde_json::{Map, Value, json};

use super::{AttentionConfig, ModelConfig, RopeScaling, WindowLayers};

impl ModelConfig {
    /// config.json with the values that were assumed written out, one spelling of RoPE, and no key that is ignored there.
    ///
    /// A converted model's class has defaults of its own, so nothing is left to them.
    pub(super) fn settled_json(&self) -> Map<String, Value> {
        let mut out = self.raw.clone();
        for key in ["rope_parameters", "rope_scaling", "original_max_position_embeddings"] {
            out.remove(key);
        }
        if self.rope.scaling != RopeScaling::Default {
            out.insert("rope_scaling".into(), Value::Object(self.rope.scaling.parameters()));
        }
        let mut set = |key: &str, value: Value| {
            out.insert(key.to_owned(), value);
        };
        let family = self.family;
        set("rope_theta", json!(self.rope.theta));
        set("vocab_size", json!(self.vocab_size));
        set("hidden_size", json!(self.hidden_size));
        set("intermediate_size", json!(self.intermediate_size));
        set("num_hidden_layers", json!(self.num_hidden_layers));
        set("num_attention_heads", json!(self.num_attention_heads));
        set("max_position_embeddings", json!(self.max_position_embeddings));
        set("rms_norm_eps", json!(self.rms_norm_eps));
        set("tie_word_embeddings", json!(self.tie_word_embeddings));
        set(family.activation_key, json!(self.activation.name()));
        if family.soft_caps {
            set("attn_logit_softcapping", json!(self.score_softcap));
            set("final_logit_softcapping", json!(self.logit_softcap));
        }
        if let Some(experts) = self.experts {
            set("num_local_experts", json!(experts.count));
            set("num_experts_per_tok", json!(experts.per_token));
        }
        if let AttentionConfig::Grouped(grouped) = &self.attention {
            set("attention_bias", json!(grouped.qkv_bias || grouped.output_bias));
        }
        if family.mtp_prefix.is_some() {
            set("num_nextn_predict_layers", json!(self.mtp.map_or(0, |mtp| mtp.layers)));
        }
        for (key, ids) in [
            ("bos_token_id", self.bos_token_id.as_slice()),
            ("eos_token_id", &self.eos_token_ids),
        ] {
            if !self.raw.contains_key(key) {
                set(
                    key,
                    match ids {
                        [] => Value::Null,
                        [id] => json!(id),
                        ids => json!(ids),
                    },
                );
            }
        }
        if let Some(window) = &self.window {
            set("sliding_window", json!(window.size));
            if let WindowLayers::From(first) = window.layers {
                set("max_window_layers", json!(first));
            }
        }
        if self.experts.is_some() {
            out.remove("num_experts");
        }
        out.remove("quantization_config");
        out
    }
}
