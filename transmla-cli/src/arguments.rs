//! The commands.

use clap::{Parser, Subcommand};

use crate::{bench, chat, completions, convert, eval, export, generate, inspect, logits, sweep, verify};

/// Convert language models with grouped-query attention to multi-head latent attention.
///
/// A converted model keeps a small latent per token instead of keys and values, so its KV cache shrinks. Its
/// layers are fitted one by one on a calibration text; the model as a whole is not fine-tuned. Models are folders in hub
/// layout, ids on the Hugging Face hub, or `embedded`, a small one in this binary.
#[derive(Debug, Parser)]
#[command(name = "transmla", version, max_term_width = 110, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  transmla convert                                   convert the embedded model, to see how it goes
  transmla inspect --model-path org/model            what a model can be converted to
  transmla convert --model-path org/model --kv-budget 25% --save-path converted
  transmla sweep --model-path org/model --budgets 75%,50%,25%
  transmla eval --model-path converted --dataset wikitext2
  transmla verify --model-path converted --against org/model
  transmla generate --model-path converted --prompt 'Once upon a time'
  transmla chat --model-path converted
  transmla bench --model-path converted --against org/model

Exit codes: 0 done, 1 failed, 2 wrong usage, 129, 130 or 143 ended by a signal.";

#[derive(Debug, Subcommand)]
pub enum Command {
    Convert(Box<convert::ConvertArguments>),
    Sweep(Box<sweep::SweepArguments>),
    Eval(eval::EvalArguments),
    Verify(verify::VerifyArguments),
    Export(export::ExportArguments),
    Logits(logits::LogitsArguments),
    Inspect(inspect::InspectArguments),
    Generate(generate::GenerateArguments),
    Chat(chat::ChatArguments),
    Bench(bench::BenchArguments),
    Completions(completions::CompletionsArguments),
}
