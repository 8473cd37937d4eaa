//! The options of `transmla heal`.

use std::path::PathBuf;

use clap::Args;
use transmla_convert::{Healing, Recipe, Trained};

use crate::options::calibration::CalibrationArguments;
use crate::options::compute::ComputeArguments;
use crate::options::model::ModelArguments;
use crate::options::model_name::model_name;
use crate::options::output::OutputArguments;
use crate::options::set::set;
use crate::options::values;

/// Train a converted model, as a whole, to predict what its original predicts.
///
/// A conversion fits layers one after another; what their errors come to together is left. Here the projections of attention
/// move (or more: --train) until the predictions are nearest to the original's. Norms stay as they are, and the model is written
/// in the form that it was read in. A held-out part of the text picks the step that is kept. A run that was ended goes on where
/// it was when the same command is run again.
#[derive(Debug, Args)]
#[command(
    mut_arg("model_path", |argument| argument.help("Converted model: a folder or a hub id")),
    mut_arg("cal_nsamples", |argument| argument.help("Number of sequences [default: as many as the steps see, once]")),
    mut_arg("cal_max_seqlen", |argument| argument.help("Tokens per sequence [default: 512, or as in --cal-tokens]")),
    mut_arg("cal_noise", |argument| argument.help("Share of the sequences that contain random words [default: none]")),
    mut_arg("cal_batch_size", |argument| argument.hide(true)),
    after_help = EXAMPLES
)]
pub struct HealArguments {
    #[command(flatten)]
    pub model: ModelArguments,

    /// The model that it was converted from: a folder, a hub id, or `embedded`
    #[arg(long, value_name = "PATH|ID", value_parser = model_name)]
    pub against: String,

    /// Branch, tag or commit of the original on the hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub against_revision: String,

    /// Folder for the healed model
    #[arg(long, value_name = "FOLDER", default_value = "healed")]
    pub save_path: PathBuf,

    /// Replace the model of this program that is in --save-path
    #[arg(long)]
    pub force: bool,

    /// Show the plan, with time and memory, and stop
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    training: TrainingArguments,

    #[command(flatten, next_help_heading = "Text")]
    text: CalibrationArguments,

    #[command(flatten, next_help_heading = "Computation and output")]
    pub compute: ComputeArguments,

    #[command(flatten, next_help_heading = "Computation and output")]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
struct TrainingArguments {
    /// Which weights move [default: attention]
    #[arg(long, value_enum, value_name = "WHICH")]
    train: Option<Trained>,

    /// Rank of the changes of --train lora [default: 16]
    #[arg(long, value_name = "R", value_parser = values::positive)]
    lora_rank: Option<usize>,

    /// Steps of the optimiser, AdamW [default: 200]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    steps: Option<usize>,

    /// Sequences of a step [default: 8]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    batch_size: Option<usize>,

    /// Sequences that are in memory together; the gradients of a step are added up [default: 4]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    micro_batch: Option<usize>,

    /// Largest learning rate, as a share of the size of the weights; it grows to that in --warmup and falls to 0 by half a cosine
    /// [default: 0.001]
    #[arg(long, value_name = "RATE", value_parser = values::temperature)]
    learning_rate: Option<f64>,

    /// Share of the steps in which the learning rate grows [default: 10%]
    #[arg(long, value_name = "SHARE", value_parser = values::share)]
    warmup: Option<f64>,

    /// Weight decay of AdamW [default: 0]
    #[arg(long, value_name = "DECAY", value_parser = values::temperature)]
    weight_decay: Option<f64>,

    /// Longest gradient; longer ones are shortened; 0 for no limit [default: 1]
    #[arg(long, value_name = "LENGTH", value_parser = values::temperature)]
    max_grad_norm: Option<f64>,

    /// Weight of the divergence from the original's predictions in the loss [default: 1]
    #[arg(long, value_name = "WEIGHT", value_parser = values::temperature)]
    kl_weight: Option<f64>,

    /// Weight of the cross-entropy to the text in the loss [default: 0]
    #[arg(long, value_name = "WEIGHT", value_parser = values::temperature)]
    ce_weight: Option<f64>,

    /// Keep so many of the original's largest logits for each token on disk first, and do not run it again: pays where text is seen
    /// more than once, or the original does not fit into memory [default: the original is run at every step]
    #[arg(long, value_name = "K", value_parser = values::positive)]
    teacher_top_k: Option<usize>,

    /// Share of the text that is not trained on and picks the step that is kept [default: 5%]
    #[arg(long, value_name = "SHARE", value_parser = values::share)]
    held_out: Option<f64>,

    /// Times that the held-out text is looked at and the state is saved [default: 10]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    checks: Option<usize>,
}

const EXAMPLES: &str = "\
Examples:
  transmla heal --model-path converted --against org/model --save-path healed
  transmla heal --model-path converted --against ./model --cal-dataset wikitext2:1,self:1 --steps 1000 --batch-size 16
  transmla heal --model-path converted --against ./model --train lora --lora-rank 32 --dry-run
  transmla heal --model-path converted --against ./model --teacher-top-k 64";

impl HealArguments {
    /// The options, those that are not given at their defaults.
    pub fn healing(&self) -> Healing {
        let mut healing = Healing {
            text: self.text_recipe().calibration,
            ..Healing::default()
        };
        let given = &self.training;
        set(&mut healing.train, given.train);
        set(&mut healing.lora_rank, given.lora_rank);
        set(&mut healing.steps, given.steps);
        set(&mut healing.batch_size, given.batch_size);
        set(&mut healing.micro_batch, given.micro_batch);
        set(&mut healing.learning_rate, given.learning_rate);
        set(&mut healing.warmup, given.warmup);
        set(&mut healing.weight_decay, given.weight_decay);
        set(&mut healing.max_grad_norm, given.max_grad_norm);
        set(&mut healing.kl_weight, given.kl_weight);
        set(&mut healing.ce_weight, given.ce_weight);
        set(&mut healing.teacher_top_k, given.teacher_top_k.map(Some));
        set(&mut healing.held_out, given.held_out);
        set(&mut healing.checks, given.checks);
        healing
    }

    /// A recipe with the text alone, and the converted model.
    pub fn text_recipe(&self) -> Recipe {
        let mut recipe = Recipe {
            model_path: self.model.model_path.clone(),
            ..Recipe::default()
        };
        if self.against == crate::embedded::MODEL {
            recipe.calibration.cal_dataset = Some(crate::embedded::TEXT.to_owned());
        }
        self.text.apply(&mut recipe);
        recipe
    }
}
