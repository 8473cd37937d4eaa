//! config.json of a model converted to latent attention.

use serde_json::{Map, Value, json};

use super::family::{Multipliers, RopeRule, SoftCaps, WindowRule};
use super::features::{FULL_LAYER, SLIDING_LAYER};
use super::latent::LatentConfig;
use super::model::ModelConfig;
use super::multipliers::{KEPT_MULTIPLIERS, SCORE_MULTIPLIER};
use super::raw::RawConfig;
use super::scaling::RopeScaling;
use crate::checkpoint::dtype::StorageDtype;
use crate::checkpoint::origin::forget_origin_in;

/// The name that a converted model goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatentStyle {
    /// The family's own class with `MLA` in its name; no latent norms unless asked for.
    Family,
    /// Stock `DeepseekV3ForCausalLM`, which always applies latent norms.
    DeepseekV3,
}

/// Name in `architectures` of a stock model that transformers runs rightly, and not DeepSeek code of other engines: with biases, or scaled RoPE.
///
/// transformers finds its class by `model_type`. vLLM, SGLang and llama.cpp go by this name and refuse it (vLLM's plugin has it); under the usual
/// one they would leave biases out, or take the scaling for YaRN, without a word.
pub const TRANSFORMERS_ARCHITECTURE: &str = "DeepseekV3TransformersForCausalLM";

/// How a converted model's configuration is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentForm {
    /// The name that it goes by.
    pub style: LatentStyle,
    /// Epsilon of its residual norms.
    pub rms_norm_eps: f64,
    /// Number format of its weights.
    pub dtype: StorageDtype,
    /// Whether the stock style keeps a scaling of RoPE; the family's own always does.
    pub scaled_rope: bool,
}

/// Python module of a converted model's own configuration class, a file beside the weights.
pub const CONFIGURATION_MODULE: &str = "configuration_transmla";

/// Python module of its modelling code.
pub const MODELLING_MODULE: &str = "modeling_transmla";

/// Keys of a source that are written anew or mean nothing to a converted model.
///
/// transformers makes caches that forget by `sliding_window` and `layer_types`, whatever the class does with them and
/// whether the window is switched on, and kinds of caches that the source's class alone may have by the last two.
const REPLACED_KEYS: &[&str] = &[
    "auto_map",
    "head_dim",
    "dtype",
    "transformers_version",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "no_rope_layers",
    "no_rope_layer_interval",
    "cache_implementation",
    "cache_config",
    // Kernels that the source's class was to be run with.
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_attn_implementation_autoset",
    "_flash_attn_2_enabled",
];

/// Keys of `generation_config.json` that choose a kind of cache for the source's class.
pub const CACHE_KEYS: &[&str] = &["cache_implementation", "cache_config"];

impl ModelConfig {
    /// config.json of this model converted to the given latent shapes.
    ///
    /// Keys of the source that still hold are kept; keys that no longer do are replaced or removed.
    pub fn latent_json(&self, latent: &LatentConfig, form: &LatentForm) -> RawConfig {
        let mut out = self.settled_json();
        forget_origin_in(&mut out);
        let multipliers = KEPT_MULTIPLIERS.iter().chain([&SCORE_MULTIPLIER]);
        for key in REPLACED_KEYS.iter().chain(multipliers) {
            out.remove(*key);
        }
        let scaling = match form.style == LatentStyle::Family || form.scaled_rope {
            true => self.rope.main().scaling,
            false => RopeScaling::Default,
        };
        let mut keys = self.latent_keys(latent, form, &scaling);
        keys.extend(match form.style {
            LatentStyle::Family => self.family_keys(latent),
            LatentStyle::DeepseekV3 => self.stock_keys(latent, &scaling),
        });
        out.extend(keys.into_iter().map(|(key, value)| (key.to_owned(), value)));
        out.into()
    }

