//! Options on a converted model that do not depend on its widths.

use clap::{Args, ValueEnum};
use transmla_convert::{Engine, FreqFold, Recipe, Style};
use transmla_core::StorageDtype;

use super::set::set;
use super::values::{self, AutoOr};

/// What does not depend on the two widths.
#[derive(Debug, Args)]
#[command(next_help_heading = "Converted model")]
pub struct FormArguments {
    /// Width of a query latent [default: none, full queries]
    #[arg(long, value_name = "R", value_parser = values::positive)]
    q_lora_rank: Option<usize>,

    /// Adjacent RoPE frequencies that share one rotation, for --method transmla; auto tries on held-out text [default:
    /// auto]
    #[arg(long, value_name = "auto|N")]
    freqfold: Option<AutoOr>,

    /// How much larger than values the keys count in the joint PCA of --method transmla [default: 1]
    #[arg(long, value_name = "RATIO")]
    balance_kv_ratio: Option<f64>,

    /// Put RMSNorms on the latents
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_qkv_norm: Option<bool>,

    /// Form of the written model [default: auto]
    #[arg(long, value_enum, value_name = "STYLE", conflicts_with = "deepseek_style")]
    style: Option<StyleName>,

    /// The published flag: --style deepseek-v3, or with =false --style family
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    deepseek_style: Option<bool>,

    /// The program that is to run the model: what it cannot run is refused before any work [default: any]
    #[arg(long, value_enum, value_name = "ENGINE")]
    target: Option<EngineName>,

    /// Number format of the written weights: fp32, fp16 or bf16 [default: bf16]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<StorageDtype>,

    /// llama.cpp's name for how the tokenizer splits text, for --format gguf, if it cannot be told: llama-bpe, gpt-2, …
    #[arg(long, value_name = "NAME")]
    pre_tokenizer: Option<String>,

    /// Largest file of weights [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    max_shard_size: Option<u64>,
}

/// The name of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StyleName {
    /// Stock DeepSeek-V3 where that is exact, else the family's own class
    Auto,
    /// Stock DeepseekV3ForCausalLM, which DeepSeek's engines run
    DeepseekV3,
    /// The family's own class, its code beside the weights (trust_remote_code)
    Family,
}

impl From<StyleName> for Style {
    fn from(name: StyleName) -> Self {
        match name {
            StyleName::Auto => Self::Auto,
            StyleName::DeepseekV3 => Self::DeepseekV3,
            StyleName::Family => Self::Family,
        }
    }
}

/// The name of a program that runs converted models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// Hugging Face transformers: every form, scaled RoPE and biases in the stock one too
    Transformers,
    /// vLLM: the stock form; 512 + 64 numbers per token for every kernel, others for TRITON_MLA alone
    Vllm,
    /// SGLang: the stock form
    Sglang,
    /// llama.cpp: the stock form, as GGUF unless --format says otherwise
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Transformers => Self::Transformers,
            EngineName::Vllm => Self::Vllm,
            EngineName::Sglang => Self::Sglang,
            EngineName::LlamaCpp => Self::LlamaCpp,
        }
    }
}

impl FormArguments {
    /// Sets what is given.
    pub fn apply(&self, recipe: &mut Recipe) {
        set(&mut recipe.q_lora_rank, self.q_lora_rank.map(Some));
        set(
            &mut recipe.freqfold,
            self.freqfold.map(|AutoOr(number)| FreqFold::from(number)),
        );
        set(&mut recipe.balance_kv_ratio, self.balance_kv_ratio);
        set(&mut recipe.use_qkv_norm, self.use_qkv_norm);
        set(&mut recipe.style, self.style.map(Style::from));
        set(
            &mut recipe.style,
            self.deepseek_style.map(|stock| match stock {
                true => Style::DeepseekV3,
                false => Style::Family,
            }),
        );
        set(&mut recipe.target, self.target.map(|name| Some(name.into())));
        set(&mut recipe.dtype, self.dtype);
        set(&mut recipe.pre_tokenizer, self.pre_tokenizer.clone().map(Some));
        set(&mut recipe.max_shard_size, self.max_shard_size);
    }
}
