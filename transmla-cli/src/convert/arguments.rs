//! The options of `transmla convert`, and the recipe that they make.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use transmla_convert::{Engine, FileFormat, FreqFold, LARGEST_RECIPE, Method, Recipe, Style, shapes_for_budget};
use transmla_core::checkpoint::read_regular_text;
use transmla_core::{ModelConfig, StorageDtype};

use super::names;
use crate::arguments::{ComputeArguments, Format, OutputArguments};
use crate::embedded;
use crate::mix::TextMix;
use crate::text::TextSource;
use crate::values::{self, AutoOr};

/// Convert a model with grouped-query attention to multi-head latent attention.
///
/// Without --model-path the small model inside this binary is converted, with stories for text: a way to see how it
/// goes. The plan is shown first, and whatever can be seen to fail fails before a weight is read.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArguments {
    /// Model to convert: a folder, a hub id, or `embedded` [default: embedded]
    #[arg(long, value_name = "PATH|ID")]
    pub model_path: Option<String>,

    /// Branch, tag or commit of a model on the hub [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,

    /// Folder for the converted model and its tokenizer
    #[arg(long, value_name = "FOLDER", default_value = "outputs")]
    pub save_path: PathBuf,

    /// Replace the converted model that is in --save-path
    #[arg(long)]
    pub force: bool,

    /// Show the plan, from config.json and the weights' headers alone, and stop
    #[arg(long)]
    pub dry_run: bool,

    /// Start from a recipe: a file of recipes/, or the transmla.toml of an earlier conversion; options given here go first
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,

    #[command(flatten)]
    shape: ShapeArguments,

    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    calibration: CalibrationArguments,

    #[command(flatten)]
    evaluation: EvaluationArguments,

    #[command(flatten, next_help_heading = "Computation and output")]
    pub compute: ComputeArguments,

    #[command(flatten, next_help_heading = "Computation and output")]
    pub format: FormatArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Converted model")]
struct ShapeArguments {
    /// How the latent model is found [default: coherent]
    #[arg(long, value_enum, value_name = "METHOD")]
    method: Option<MethodName>,

    /// Steps of layer-wise reconstruction after the closed form, a calibration sequence each; 0 for the closed form alone
    /// [default: 100; --method transmla: has none]
    #[arg(long, value_name = "STEPS")]
    refine: Option<usize>,

    /// Width of the latent that keys and values share [default: 512; embedded: 28]
    #[arg(long, value_name = "R", value_parser = values::positive)]
    kv_lora_rank: Option<usize>,

    /// Width of the one shared rotary key [default: 64; embedded: 8]
    #[arg(long, value_name = "WIDTH", value_parser = values::positive)]
    qk_mqa_dim: Option<usize>,

    /// Choose the two widths for this share of the original KV cache, e.g. 25%
    #[arg(long, value_name = "SHARE", value_parser = values::share, conflicts_with_all = ["kv_lora_rank", "qk_mqa_dim"])]
    kv_budget: Option<f64>,

    /// Frequencies per slot of the rotary key; auto is head_dim / qk-mqa-dim [default: auto]
    #[arg(long, value_name = "auto|N")]
    collapse: Option<AutoOr>,
}

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

/// Which text is calibrated on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Calibration text")]
pub struct CalibrationArguments {
    /// wikitext2, ptb, c4, alpaca, stories, a file or folder, or several with weights, such as
    /// wikitext2:2,ptb:1,notes.txt [default: wikitext2; embedded: stories]
    ///
    /// Files are parquet, JSON (a record on each line, or a list) or plain text, as they are or with .gz or .zst; chats
    /// (messages, conversations) are read too. A path that exists is taken as it is, commas and colons and all; in a list
    /// it may also stand in double quotes, or have a backslash before each comma and colon: '"a, b:2.txt":3,ptb'.
    #[arg(long, value_name = "NAME|PATH")]
    cal_dataset: Option<TextMix>,

    /// Column that is the text, in files that have columns, for calibration and evaluation [default: text, sentence,
    /// content, messages, conversations, or the only one of strings]
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,

    /// Exact token ids instead: `input_ids` [samples, seq] of a safetensors file
    #[arg(long, value_name = "FILE")]
    cal_tokens: Option<PathBuf>,

