//! Shapes of multi-head latent attention and the config.json that carries them.

use serde_json::{Map, Value, json};

use super::json::Keys;
use super::{Family, ModelConfig, RopeScaling};
use crate::checkpoint::forget_origin_in;
use crate::{CoreError, StorageDtype};

/// Shapes of multi-head latent attention, with the key names of DeepSeek's config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentConfig {
    /// Rank of the query projection, or nothing for a full one.
    pub q_lora_rank: Option<usize>,
    /// Width r of the latent that keys and values are made from.
    pub kv_lora_rank: usize,
    /// Width of a head's query and key part without position.
    pub qk_nope_head_dim: usize,
    /// Width d_r of the shared key with position.
    pub qk_rope_head_dim: usize,
    /// Width of a head's value.
    pub v_head_dim: usize,
    /// Epsilon of the RMSNorms on the latents; nothing if the model has no such norms.
    pub latent_norm_eps: Option<f64>,
    /// Whether some attention projections may have biases (the checkpoint says which).
    pub biases: bool,
}

/// Epsilon of the latent norms in the stock DeepSeek-V3 classes, whatever `rms_norm_eps` says.
const STOCK_LATENT_EPS: f64 = 1e-6;

/// Rank of the queries that the stock class takes where config.json has no such key; null is none.
const STOCK_QUERY_RANK: usize = 1536;

impl LatentConfig {
    pub(super) fn read(keys: &Keys<'_>, stock: bool, rms_norm_eps: f64) -> Result<Self, CoreError> {
        let norms = stock || keys.flag("use_qkv_norm")?;
        let latent = Self {
            q_lora_rank: match stock && !keys.0.contains_key("q_lora_rank") {
                true => Some(STOCK_QUERY_RANK),
                false => keys.optional_size("q_lora_rank")?,
            },
            kv_lora_rank: keys.size("kv_lora_rank")?,
            qk_nope_head_dim: keys.size("qk_nope_head_dim")?,
            qk_rope_head_dim: keys.size("qk_rope_head_dim")?,
            v_head_dim: keys.size("v_head_dim")?,
            latent_norm_eps: norms.then_some(if stock { STOCK_LATENT_EPS } else { rms_norm_eps }),
            biases: keys.flag("attention_bias")?,
        };
        if !latent.qk_rope_head_dim.is_multiple_of(2) {
            return Err(CoreError::config("qk_rope_head_dim", "must be even"));
        }
        Ok(latent)
    }

    /// Width of a head's whole query: position-free and rotary part.
    pub fn query_width(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }
}

/// The name that a converted model goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatentStyle {
    /// The family's own class with `MLA` in its name; no latent norms unless asked for.
    Family,
    /// Stock `DeepseekV3ForCausalLM`, which always applies latent norms.
    DeepseekV3,
}

/// Name in `architectures` of a stock model that of all engines transformers alone runs rightly: with biases, or scaled RoPE.
///
/// transformers finds its class by `model_type`. vLLM, SGLang and llama.cpp go by this name and refuse it; under the usual
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

impl ModelConfig {
    /// config.json of this model converted to the given latent shapes.
    ///
    /// Keys of the source that still hold are kept; keys that no longer do are replaced or removed.
    pub fn latent_json(&self, latent: &LatentConfig, form: &LatentForm) -> Map<String, Value> {
        let LatentForm {
            style,
            rms_norm_eps,
            dtype,
            ..
        } = *form;
        let mut out = self.settled_json();
        forget_origin_in(&mut out);
        for key in ["head_dim", "dtype", "transformers_version"] {
            out.remove(key);
        }
        if style == LatentStyle::DeepseekV3 {
            out.remove("rope_scaling");
        }
        let mut set = |key: &str, value: Value| {
            out.insert(key.to_owned(), value);
        };
        let family: &Family = self.family;
        set("num_key_value_heads", json!(self.num_attention_heads));
        set("q_lora_rank", json!(latent.q_lora_rank));
        set("kv_lora_rank", json!(latent.kv_lora_rank));
        set("qk_nope_head_dim", json!(latent.qk_nope_head_dim));
        set("qk_rope_head_dim", json!(latent.qk_rope_head_dim));
        set("qk_head_dim", json!(latent.query_width()));
        set("v_head_dim", json!(latent.v_head_dim));
        set("attention_bias", json!(latent.biases));
        set("rms_norm_eps", json!(rms_norm_eps));
        set("rope_theta", json!(self.rope.theta));
        set("rope_interleave", json!(true));
        set("tie_word_embeddings", json!(self.tie_word_embeddings));
        set("torch_dtype", json!(dtype.torch_name()));
        match style {
            LatentStyle::Family => {
                set("model_type", json!(family.latent_model_type()));
                set("architectures", json!([family.latent_class()]));
                set("use_qkv_norm", json!(latent.latent_norm_eps.is_some()));
                set(
                    "auto_map",
                    json!({
                        "AutoConfig": format!("{CONFIGURATION_MODULE}.{}", family.latent_config_class()),
                        "AutoModelForCausalLM": format!("{MODELLING_MODULE}.{}", family.latent_class()),
                    }),
                );
                if family.query_pre_attn_scalar {
                    // The queries carry the source's scale, and scores are divided by the root of their width.
                    set("query_pre_attn_scalar", json!(latent.query_width()));
                }
                if let Some(mtp) = &self.mtp {
                    set("mtp_num_key_value_heads", json!(mtp.num_key_value_heads));
                }
            }
            LatentStyle::DeepseekV3 => {
                set("model_type", json!("deepseek_v3"));
                let scaling = match form.scaled_rope {
                    true => self.rope.scaling,
                    false => RopeScaling::Default,
                };
                set("architectures", json!([stock_architecture(latent, &scaling)]));
                // DeepSeek's classes in vLLM and SGLang know no tied output head, so it is written out.
                set("tie_word_embeddings", json!(false));
                set("rope_scaling", Value::Null);
                let mut rope = scaling.parameters();
                rope.insert("rope_theta".into(), json!(self.rope.theta));
                if scaling != RopeScaling::Default {
                    // transformers before 5 reads this key alone.
                    set("rope_scaling", Value::Object(rope.clone()));
                }
                set("rope_parameters", Value::Object(rope));
                // Every layer is dense; the expert keys must be there and are never used.
                set("first_k_dense_replace", json!(self.num_hidden_layers));
                set("moe_layer_freq", json!(1));
                set("n_routed_experts", json!(2));
                set("n_shared_experts", json!(1));
                set("num_experts_per_tok", json!(1));
                set("n_group", json!(1));
                set("topk_group", json!(1));
                set("moe_intermediate_size", json!(8));
                // Its default is not 1, and in fp16 vLLM divides the residual stream by it.
                set("routed_scaling_factor", json!(1.0));
                set("num_nextn_predict_layers", json!(0));
                set("hidden_act", json!("silu"));
            }
        }
        out
    }
}

/// What `architectures` says of a model in stock form.
pub fn stock_architecture(latent: &LatentConfig, scaling: &RopeScaling) -> &'static str {
    match latent.biases || *scaling != RopeScaling::Default {
        true => TRANSFORMERS_ARCHITECTURE,
        false => "DeepseekV3ForCausalLM",
    }
}
