//! A configuration with everything said that config.json leaves to defaults, headers or a second spelling.

use serde_json::{Map, Value, json};

use super::model::ModelConfig;

impl ModelConfig {
    /// config.json with values that were assumed or taken from the weights written out, and RoPE left to be.
    ///
    /// A converted model's class has defaults of its own, so nothing is left to them.
    pub(super) fn settled_json(&self) -> Map<String, Value> {
        let mut out = self.raw.keys().clone();
        for key in [
            "rope_parameters",
            "rope_scaling",
            "original_max_position_embeddings",
            // Another name of `num_local_experts`, and a method of quantising that is none.
            "num_experts",
            "quantization_config",
        ] {
            out.remove(key);
        }
        let mut set = |key: &str, value: Value| {
            out.insert(key.to_owned(), value);
        };
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            set(key, json!(size));
        }
        if self.family.mtp_prefix.is_some() {
            let layers = self.mtp.map_or(0, |mtp| mtp.layers);
            set("num_nextn_predict_layers", json!(layers));
        }
        let first: Vec<u32> = self.bos_token_id.into_iter().collect();
        for (key, ids) in [("bos_token_id", &first), ("eos_token_id", &self.eos_token_ids)] {
            if !self.raw.keys().contains_key(key) {
                let value = match ids[..] {
                    [] => Value::Null,
                    [id] => json!(id),
                    _ => json!(ids),
                };
                set(key, value);
            }
        }
        if let Some(experts) = &self.experts {
            experts.write(&mut out);
        }
        out
    }
}
