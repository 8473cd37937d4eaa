//! The commands, and the options that several of them share.

use clap::{Args, Parser, Subcommand, ValueEnum};
use transmla_core::DeviceChoice;

use crate::values;
use crate::{bench, completions, convert, eval, export, generate, inspect, logits, sweep, verify};

/// Convert language models with grouped-query attention to multi-head latent attention.
///
/// A converted model keeps a small latent per token instead of keys and values, so its KV cache shrinks. No training is
/// needed. Models are folders in hub layout, ids on the Hugging Face hub, or `embedded`, a small one in this binary.
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
    Bench(bench::BenchArguments),
    Completions(completions::CompletionsArguments),
}

/// Which model.
#[derive(Debug, Args)]
pub struct ModelArguments {
    /// Model: a folder, a hub id, or `embedded`
    #[arg(long, value_name = "PATH|ID")]
    pub model_path: String,

    /// Branch, tag or commit of a model on the hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub revision: String,
}

/// Where it runs and in how much memory.
#[derive(Debug, Args)]
pub struct ComputeArguments {
    /// Where to compute: auto, cpu, ndarray, cuda:N or wgpu:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,

    /// Keep weights in memory if they take at most half of this, else read them layer by layer
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = values::size)]
    pub max_memory: u64,
}

/// What is printed.
#[derive(Debug, Args)]
pub struct OutputArguments {
    /// Form of the result on stdout
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Format::Text)]
    pub format: Format,

    /// Print nothing but the result and errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}
