//! `transmla generate`: text from a model, token by token.

use std::path::Path;

use clap::Args;
use transmla_calib::{ChatMessage, TextTokenizer};
use transmla_core::generate::{GenerationSettings, Sampling};
use transmla_core::{ModelConfig, Residency};

use crate::conversation::chat_template;
use crate::model::ModelFolder;
use crate::options::cache::CacheArguments;
use crate::options::device::DeviceArguments;
use crate::options::model::ModelArguments;
use crate::options::output::OutputArguments;
use crate::options::prompt::PromptArguments;
use crate::options::sampling::SamplingArguments;
use crate::options::values;
use crate::printer::Printer;
use crate::writer::Writer;

/// Let a model continue a text, or answer with --chat.
///
/// The text goes to stdout as it comes, speed and cache size to stderr. Weights are kept in memory. Without --chat the most
/// likely tokens are taken unless options say otherwise; with it the settings of the model's generation_config.json hold.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GenerateArguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    prompt: PromptArguments,

    /// Take the prompt for a question, and put it into the model's chat template
    #[arg(long)]
    chat: bool,

    /// Instructions in front of the chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,

    /// Maximum number of new tokens
    #[arg(long, value_name = "N", default_value = "128", value_parser = values::positive)]
    max_new_tokens: usize,

    #[command(flatten)]
    sampling: SamplingArguments,

    #[command(flatten)]
    cache: CacheArguments,

    #[command(flatten)]
    device: DeviceArguments,

    #[command(flatten)]
    printing: OutputArguments,
}

const EXAMPLES: &str = "\
Examples:
  transmla generate --model-path outputs --prompt 'Once upon a time'
  transmla generate --model-path outputs --chat --prompt 'Name three colours.'
  transmla generate --model-path outputs --prompt 'Once upon a time' --cache-dtype int8
  transmla generate --model-path embedded --prompt 'Lily' --temperature 0.8 --top-p 0.95 --seed 7";

/// Everything that can be found wrong without reading a weight is found first.
pub fn run(arguments: &GenerateArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.printing);
    let prompt = arguments.prompt.read()?;
    let folder = ModelFolder::locate(&arguments.model.model_path, &arguments.model.revision, &printer)?;
    let config = ModelConfig::read(folder.path())?;
    arguments.cache.format.check(&config)?;
    let tokenizer = TextTokenizer::from_folder(folder.path())?;
    let mut settings = settings(folder.path(), &config, arguments.chat, &printer)?;
    let template = match arguments.chat {
        true => Some(chat_template(folder.path(), &tokenizer, &mut settings)?),
        false => None,
    };
    let model = folder.open_on(&arguments.device, config, Residency::Loaded)?;
    let model = model.for_cache(arguments.cache.format)?;
    let writer = Writer {
        model: &model,
        tokenizer: &tokenizer,
        stop_ids: &settings.stop_ids,
        max_new_tokens: arguments.max_new_tokens,
    };
    let (ids, sampling) = match template {
        Some(template) => {
            let mut messages: Vec<ChatMessage> = arguments
                .system
                .as_ref()
                .map(|text| ChatMessage::system(text.as_str()))
                .into_iter()
                .collect();
            messages.push(ChatMessage::user(prompt.as_str()));
            let ids = tokenizer.encode(&template.render(&messages, true)?, false)?;
            (ids, settings.sampling)
        }
        None => {
            let ids = writer.prompt_ids(&prompt)?;
            if printer.is_text() {
                printer.written(&prompt)?;
            }
            (ids, Sampling::default())
        }
    };
    let mut cache = writer.cache(ids.len(), arguments.cache.format)?;
    let mut sampler = arguments.sampling.sampler(sampling);
    let mut text = String::new();
    let written = writer.write(&mut cache, &ids, &mut sampler, &mut |piece| {
        text.push_str(piece);
        match printer.is_text() {
            true => printer.written(piece),
            false => Ok(()),
        }
    });
    if printer.is_text() {
        printer.written("\n")?;
    }
    let written = written?;
    writer.describe(&written, &printer);
    printer.data(&written.json(&prompt, &text))
}

/// The model's settings for generation. Without a chat only their stop ids count, and a damaged file is no reason to stop.
fn settings(folder: &Path, config: &ModelConfig, chat: bool, printer: &Printer) -> anyhow::Result<GenerationSettings> {
    match GenerationSettings::from_folder(folder, config) {
        Err(error) if !chat => {
            printer.warn(format!("{error}; only the stop ids of config.json are used"));
            Ok(GenerationSettings::of_config(config))
        }
        other => Ok(other?),
    }
}