    /// Number of samples [default: 128, or all of --cal-tokens]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    cal_nsamples: Option<usize>,

    /// Tokens per sample [default: 256, or as in --cal-tokens]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    cal_max_seqlen: Option<usize>,

    /// Share of the samples in which random words stand, so that text unlike the calibration's survives [default: 25%;
    /// --method transmla and --cal-tokens: none]
    #[arg(long, value_name = "SHARE", value_parser = values::share, conflicts_with = "cal_tokens")]
    cal_noise: Option<f64>,

    /// Samples that go through a layer together [default: 8]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    cal_batch_size: Option<usize>,

    /// Seed of the draw of samples [default: 42]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

/// Which text is evaluated on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Evaluation")]
pub struct EvaluationArguments {
    /// Windows that go through a layer together; 0 for no evaluation [default: 2]
    #[arg(long, value_name = "N")]
    ppl_eval_batch_size: Option<usize>,

    /// Text to measure perplexity on, its test split [default: the first of --cal-dataset]
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "eval_tokens")]
    eval_dataset: Option<TextSource>,

    /// Exact token ids instead: `input_ids` [windows, seq] of a safetensors file
    #[arg(long, value_name = "FILE")]
    eval_tokens: Option<PathBuf>,

    /// Tokens per window [default: 2048, or the model's context if that is shorter, or as in --eval-tokens]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    eval_seqlen: Option<usize>,

    /// Most windows to measure [default: all]
    #[arg(long, value_name = "K", value_parser = values::positive)]
    eval_max_windows: Option<usize>,
}

/// The name of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// As published: RoRoPE with FreqFold, then balanced joint PCA (arXiv 2502.07864)
    Transmla,
    /// Slots by phase coherence, a PCA in the metric of what the loss notices, then layer-wise reconstruction
    Coherent,
}

impl From<MethodName> for Method {
    fn from(name: MethodName) -> Self {
        match name {
            MethodName::Transmla => Self::Transmla,
            MethodName::Coherent => Self::Coherent,
        }
    }
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

/// What is written and what is printed, by one option.
#[derive(Debug, Args)]
pub struct FormatArguments {
    /// Files to write, form of the result on stdout, or both with a comma [default: safetensors,text]
    #[arg(long, value_enum, value_name = "FORM", value_delimiter = ',')]
    format: Vec<FormatName>,

    /// Print nothing but the result and errors
    #[arg(long, short)]
    quiet: bool,
}

/// A form of files or of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// Files: a folder in hub layout
    Safetensors,
    /// Files: the same with one GGUF file as weights, for llama.cpp
    Gguf,
    /// Result: for people
    Text,
    /// Result: one JSON object
    Json,
}

impl FormatArguments {
    /// What is printed.
    pub fn printing(&self) -> OutputArguments {
        let json = self.format.contains(&FormatName::Json);
        OutputArguments {
            format: if json { Format::Json } else { Format::Text },
            quiet: self.quiet,
        }
    }

    /// What is written, if that is said.
    fn files(&self) -> Option<FileFormat> {
        self.format.iter().find_map(|name| match name {
            FormatName::Safetensors => Some(FileFormat::Safetensors),
            FormatName::Gguf => Some(FileFormat::Gguf),
            FormatName::Text | FormatName::Json => None,
        })
    }

    /// Two forms of the same thing.
    fn check(&self) -> anyhow::Result<()> {
        let has = |name| self.format.contains(&name);
        if has(FormatName::Text) && has(FormatName::Json) {
            bail!("--format text and --format json exclude each other");
        }
        if has(FormatName::Safetensors) && has(FormatName::Gguf) {
            bail!("--format writes safetensors or gguf; `transmla export` makes a GGUF file of a folder");
        }
        Ok(())
    }
}

const EXAMPLES: &str = "\
Examples:
  transmla convert
  transmla convert --model-path org/model --kv-budget 25% --save-path converted
  transmla convert --model-path ./model --freqfold 4 --cal-dataset ./texts --eval-max-windows 20
  transmla convert --model-path ./model --kv-budget 50% --dry-run
  transmla convert --model-path ./model --target vllm --kv-lora-rank 512 --qk-mqa-dim 64
  transmla convert --model-path ./model --target llama.cpp --kv-budget 50% --dtype fp16
  transmla convert --recipe converted/transmla.toml --kv-lora-rank 256 --save-path smaller";

