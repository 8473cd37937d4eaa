//! Options on the text that a conversion evaluates on.

use std::path::PathBuf;

use clap::Args;
use transmla_convert::{Recipe, TextSource};

use super::set::set;
use super::values;
use crate::setup::parse_source;

/// Which text is evaluated on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Evaluation")]
pub struct EvaluationArguments {
    /// Windows per batch; 0 for no evaluation [default: 2]
    #[arg(long, value_name = "N")]
    ppl_eval_batch_size: Option<usize>,

    /// Text to measure perplexity on, its test split [default: the first of --cal-dataset]
    #[arg(long, value_name = "NAME|PATH", value_parser = parse_source, conflicts_with = "eval_tokens")]
    eval_dataset: Option<TextSource>,

    /// Exact token ids instead: `input_ids` [windows, seq] of a safetensors file
    #[arg(long, value_name = "FILE")]
    eval_tokens: Option<PathBuf>,

    /// Tokens per window [default: 2048, or the model's context if that is shorter, or as in --eval-tokens]
    #[arg(long, value_name = "N", value_parser = values::window)]
    eval_seqlen: Option<usize>,

    /// Maximum number of windows [default: all]
    #[arg(long, value_name = "K", value_parser = values::positive)]
    eval_max_windows: Option<usize>,
}

impl EvaluationArguments {
    /// Sets the fields whose options are given.
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