    /// What both styles have: shapes, positions, number format.
    fn latent_keys(
        &self,
        latent: &LatentConfig,
        form: &LatentForm,
        scaling: &RopeScaling,
    ) -> Vec<(&'static str, Value)> {
        let theta = self.rope.main().theta;
        let by_window = self.family.rope == RopeRule::ByWindow && form.style == LatentStyle::Family;
        let (rope, older) = match by_window {
            true => (self.ropes_by_window(), None),
            false => {
                let rope = parameters(theta, scaling);
                // transformers before 5 reads this key alone.
                let older = (*scaling != RopeScaling::Default).then(|| rope.clone());
                (rope, older)
            }
        };
        vec![
            ("num_key_value_heads", json!(self.num_attention_heads)),
            ("q_lora_rank", json!(latent.q_lora_rank)),
            ("kv_lora_rank", json!(latent.kv_lora_rank)),
            ("qk_nope_head_dim", json!(latent.qk_nope_head_dim)),
            ("qk_rope_head_dim", json!(latent.qk_rope_head_dim)),
            ("qk_head_dim", json!(latent.query_width())),
            ("v_head_dim", json!(latent.v_head_dim)),
            ("attention_bias", json!(latent.biases)),
            ("rms_norm_eps", json!(form.rms_norm_eps)),
            ("rope_theta", json!(theta)),
            ("rope_interleave", json!(true)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("torch_dtype", json!(form.dtype.torch_name())),
            ("rope_scaling", json!(older)),
            ("rope_parameters", Value::Object(rope)),
        ]
    }

    /// `rope_parameters` of a family whose layers with a window have a RoPE of their own.
    fn ropes_by_window(&self) -> Map<String, Value> {
        let windows = |layer: &usize| self.attention_parameters(*layer).window.is_some();
        let mut both = Map::new();
        for (kind, slides) in [(FULL_LAYER, false), (SLIDING_LAYER, true)] {
            if let Some(layer) = (0..self.num_hidden_layers).find(|layer| windows(layer) == slides) {
                let rope = self.rope.of(layer);
                both.insert(kind.into(), Value::Object(parameters(rope.theta, &rope.scaling)));
            }
        }
        both
    }

    /// What a stock DeepSeek-V3 has besides.
    fn stock_keys(&self, latent: &LatentConfig, scaling: &RopeScaling) -> Vec<(&'static str, Value)> {
        vec![
            ("model_type", json!("deepseek_v3")),
            ("architectures", json!([stock_architecture(latent, scaling)])),
            // DeepSeek's classes in vLLM and SGLang know no tied output head, so it is written out.
            ("tie_word_embeddings", json!(false)),
            // Every layer is dense; the expert keys must be there and are never used.
            ("first_k_dense_replace", json!(self.num_hidden_layers)),
            ("moe_layer_freq", json!(1)),
            ("n_routed_experts", json!(2)),
            ("n_shared_experts", json!(1)),
            ("num_experts_per_tok", json!(1)),
            ("n_group", json!(1)),
            ("topk_group", json!(1)),
            ("moe_intermediate_size", json!(8)),
            // Its default is not 1, and in fp16 vLLM divides the residual stream by it.
            ("routed_scaling_factor", json!(1.0)),
            ("num_nextn_predict_layers", json!(0)),
            ("hidden_act", json!("silu")),
        ]
    }

    /// What the family's own class has besides the latent attention, said for each layer and with no key left out.
    fn family_keys(&self, latent: &LatentConfig) -> Vec<(&'static str, Value)> {
        let family = self.family;
        let mut keys = vec![
            ("model_type", json!(family.latent_model_type())),
            ("architectures", json!([family.latent_class()])),
            ("use_qkv_norm", json!(latent.latent_norm_eps.is_some())),
            (
                "auto_map",
                json!({
                    "AutoConfig": format!("{CONFIGURATION_MODULE}.{}", family.latent_config_class()),
                    "AutoModelForCausalLM": format!("{MODELLING_MODULE}.{}", family.latent_class()),
                }),
            ),
        ];
        let activation = json!(self.activation.name());
        keys.extend(family.activation_keys.iter().map(|key| (*key, activation.clone())));
        if family.soft_caps != SoftCaps::Never {
            keys.push(("attn_logit_softcapping", json!(self.score_softcap)));
            keys.push(("final_logit_softcapping", json!(self.logit_softcap)));
        }
        if family.window != WindowRule::Never {
            keys.extend(self.window_keys());
        }
        // The queries carry the source's scale, and scores are divided by the root of their width.
        match family.multipliers {
            Multipliers::Width => {}
            Multipliers::Roots => keys.push(("query_pre_attn_scalar", json!(latent.query_width()))),
            Multipliers::Keys => {
                let factors = [self.embedding_scale, self.residual_multiplier, self.logit_divisor];
                keys.extend(
                    KEPT_MULTIPLIERS
                        .iter()
                        .zip(factors)
                        .map(|(key, factor)| (*key, json!(factor))),
                );
            }
        }
        if family.rope == RopeRule::SomeLayers {
            let turns = (0..self.num_hidden_layers).map(|layer| u8::from(self.rope.of(layer).has_positions()));
            keys.push(("no_rope_layers", json!(turns.collect::<Vec<_>>())));
        }
        if latent.latent_groups > 1 {
            keys.push(("latent_groups", json!(latent.latent_groups)));
        }
        if latent.tied {
            keys.push(("tied_latent", json!(true)));
        }
        if let Some(heads) = latent.key_norm_heads {
            keys.push(("key_norm_heads", json!(heads)));
        }
        if let Some(width) = latent.key_norm_width {
            keys.push(("key_norm_width", json!(width)));
        }
        if let Some(mtp) = &self.mtp {
            keys.push(("mtp_num_key_value_heads", json!(mtp.num_key_value_heads)));
        }
        keys
    }

    /// The sliding window of each layer.
    fn window_keys(&self) -> Vec<(&'static str, Value)> {
        let windows = (0..self.num_hidden_layers).map(|layer| self.attention_parameters(layer).window);
        let kinds: Vec<&str> = windows
            .clone()
            .map(|window| window.map_or(FULL_LAYER, |_| SLIDING_LAYER))
            .collect();
        // Null where no layer has one: the default of some families is a number.
        let size = windows.flatten().next();
        let mut keys = vec![("layer_types", json!(kinds)), ("sliding_window", json!(size))];
        if self.family.window.is_switched() {
            keys.push(("use_sliding_window", json!(size.is_some())));
        }
        keys
    }
}

/// A RoPE as `rope_parameters` has it.
fn parameters(theta: f64, scaling: &RopeScaling) -> Map<String, Value> {
    let mut rope = scaling.parameters();
    rope.insert("rope_theta".into(), json!(theta));
    rope
}

/// What `architectures` says of a model in stock form.
pub fn stock_architecture(latent: &LatentConfig, scaling: &RopeScaling) -> &'static str {
    match latent.biases || *scaling != RopeScaling::Default {
        true => TRANSFORMERS_ARCHITECTURE,
        false => "DeepseekV3ForCausalLM",
    }
}

