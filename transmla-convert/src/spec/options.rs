//! The choices that have names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the latent model is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum MethodName {
    /// As published: RoRoPE with FreqFold, then balanced joint PCA (arXiv 2502.07864).
    Transmla,
    /// Slots by phase coherence, a PCA in the metric of what the loss notices, then layer-wise reconstruction.
    #[default]
    Coherent,
}

impl MethodName {
    /// Whether it can fit the slots of the rotary key to frequencies that the original does not have: those of an unscaled RoPE.
    pub const fn fits_frequencies(self) -> bool {
        match self {
            Self::Transmla => false,
            Self::Coherent => true,
        }
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transmla => "transmla",
            Self::Coherent => "coherent",
        })
    }
}

/// What becomes of the norm of keys, in models that normalise them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum KeyNorm {
    /// Linear keys closest to the normalised ones: the cache is latent and rotary key alone, and keys err.
    Regression,
    /// The norm's scale is cached, one number per token and key head: exact in form, for transformers alone.
    Exact,
}

/// The form that a model is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Style {
    /// Stock DeepSeek-V3 where that is exact, else the family's own class.
    #[default]
    Auto,
    /// Stock DeepseekV3ForCausalLM, which DeepSeek's engines run.
    DeepseekV3,
    /// The family's own class, its code beside the weights (trust_remote_code).
    Family,
}

/// A program that is to run the converted model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Engine {
    /// Hugging Face transformers: every form, scaled RoPE and biases in the stock one too.
    #[serde(rename = "transformers")]
    Transformers,
    /// vLLM: the stock form, else the family's class with the plugin transmla-vllm; 512 + 64 numbers per token for every kernel.
    #[serde(rename = "vllm")]
    Vllm,
    /// SGLang: the stock form.
    #[serde(rename = "sglang")]
    Sglang,
    /// llama.cpp: the stock form, as GGUF unless a format is given.
    #[serde(rename = "llama.cpp")]
    #[cfg_attr(
        feature = "clap",
        value(
            name = "llama.cpp",
            help = "llama.cpp: the stock form, as GGUF unless --format says otherwise"
        )
    )]
    LlamaCpp,
    /// mlx-lm: the stock form with biases and scaled RoPE, up to 61 layers.
    #[serde(rename = "mlx")]
    Mlx,
    /// mistral.rs: the stock form with biases, RoPE unscaled.
    #[serde(rename = "mistralrs")]
    #[cfg_attr(feature = "clap", value(name = "mistralrs"))]
    MistralRs,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transformers => "transformers",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llama.cpp",
            Self::Mlx => "mlx",
            Self::MistralRs => "mistralrs",
        })
    }
}

/// The files that a converted model becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum FileFormat {
    /// A folder in hub layout, weights in safetensors.
    #[default]
    Safetensors,
    /// The same with one GGUF file as weights, for llama.cpp.
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

/// A text that is no [`FreqFold`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is neither auto nor a positive integer")]
pub struct FreqFoldError {
    text: String,
}

impl FromStr for FreqFold {
    type Err = FreqFoldError;

    fn from_str(text: &str) -> Result<Self, FreqFoldError> {
        match text {
            "auto" => Ok(Self::Auto),
            number => match number.parse() {
                Ok(count) if count > 0 => Ok(Self::Fixed(count)),
                _ => Err(FreqFoldError { text: text.to_owned() }),
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