impl ConvertArguments {
    /// The recipe: defaults, then the recipe file, then the options given.
    pub fn recipe(&self) -> anyhow::Result<Recipe> {
        let mut recipe = match (&self.recipe, self.model_path.as_deref()) {
            (Some(file), _) => read_recipe(file)?,
            (None, None | Some(embedded::MODEL)) => embedded::recipe(),
            (None, Some(_)) => Recipe::default(),
        };
        recipe.transmla_version = env!("CARGO_PKG_VERSION").into();
        set(&mut recipe.model_path, self.model_path.clone());
        set(&mut recipe.revision, self.revision.clone());
        self.shape.apply(&mut recipe);
        self.form.apply(&mut recipe);
        self.format.check()?;
        set(&mut recipe.format, self.format.files().map(Some));
        self.calibration.apply(&mut recipe);
        self.evaluation.apply(&mut recipe);
        if recipe.method == Method::Transmla && self.shape.refine.is_some_and(|steps| steps > 0) {
            bail!("--refine is part of the coherent method; leave it out, or use --method coherent");
        }
        if recipe.method == Method::Transmla {
            recipe.refine = None;
        }
        Ok(recipe)
    }

    /// The recipe that it starts from, if there is one.
    pub fn recipe_file(&self) -> Option<&Path> {
        self.recipe.as_deref()
    }

    /// Widths for the budget, if one is given.
    pub fn apply_budget(&self, recipe: &mut Recipe, config: &ModelConfig) -> anyhow::Result<()> {
        if let Some(share) = self.shape.kv_budget {
            (recipe.qk_mqa_dim, recipe.kv_lora_rank) = shapes_for_budget(config, share)?;
        }
        Ok(())
    }
}

fn read_recipe(file: &Path) -> anyhow::Result<Recipe> {
    let fail = || format!("cannot read {}", file.display());
    let text = read_regular_text(file, LARGEST_RECIPE)?;
    let mut recipe = Recipe::from_toml(&text).with_context(fail)?;
    names::resolve(&mut recipe, file);
    Ok(recipe)
}

impl ShapeArguments {
    fn apply(&self, recipe: &mut Recipe) {
        set(&mut recipe.method, self.method.map(Method::from));
        set(&mut recipe.refine, self.refine.map(Some));
        set(&mut recipe.kv_lora_rank, self.kv_lora_rank);
        set(&mut recipe.qk_mqa_dim, self.qk_mqa_dim);
        set(&mut recipe.collapse, self.collapse.map(|AutoOr(number)| number));
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

impl CalibrationArguments {
    /// Sets what is given.
    pub fn apply(&self, recipe: &mut Recipe) {
        let text = &mut recipe.calibration;
        if let Some(dataset) = &self.cal_dataset {
            text.cal_dataset = dataset.to_string();
            text.cal_tokens = None;
        }
        set(&mut text.text_column, self.text_column.clone().map(Some));
        set(&mut text.cal_tokens, self.cal_tokens.clone().map(Some));
        set(&mut text.cal_nsamples, self.cal_nsamples.map(Some));
        set(&mut text.cal_max_seqlen, self.cal_max_seqlen.map(Some));
        set(&mut text.cal_noise, self.cal_noise.map(Some));
        set(&mut text.cal_batch_size, self.cal_batch_size);
        set(&mut text.seed, self.seed);
    }
}

impl EvaluationArguments {
    /// Sets what is given.
    pub fn apply(&self, recipe: &mut Recipe) {
        let text = &mut recipe.evaluation;
        set(&mut text.ppl_eval_batch_size, self.ppl_eval_batch_size);
        if let Some(dataset) = &self.eval_dataset {
            text.eval_dataset = Some(dataset.to_string());
            text.eval_tokens = None;
        }
        set(&mut text.eval_tokens, self.eval_tokens.clone().map(Some));
        set(&mut text.eval_seqlen, self.eval_seqlen.map(Some));
        set(&mut text.eval_max_windows, self.eval_max_windows.map(Some));
    }
}

/// Changes what is given and leaves the rest.
pub fn set<T>(slot: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *slot = value;
    }
}