#[cfg(test)]
mod tests {
    use super::super::family::FAMILIES;
    use super::*;

    const LATENT: LatentConfig = LatentConfig {
        q_lora_rank: None,
        latent_groups: 1,
        tied: false,
        kv_lora_rank: 8,
        qk_nope_head_dim: 8,
        qk_rope_head_dim: 4,
        v_head_dim: 8,
        latent_norm_eps: None,
        biases: false,
        key_norm_heads: None,
        key_norm_width: None,
    };

    fn written(source: &ModelConfig, style: LatentStyle) -> Map<String, Value> {
        let form = LatentForm {
            style,
            rms_norm_eps: 1e-6,
            dtype: StorageDtype::F32,
            scaled_rope: true,
        };
        source.latent_json(&LATENT, &form).keys().clone()
    }

    fn source(model_type: &str, more: Value) -> ModelConfig {
        let mut raw = json!({
            "model_type": model_type, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 40, "num_local_experts": 4,
            "moe_intermediate_size": 12, "shared_expert_intermediate_size": 20, "num_experts_per_tok": 2,
            "cache_implementation": "hybrid", "cache_config": {"nbits": 4},
        });
        let raw = raw.as_object_mut().unwrap();
        raw.extend(more.as_object().unwrap().clone());
        ModelConfig::from_json(raw.clone()).unwrap()
    }

