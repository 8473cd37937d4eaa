//! The options of `transmla convert`, and the recipe that they make.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use transmla_convert::{FileFormat, LARGEST_RECIPE, Method, Recipe, shapes_for_budget};
use transmla_core::ModelConfig;
use transmla_core::checkpoint::read_regular_text;

use super::names;
use crate::embedded;
use crate::options::calibration::CalibrationArguments;
use crate::options::compute::ComputeArguments;
use crate::options::evaluation::EvaluationArguments;
use crate::options::form::FormArguments;
use crate::options::method::MethodName;
use crate::options::output::OutputArguments;
use crate::options::set::set;
use crate::options::values::{self, AutoOr};
use crate::printer::Format;

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
