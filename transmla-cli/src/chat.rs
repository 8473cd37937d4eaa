//! `transmla chat`: a chat with a model, line by line.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use clap::Args;
use transmla_calib::TextTokenizer;
use transmla_core::generate::{GenerationSettings, Sampler};
use transmla_core::{ModelConfig, Residency};

use crate::conversation::{Conversation, Refused, chat_template};
use crate::interrupt::Reply;
use crate::model::ModelFolder;
use crate::options::cache::CacheArguments;
use crate::options::device::DeviceArguments;
use crate::options::model::ModelArguments;
use crate::options::sampling::SamplingArguments;
use crate::options::values;
use crate::printer::{self, Closed, Printer};
use crate::table;
use crate::writer::{Stopped, Writer, Written};

/// Chat with a model, by its own chat template.
///
/// Each line of standard input is a message; answers go to stdout as they come. The KV cache is kept from turn to turn.
/// `/clear` starts over, `/exit` or the end of the input ends the chat. On a terminal Ctrl-C stops an answer, of which the
/// chat remembers what is there; at the prompt it ends the chat. Tokens are drawn as the model's
/// generation_config.json says unless options say otherwise.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ChatArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Instructions in front of the chat
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Most tokens of an answer; at most half of the context
    #[arg(long, value_name = "N", default_value = "512", value_parser = values::positive)]
    max_new_tokens: usize,

    /// Most tokens of the chat; at most the model's context
    #[arg(long, value_name = "N", default_value = "4096", value_parser = values::positive)]
    context: usize,

    #[command(flatten)]
    sampling: SamplingArguments,

    #[command(flatten)]
    cache: CacheArguments,

    #[command(flatten)]
    device: DeviceArguments,
}

const EXAMPLES: &str = "\
Examples:
  transmla chat --model-path converted
  transmla chat --model-path converted --system 'Answer in one sentence.' --temperature 0.7
  echo 'What is a llama?' | transmla chat --model-path converted --quiet";

const COMMANDS: &str = "/clear starts over, /exit ends; Ctrl-C stops an answer";

/// Whether a line looks like a command, such as `/help`, and like nothing that a model would be asked.
fn is_command(line: &str) -> bool {
    let word = line.strip_prefix('/').unwrap_or_default();
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic())
}

pub fn run(arguments: &ChatArguments) -> anyhow::Result<()> {
    let printer = Printer::text();
    let folder = ModelFolder::locate(&arguments.model.model_path, &arguments.model.revision, &printer)?;
    let config = ModelConfig::read(folder.path())?;
    arguments.cache.format.check(&config)?;
    let tokenizer = TextTokenizer::from_folder(folder.path())?;
    let mut settings = GenerationSettings::from_folder(folder.path(), &config)?;
    let template = chat_template(folder.path(), &tokenizer, &mut settings)?;
    let context = arguments.context.min(config.max_position_embeddings);
    let model = folder.open_on(&arguments.device, config, Residency::Loaded)?;
    let model = model.for_cache(arguments.cache.format)?;
    let writer = Writer {
        model: &model,
        tokenizer: &tokenizer,
        stop_ids: &settings.stop_ids,
        // Half of a short context is left for what is asked.
        max_new_tokens: arguments.max_new_tokens.min((context / 2).max(1)),
    };
    let mut sampler = arguments.sampling.sampler(settings.sampling);
    let mut chat = Conversation::new(
        &writer,
        &template,
        arguments.system.clone(),
        context,
        arguments.cache.format,
    )?;
    let stdin = std::io::stdin();
    let at_terminal = stdin.is_terminal();
    if at_terminal {
        printer.note(COMMANDS);
    }
    let (mut asked, mut refused) = (0, 0);
    loop {
        if at_terminal {
            prompt()?;
        }
        let mut line = String::new();
        let read = stdin
            .lock()
            .read_line(&mut line)
            .context("cannot read standard input")?;
        match line.trim() {
            _ if read == 0 => break,
            "" => continue,
            "/exit" | "/quit" => break,
            "/clear" => chat.clear(),
            unknown if at_terminal && is_command(unknown) => printer.note(COMMANDS),
            message => {
                asked += 1;
                match answer(&mut chat, message, &mut sampler, at_terminal, &printer) {
                    Ok(written) => writer.describe(&written, &printer),
                    Err(error) if error.is::<Closed>() => return Err(error),
                    // At a terminal a chat goes on behind what did not work.
                    Err(error) if at_terminal => printer.warn(printer::flat(&error)),
                    Err(error) if error.is::<Refused>() => {
                        refused += 1;
                        printer::error(&error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    if refused > 0 {
        bail!("{refused} of {} not answered", table::plural(asked, "message"));
    }
    Ok(())
}

/// Asks for a line: not a result, and wanted even by those who want quiet.
fn prompt() -> anyhow::Result<()> {
    let mut stderr = std::io::stderr();
    let printed = stderr.write_all(b"> ").and_then(|()| stderr.flush());
    printed.context("cannot write to stderr")
}

/// Prints the model's answer as it comes, with a line end behind it if there is any.
fn answer(
    chat: &mut Conversation<'_>,
    message: &str,
    sampler: &mut Sampler,
    at_terminal: bool,
    printer: &Printer,
) -> anyhow::Result<Written> {
    // Whoever pipes messages in wants Ctrl-C to end them all.
    let reply = at_terminal.then(Reply::begin);
    let mut begun = false;
    let written = chat.answer(message, sampler, &mut |text| {
        if reply.as_ref().is_some_and(Reply::is_stopped) {
            return Err(Stopped.into());
        }
        begun = true;
        printer.written(text)
    });
    if begun || written.is_ok() {
        printer.written("\n")?;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_single_words_behind_a_slash() {
        assert!(["/help", "/quit", "/h"].into_iter().all(is_command));
        let messages = ["/", "help", "/etc/passwd", "/help me", "1/2", "/1"];
        assert!(!messages.into_iter().any(is_command));
    }
}
