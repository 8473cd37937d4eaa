//! Options on a converted model that do not depend on its widths.

use clap::Args;
use transmla_convert::{Engine, FreqFold, KeyNorm, Recipe, Style};
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

    /// Adjacent RoPE frequencies that share one rotation, for --method transmla; auto picks the best on held-out
    /// calibration text [default: auto]
    #[arg(long, value_name = "auto|N")]
    freqfold: Option<AutoOr>,

    /// Weight of the keys relative to the values in the joint PCA of --method transmla [default: 1]
    #[arg(long, value_name = "RATIO")]
    balance_kv_ratio: Option<f64>,

    /// What becomes of the norm of keys, in models that normalise them [default: exact, or regression for a --target without]
    #[arg(long, value_enum, value_name = "FORM")]
    key_norm: Option<KeyNorm>,

    /// Put RMSNorms on the latents
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_qkv_norm: Option<bool>,

    /// Form of the written model [default: auto]
    #[arg(long, value_enum, value_name = "STYLE", conflicts_with = "deepseek_style")]
    style: Option<Style>,

    /// As in the published converter: --style deepseek-v3, or with =false --style family
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    deepseek_style: Option<bool>,

    /// Program that will run the model; what it cannot run is refused before any work [default: any]
    #[arg(long, value_enum, value_name = "ENGINE")]
    target: Option<Engine>,

    /// Number format of the written weights: fp32, fp16 or bf16 [default: bf16]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<StorageDtype>,

    /// llama.cpp's name for how the tokenizer splits text, for --format gguf, if it cannot be told: llama-bpe, gpt-2, …
    #[arg(long, value_name = "NAME")]
    pre_tokenizer: Option<String>,

    /// Maximum size of a file of weights [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    max_shard_size: Option<u64>,
}

impl FormArguments {
    /// Sets the fields whose options are given.
    pub fn apply(&self, recipe: &mut Recipe) {
        set(&mut recipe.q_lora_rank, self.q_lora_rank.map(Some));
        set(
            &mut recipe.freqfold,
            self.freqfold.map(|AutoOr(number)| FreqFold::from(number)),
        );
        set(&mut recipe.balance_kv_ratio, self.balance_kv_ratio);
        set(&mut recipe.key_norm, self.key_norm.map(Some));
        set(&mut recipe.use_qkv_norm, self.use_qkv_norm);
        set(&mut recipe.style, self.style);
        set(
            &mut recipe.style,
            self.deepseek_style.map(|stock| match stock {
                true => Style::DeepseekV3,
                false => Style::Family,
            }),
        );
        set(&mut recipe.engine, self.target.map(Some));
        set(&mut recipe.dtype, self.dtype);
        set(&mut recipe.pre_tokenizer, self.pre_tokenizer.clone().map(Some));
        set(&mut recipe.max_shard_size, self.max_shard_size);
    }
}
