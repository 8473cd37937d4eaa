//! `transmla generate`: text from a model, token by token.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use transmla_calib::TextTokenizer;
use transmla_core::checkpoint::read_regular;
use transmla_core::generate::{Generation, Sampler, next_logits};
use transmla_core::{Decoder, KvCache, LayeredModel, ModelConfig, Residency, StorageDtype};

use crate::options::device::DeviceArguments;
use crate::options::model::ModelArguments;
use crate::options::values;
use crate::printer::Printer;
use crate::table;

/// Let a model continue a text.
///
/// The text goes to stdout as it comes, speed and cache size to stderr. Weights are kept in memory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GenerateArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Text to continue
    #[arg(long, value_name = "TEXT")]
    prompt: String,

    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value = "128", value_parser = values::positive)]
    max_new_tokens: usize,

    /// 0 takes the most likely token; higher values take more chances
    #[arg(long, value_name = "T", default_value = "0", value_parser = values::temperature)]
    temperature: f64,

    /// Draw among the most likely tokens that have this probability together
    #[arg(long, value_name = "P", default_value = "1", value_parser = values::probability)]
    top_p: f64,

    /// Seed of the draw
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    seed: u64,

    /// Number format of the KV cache: fp32, bf16 or fp16
    #[arg(long, value_name = "DTYPE", default_value = "fp32")]
    cache_dtype: StorageDtype,

    #[command(flatten)]
    device: DeviceArguments,

    /// Print nothing but the text and errors
    #[arg(long, short)]
    quiet: bool,
}

/// Most bytes of generation_config.json.
const LARGEST_SETTINGS: u64 = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  transmla generate --model-path outputs --prompt 'Once upon a time'
  transmla generate --model-path embedded --prompt 'Lily' --temperature 0.8 --top-p 0.95 --seed 7";

/// What a generation took.
#[derive(Debug, Clone, Copy)]
pub struct Generated {
    prompt_tokens: usize,
    prompt_time: Duration,
    new_tokens: usize,
    time: Duration,
    cache_bytes: usize,
    cache_dtype: StorageDtype,
}

/// A model and what it needs to write.
pub struct Writer<'a> {
    /// The model.
    pub model: &'a Decoder,
    /// Its tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// Ids that end a text.
    pub end_ids: &'a [u32],
}

pub fn run(arguments: &GenerateArguments) -> anyhow::Result<()> {
    let printer = Printer::text(arguments.quiet);
    let folder = arguments.model.locate(&printer)?;
    let config = ModelConfig::read(folder.path())?;
    let tokenizer = TextTokenizer::from_folder(folder.path())?;
    let end_ids = end_ids(folder.path(), &config);
    let model = folder.open_on(&arguments.device, config, Residency::Loaded)?;
    let writer = Writer {
        model: &model,
        tokenizer: &tokenizer,
        end_ids: &end_ids,
    };
    let sampler = Sampler::new(arguments.temperature, arguments.top_p, arguments.seed);
    printer.written(&arguments.prompt)?;
    let generated = writer.write_from(
        arguments.cache_dtype,
        &arguments.prompt,
        arguments.max_new_tokens,
        sampler,
        &mut |text| printer.written(text),
    );
    printer.written("\n")?;
    describe(&generated?, model.config(), &printer);
    Ok(())
}

impl Writer<'_> {
    /// Continues a prompt, handing out the new text piece by piece.
    pub fn write(
        &self,
        prompt: &str,
        max_new_tokens: usize,
        sampler: Sampler,
        emit: &mut dyn FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Generated> {
        self.write_from(StorageDtype::F32, prompt, max_new_tokens, sampler, emit)
    }

    /// The same from a cache in any format.
    fn write_from(
        &self,
        cache_dtype: StorageDtype,
        prompt: &str,
        max_new_tokens: usize,
        mut sampler: Sampler,
        emit: &mut dyn FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Generated> {
        let config = self.model.config();
        let mut ids = self.tokenizer.encode(prompt, true)?;
        if ids.is_empty() {
            ids.extend(config.bos_token_id);
        }
        if ids.is_empty() {
            bail!("the prompt is empty and the model has no token that starts a text; give a longer --prompt");
        }
        let room = ids.len().saturating_add(max_new_tokens);
        let room = room.min(config.max_position_embeddings);
        let mut cache = KvCache::with_dtype(config, room, cache_dtype);
        let mut stream = self.tokenizer.stream(true);
        stream.prime(&ids);
        let prompt_tokens = ids.len();
        let started = Instant::now();
        let logits = next_logits(self.model, &mut cache, &ids)?;
        let prompt_time = started.elapsed();
        let started = Instant::now();
        let generation = Generation {
            max_new_tokens,
            stop_ids: self.end_ids,
        };
        let new_tokens = generation.go_on(self.model, &mut cache, logits, &mut sampler, &mut |id| match stream
            .push(id)?
        {
            Some(text) => emit(&text),
            None => Ok(()),
        })?;
        if let Some(rest) = stream.finish()? {
            emit(&rest)?;
        }
        Ok(Generated {
            prompt_tokens,
            prompt_time,
            new_tokens,
            time: started.elapsed(),
            cache_bytes: cache.bytes(),
            cache_dtype: cache.dtype(),
        })
    }
}

/// Ids that end a text: those of config.json and of generation_config.json, where chat models name more of them.
pub fn end_ids(folder: &Path, config: &ModelConfig) -> Vec<u32> {
    let mut ids = config.eos_token_ids.clone();
    let text = read_regular(&folder.join("generation_config.json"), LARGEST_SETTINGS).unwrap_or_default();
    let generation: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    match &generation["eos_token_id"] {
        serde_json::Value::Array(list) => ids.extend(list.iter().filter_map(as_id)),
        one => ids.extend(as_id(one)),
    }
    ids
}

fn as_id(value: &serde_json::Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn describe(generated: &Generated, config: &ModelConfig, printer: &Printer) {
    let per_second = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    let numbers = config.attention.cache_numbers();
    printer.note(format!(
        "{} in {} ({:.1} tokens/s), prompt of {} in {} ({:.1} tokens/s)",
        table::plural(generated.new_tokens, "new token"),
        table::seconds(generated.time.as_secs_f64()),
        per_second(generated.new_tokens, generated.time),
        generated.prompt_tokens,
        table::seconds(generated.prompt_time.as_secs_f64()),
        per_second(generated.prompt_tokens, generated.prompt_time),
    ));
    printer.note(format!(
        "KV cache: {} in {} ({numbers} numbers per token and layer)",
        table::bytes(generated.cache_bytes as u64),
        generated.cache_dtype
    ));
    let total = generated.prompt_tokens + generated.new_tokens;
    if total > config.max_position_embeddings {
        let context = config.max_position_embeddings;
        printer.warn(format!("{total} tokens are more than the model's context of {context}"));
    }
}
