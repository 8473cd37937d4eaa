//! The commands.

use clap::{CommandFactory, Error, FromArgMatches, Parser, Subcommand};

use crate::options::messages::MessageArguments;
use crate::{
    bench, chat, completions, convert, doctor, eval, export, generate, heal, inspect, logits, man, push, sweep, verify,
};

/// Convert language models with grouped-query attention to multi-head latent attention.
///
/// A converted model keeps a small latent per token instead of keys and values, so its KV cache shrinks. Layers are fitted
/// to a calibration text, one after another; `heal` then trains the whole model on its original. Models are folders in hub layout, ids on
/// the Hugging Face hub, or `embedded`, a small one in this binary.
#[derive(Debug, Parser)]
#[command(name = "transmla", version, max_term_width = 110, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,

    #[command(flatten)]
    pub messages: MessageArguments,
}

const EXAMPLES: &str = "\
Examples:
  transmla convert                                   convert the embedded model, to see how it goes
  transmla inspect --model-path org/model            what a model can be converted to
  transmla convert --model-path org/model --kv-budget 25% --save-path converted
  transmla sweep --model-path org/model --budgets 75%,50%,25%
  transmla heal --model-path converted --against org/model --save-path healed
  transmla eval --model-path converted --dataset wikitext2
  transmla verify --model-path converted --against org/model
  transmla generate --model-path converted --prompt 'Once upon a time'
  transmla chat --model-path converted
  transmla bench --model-path converted --against org/model
  transmla push --model-path converted --repo-id me/model-mla

Exit codes: 0 done, 1 failed, 2 wrong usage, 129, 130 or 143 ended by a signal.";

#[derive(Debug, Subcommand)]
pub enum Command {
    Convert(Box<convert::ConvertArguments>),
    Sweep(Box<sweep::SweepArguments>),
    Heal(Box<heal::HealArguments>),
    Eval(eval::EvalArguments),
    Verify(verify::VerifyArguments),
    Export(export::ExportArguments),
    Logits(logits::LogitsArguments),
    Inspect(inspect::InspectArguments),
    Generate(generate::GenerateArguments),
    Chat(chat::ChatArguments),
    Bench(bench::BenchArguments),
    Push(push::PushArguments),
    Doctor(doctor::DoctorArguments),
    Completions(completions::CompletionsArguments),
    Man(man::ManArguments),
}

/// The whole command line. Numbers below zero are values, so that of `--temperature -1` the number is what is wrong.
pub fn command() -> clap::Command {
    Arguments::command().mut_subcommands(|command| {
        command.mut_args(|argument| {
            let takes_values = argument.get_action().takes_values();
            argument.allow_negative_numbers(takes_values)
        })
    })
}

/// What the command line says.
///
/// # Errors
/// Wrong usage, or help or the version, which are asked for.
pub fn parse() -> Result<Arguments, Error> {
    let mut matches = command().try_get_matches()?;
    Arguments::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command()))
}