    /// What transformers' caches read, against what the decoder does in each layer.
    fn check_windows(source: &ModelConfig) {
        let json = written(source, LatentStyle::Family);
        let read = ModelConfig::from_json(json.clone()).unwrap();
        for layer in 0..source.num_hidden_layers {
            let window = source.attention_parameters(layer).window;
            assert_eq!(read.attention_parameters(layer).window, window, "{json:?}");
            let kind = json.get("layer_types").and_then(|kinds| kinds[layer].as_str());
            let slides = kind == Some("sliding_attention");
            assert_eq!(slides, window.is_some(), "{json:?}");
            if window.is_some() {
                assert_eq!(json["sliding_window"], json!(window));
            }
        }
        if (0..source.num_hidden_layers).all(|layer| source.attention_parameters(layer).window.is_none()) {
            assert!(json.get("sliding_window").is_none_or(Value::is_null), "{json:?}");
        }
    }

    #[test]
    fn caches_are_told_the_windows_of_each_layer() {
        let types = ["full_attention", "sliding_attention", "full_attention"];
        for family in FAMILIES {
            let full = [FULL_LAYER; 3];
            // Without a list Gemma 3's pattern would ask for a window.
            let mut sources = vec![json!({"sliding_window": null, "layer_types": full})];
            if family.window != WindowRule::Never {
                sources.extend([
                    json!({"sliding_window": 5, "use_sliding_window": true, "max_window_layers": 1}),
                    json!({"sliding_window": 5, "use_sliding_window": true, "max_window_layers": 28}),
                    json!({"sliding_window": 5, "use_sliding_window": true, "layer_types": types}),
                ]);
            }
            if family.window.is_switched() {
                sources.push(json!({"sliding_window": 5, "use_sliding_window": false, "max_window_layers": 1}));
                sources.push(json!({"sliding_window": 5, "max_window_layers": 1}));
            }
            for more in sources {
                check_windows(&source(family.model_type, more));
            }
        }
    }

    #[test]
    fn no_cache_of_another_class_is_asked_for() {
        let off = json!({"sliding_window": 5, "use_sliding_window": false, "max_window_layers": 1});
        for (model_type, more) in [("llama", json!({})), ("qwen2", off.clone()), ("mimo", off)] {
            let source = source(model_type, more);
            let stock = written(&source, LatentStyle::DeepseekV3);
            for key in [
                "sliding_window",
                "use_sliding_window",
                "max_window_layers",
                "layer_types",
            ] {
                assert!(!stock.contains_key(key), "{model_type}: {key}");
            }
            for json in [stock, written(&source, LatentStyle::Family)] {
                assert!(CACHE_KEYS.iter().all(|key| !json.contains_key(*key)), "{model_type}");
            }
        }
    }

    #[test]
    fn no_key_that_the_class_reads_is_left_out() {
        let gemma = written(
            &source("gemma2", json!({"attn_logit_softcapping": 6.0})),
            LatentStyle::Family,
        );
        for key in [
            "max_position_embeddings",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "hidden_activation",
            "rms_norm_eps",
            "rope_parameters",
            "sliding_window",
        ] {
            assert!(gemma.contains_key(key), "{key}");
        }
        let mixtral = written(&source("mixtral", json!({})), LatentStyle::Family);
        assert_eq!(mixtral["num_experts_per_tok"], json!(2));
        let old = json!({"rope_scaling": {"type": "linear", "factor": 4.0}});
        let linear = written(&source("llama", old), LatentStyle::Family);
        let expected = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0});
        assert_eq!(
            (&linear["rope_scaling"], &linear["rope_parameters"]),
            (&expected, &expected)
        );
    }
}
