//! What a user may choose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use transmla_core::StorageDtype;

/// How the latent model is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The published method: RoRoPE with FreqFold, then balanced joint PCA (arXiv 2502.07864).
    Transmla,
    /// Slots chosen by phase coherence, and a PCA in the metric of what the loss notices; then layer-wise reconstruction.
    #[default]
    Coherent,
}

/// The form that a model is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// Stock DeepSeek-V3 where that is exact, else the family's own class.
    #[default]
    Auto,
    /// Stock `DeepseekV3ForCausalLM`, or an error that names what is in the way.
    DeepseekV3,
    /// The family's own class, with its modelling code beside the weights.
    Family,
}

/// A program that is to run the converted model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// Hugging Face transformers.
    #[serde(rename = "transformers")]
    Transformers,
    /// vLLM.
    #[serde(rename = "vllm")]
    Vllm,
    /// SGLang.
    #[serde(rename = "sglang")]
    Sglang,
    /// llama.cpp.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transformers => "transformers",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llama.cpp",
        })
    }
}

/// The files that a converted model becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// A folder in hub layout, weights in safetensors.
    #[default]
    Safetensors,
    /// The same folder with one GGUF file in the place of the weights.
    Gguf,
}

/// RoPE frequency folding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FreqFold {
    /// Doubled from `collapse` while the perplexity on held-out calibration text falls.
    #[default]
    Auto,
    /// This many adjacent frequencies share one rotation.
    Fixed(usize),
}

impl FromStr for FreqFold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            number => match number.parse() {
                Ok(count) if count > 0 => Ok(Self::Fixed(count)),
                _ => Err(format!("'{text}' is neither auto nor a positive integer")),
            },
        }
    }
}

impl fmt::Display for FreqFold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(count) => write!(f, "{count}"),
        }
    }
}

/// The choices that determine the converted model, beside the source and the calibration text.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvertOptions {
    /// How the latent model is found.
    pub method: Method,
    /// Steps of layer-wise reconstruction after the closed form, one calibration sequence each (coherent method); 0 for
    /// none.
    pub refine: usize,
    /// Width d_r of the one shared rotary key.
    pub qk_mqa_dim: usize,
    /// How many frequencies become one slot; nothing for `head_dim / qk_mqa_dim`, the only value that fits.
    pub collapse: Option<usize>,
    /// Frequency folding F.
    pub freqfold: FreqFold,
    /// Width r of the latent that keys and values share.
    pub kv_lora_rank: usize,
    /// Width of the query latent, or nothing for full queries.
    pub q_lora_rank: Option<usize>,
    /// How much larger than values the keys count in the joint PCA; 1 is balanced.
    pub balance_kv_ratio: f64,
    /// Puts RMSNorms on the latents, with their mean root mean square as weight.
    pub use_qkv_norm: bool,
    /// Class name and form of the written model.
    pub style: Style,
    /// The program that is to run it; nothing for whatever reads its form.
    pub target: Option<Engine>,
    /// The files that it becomes.
    pub format: FileFormat,
    /// llama.cpp's name for how a byte-level tokenizer splits text, where that cannot be told (GGUF).
    pub pre_tokenizer: Option<String>,
    /// Number format of the written weights.
    pub dtype: StorageDtype,
    /// Sequences that go through a layer together during calibration.
    pub cal_batch_size: usize,
    /// Bound on the size of one safetensors shard, in bytes.
    pub max_shard_bytes: u64,
}

impl ConvertOptions {
    /// Steps of reconstruction where nothing else is said.
    pub const REFINE: usize = 100;
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self {
            method: Method::default(),
            refine: Self::REFINE,
            qk_mqa_dim: 64,
            collapse: None,
            freqfold: FreqFold::Auto,
            kv_lora_rank: 512,
            q_lora_rank: None,
            balance_kv_ratio: 1.0,
            use_qkv_norm: false,
            style: Style::Auto,
            target: None,
            format: FileFormat::default(),
            pre_tokenizer: None,
            dtype: StorageDtype::Bf16,
            cal_batch_size: 8,
            max_shard_bytes: 5_000_000_000,
        }
    }
}
