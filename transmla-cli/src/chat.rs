//! `transmla chat`: a chat with a model, line by line.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Context;
use clap::Args;
use transmla_calib::TextTokenizer;
use transmla_core::generate::GenerationSettings;
use transmla_core::{ModelConfig, Residency, StorageDtype};

use crate::conversation::{Conversation, chat_template};
use crate::model::ModelFolder;
use crate::options::device::DeviceArguments;
use crate::options::model::ModelArguments;
use crate::options::sampling::SamplingArguments;
use crate::options::values;
use crate::printer::Printer;
use crate::writer::Writer;

/// Chat with a model, by its own chat template.
///
/// Each line of standard input is a message; answers go to stdout as they come. The KV cache is kept from turn to turn.
/// `/clear` starts over, `/exit` or the end of the input ends the chat. Tokens are drawn as the model's
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

    /// Number format of the KV cache: fp32, bf16 or fp16
    #[arg(long, value_name = "DTYPE", default_value = "fp32")]
    cache_dtype: StorageDtype,

    #[command(flatten)]
    device: DeviceArguments,

    /// Print nothing but the answers and errors
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  transmla chat --model-path converted
  transmla chat --model-path converted --system 'Answer in one sentence.' --temperature 0.7
  echo 'What is a llama?' | transmla chat --model-path converted --quiet";

pub fn run(arguments: &ChatArguments) -> anyhow::Result<()> {
    let printer = Printer::text(arguments.quiet);
    let folder = ModelFolder::locate(&arguments.model.model_path, &arguments.model.revision, &printer)?;
    let config = ModelConfig::read(folder.path())?;
    let tokenizer = TextTokenizer::from_folder(folder.path())?;
    let mut settings = GenerationSettings::from_folder(folder.path(), &config)?;
    let template = chat_template(folder.path(), &tokenizer, &mut settings)?;
    let context = arguments.context.min(config.max_position_embeddings);
    let model = folder.open_on(&arguments.device, config, Residency::Loaded)?;
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
        arguments.cache_dtype,
    );
    let stdin = std::io::stdin();
    let at_terminal = stdin.is_terminal();
    if at_terminal {
        printer.note("/clear starts over, /exit ends");
    }
    loop {
        if at_terminal {
            // Not a result, and asked for even by those who want quiet.
            let mut stderr = std::io::stderr();
            stderr
                .write_all(b"> ")
                .and_then(|()| stderr.flush())
                .context("cannot write to stderr")?;
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
            message => {
                let written = chat.answer(message, &mut sampler, &mut |text| printer.written(text));
                printer.written("\n")?;
                match written {
                    Ok(written) => writer.describe(&written, &printer),
                    // At a terminal a chat goes on behind what did not work.
                    Err(error) if at_terminal => printer.warn(format!("{error:#}")),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}
