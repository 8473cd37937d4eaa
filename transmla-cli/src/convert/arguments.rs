//! The options of `transmla convert`, and the recipe that they make.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use transmla_convert::{
    FileFormat, KeyNorm, LARGEST_RECIPE, MethodName, Recipe, group_source, has_refinement, resolve_paths,
    shapes_for_budget,
};
use transmla_core::ModelConfig;
use transmla_core::checkpoint::read_regular_text;

use crate::options::budget::budget;
use crate::options::compute::ComputeArguments;
use crate::options::conversion::ConversionArguments;
use crate::options::output::OutputArguments;
use crate::options::set::set;
use crate::options::source::SourceArguments;
use crate::options::values::{self, AutoOr};

/// Convert a model with grouped-query attention to multi-head latent attention.
///
/// Without --model-path, the small model in this binary is converted on a text of stories, as a demonstration. The plan is
/// shown first, and errors that can be foreseen are reported before a weight is read.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArguments {
    #[command(flatten)]
    model: SourceArguments,

    /// Folder for the converted model and its tokenizer
    #[arg(long, value_name = "FOLDER", default_value = "outputs")]
    pub save_path: PathBuf,

    /// Replace the converted model that is in --save-path
    #[arg(long)]
    pub force: bool,

    /// Write no report.html, the page of what was done and measured, beside the model
    #[arg(long)]
    pub no_report: bool,

    /// Show the plan, from config.json and the weights' headers alone, and stop
    #[arg(long)]
    pub dry_run: bool,

    /// Start from a recipe: a file of recipes/, or the transmla.toml of an earlier conversion; options given here go first
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,

    #[command(flatten)]
    shape: ShapeArguments,

    #[command(flatten)]
    conversion: ConversionArguments,

    #[command(flatten, next_help_heading = "Computation and output")]
    pub compute: ComputeArguments,

    #[command(flatten, next_help_heading = "Computation and output")]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Converted model")]
struct ShapeArguments {
    /// How the latent model is found [default: coherent]
    #[arg(long, value_enum, value_name = "METHOD")]
    method: Option<MethodName>,

    /// Steps of layer-wise reconstruction after the closed form; 0 for the closed form alone
    /// [default: 100; --method transmla: has none]
    #[arg(long, value_name = "STEPS")]
    refine: Option<usize>,

    /// Calibration sequences of a step of reconstruction [default: one for each text of --cal-dataset]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    refine_batch: Option<usize>,

    /// Groups of key heads that have a latent and a rotary key each (grouped latent attention, GLA), so that devices that share the heads
    /// hold a part of the cache each; --kv-lora-rank and --qk-mqa-dim are those of a group [default: 1; --tied: one for each key head]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    latent_groups: Option<usize>,

    /// Make the latent of a group its heads' value and their key without position as it is (grouped tied attention, GTA); it is as
    /// wide as a head unless --kv-lora-rank says otherwise
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tied: Option<bool>,

    /// Width of the latent that keys and values share [default: what makes half of the original KV cache; --target vllm: what
    /// makes 320, 512 or 576 numbers per token, which its GPU kernels hold; embedded: 28]
    #[arg(long, value_name = "R", value_parser = values::positive)]
    kv_lora_rank: Option<usize>,

    /// Width of the shared rotary key [default: that of half of the cache; with --kv-lora-rank: 64, or less in heads
    /// that are narrower; embedded: 8]
    #[arg(long, value_name = "WIDTH", value_parser = values::positive)]
    qk_mqa_dim: Option<usize>,

    /// Choose the two widths for this share of the original KV cache: 25%, 0.25 or 25
    #[arg(long, value_name = "SHARE", value_parser = budget, conflicts_with_all = ["kv_lora_rank", "qk_mqa_dim"])]
    kv_budget: Option<f64>,

    /// Frequencies per slot of the rotary key; auto is head_dim / qk-mqa-dim [default: auto]
    #[arg(long, value_name = "auto|N")]
    collapse: Option<AutoOr>,

    /// Files to write [default: safetensors; --target llama.cpp: gguf]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<FileFormat>,
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
        let mut recipe = match &self.recipe {
            Some(file) => read_recipe(file)?,
            None => self.model.defaults(),
        };
        recipe.transmla_version = env!("CARGO_PKG_VERSION").into();
        self.model.apply(&mut recipe);
        self.shape.apply(&mut recipe);
        self.shape.free_widths(self.recipe.is_none(), &mut recipe);
        self.conversion.apply(&mut recipe)?;
        if !has_refinement(recipe.method) {
            let refines = self.shape.refine.is_some_and(|steps| steps > 0);
            let given = [
                (refines, "--refine"),
                (self.shape.refine_batch.is_some(), "--refine-batch"),
            ];
            if let Some((_, flag)) = given.into_iter().find(|(given, _)| *given) {
                bail!("{flag} is part of the coherent method; leave it out, or use --method coherent");
            }
            (recipe.refine, recipe.refine_batch) = (None, None);
        }
        Ok(recipe)
    }

    /// The recipe that it starts from, if there is one.
    pub fn recipe_file(&self) -> Option<&Path> {
        self.recipe.as_deref()
    }

    /// Widths for the budget, if there is one.
    pub fn apply_budget(&self, recipe: &mut Recipe, config: &ModelConfig) -> anyhow::Result<()> {
        if let Some(share) = self.shape.kv_budget {
            let scales = KeyNorm::chosen(recipe, config).scales(config);
            let (rope, rank) = shapes_for_budget(&group_source(config, recipe)?, share, scales)?;
            (recipe.qk_mqa_dim, recipe.kv_lora_rank) = (Some(rope), Some(rank));
        }
        Ok(())
    }
}

fn read_recipe(file: &Path) -> anyhow::Result<Recipe> {
    let fail = || format!("cannot read {}", file.display());
    let text = read_regular_text(file, LARGEST_RECIPE)?;
    let mut recipe = Recipe::from_toml(&text).with_context(fail)?;
    resolve_paths(&mut recipe, file);
    Ok(recipe)
}

impl ShapeArguments {
    /// Leaves widths open that are not given where heads are in groups: those that a model has as `defaults` are for one latent.
    fn free_widths(&self, defaults: bool, recipe: &mut Recipe) {
        if defaults && (recipe.tied || recipe.latent_groups.is_some_and(|groups| groups > 1)) {
            recipe.kv_lora_rank = self.kv_lora_rank;
            recipe.qk_mqa_dim = self.qk_mqa_dim;
        }
    }

    fn apply(&self, recipe: &mut Recipe) {
        set(&mut recipe.method, self.method);
        set(&mut recipe.refine, self.refine.map(Some));
        set(&mut recipe.refine_batch, self.refine_batch.map(Some));
        set(&mut recipe.latent_groups, self.latent_groups.map(Some));
        set(&mut recipe.tied, self.tied);
        set(&mut recipe.kv_lora_rank, self.kv_lora_rank.map(Some));
        set(&mut recipe.qk_mqa_dim, self.qk_mqa_dim.map(Some));
        set(&mut recipe.collapse, self.collapse.map(|AutoOr(number)| number));
        set(&mut recipe.format, self.format.map(Some));
    }
}
