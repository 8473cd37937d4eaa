//! `transmla bench`: how fast a model decodes, beside another.

use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use clap::Args;
use serde::Serialize;
use transmla_core::{
    CacheFormat, Decoder, KvCache, LayeredModel, ModelConfig, Residency, StorageDtype, TokenBatch, host_values,
};

use crate::model::ModelFolder;
use crate::options::cache::CacheArguments;
use crate::options::device::DeviceArguments;
use crate::options::model::ModelArguments;
use crate::options::model_name::model_name;
use crate::options::output::OutputArguments;
use crate::options::values;
use crate::printer::Printer;
use crate::room;
use crate::table;

/// Measure how fast a model decodes, and what its KV cache takes.
///
/// The cache is filled with random numbers, as if a text of the given length had been read; then tokens are decoded one by
/// one, and the median time of a step is reported. Weights are kept in memory.
///
/// A model without latents has no cache in int8, fp8-e4m3 or int4: one that is compared with has a cache in bf16 then.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Also measure another model, usually the original
    #[arg(long, value_name = "PATH|ID", value_parser = model_name)]
    against: Option<String>,

    /// Tokens in the cache
    #[arg(long, value_name = "N,…", default_value = "512,2048,8192", value_delimiter = ',', value_parser = values::positive)]
    context: Vec<usize>,

    /// Sequences that are decoded together
    #[arg(long, value_name = "N,…", default_value = "1,8", value_delimiter = ',', value_parser = values::positive)]
    batch: Vec<usize>,

    /// Tokens to decode for each measurement
    #[arg(long, value_name = "N", default_value = "16", value_parser = values::positive)]
    new_tokens: usize,

    #[command(flatten)]
    cache: CacheArguments,

    #[command(flatten)]
    device: DeviceArguments,

    #[command(flatten)]
    output: OutputArguments,
}

const EXAMPLES: &str = "\
Examples:
  transmla bench --model-path outputs --against org/model
  transmla bench --model-path outputs --context 8192 --batch 1 --cache-dtype int8 --json";

impl BenchArguments {
    /// Tokens of the longest sequence at the end of its measurement.
    fn longest(&self) -> usize {
        let context = self.context.iter().copied().max().unwrap_or(0);
        // One more before the measurement begins.
        context.saturating_add(self.new_tokens).saturating_add(1)
    }
}

#[derive(Debug, Serialize)]
struct BenchResult {
    device: String,
    cache_dtype: String,
    new_tokens: usize,
    models: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Measured {
    model_path: String,
    numbers_per_token_and_layer: usize,
    bytes_per_token_and_layer: usize,
    #[serde(serialize_with = "as_text")]
    cache_dtype: CacheFormat,
    steps: Vec<Step>,
}

/// Decoding at one length of the cache.
#[derive(Debug, Serialize)]
struct Step {
    context: usize,
    batch: usize,
    /// Median of a step, which gives one token to each sequence.
    seconds_per_token: f64,
    tokens_per_second: f64,
    cache_bytes: usize,
}

fn as_text<S: serde::Serializer>(format: &CacheFormat, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(format)
}

pub fn run(arguments: &BenchArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.output);
    let mut models = Vec::new();
    for path in std::iter::once(&arguments.model.model_path).chain(&arguments.against) {
        let revision = match models.is_empty() {
            true => &arguments.model.revision,
            false => "main",
        };
        let folder = ModelFolder::locate(path, revision, &printer)?;
        let config = ModelConfig::read(folder.path())?;
        let format = match arguments.cache.format.check(&config) {
            Ok(()) => arguments.cache.format,
            Err(error) if models.is_empty() => return Err(error.into()),
            Err(_) => CacheFormat::Plain(StorageDtype::Bf16),
        };
        models.push(measure(&folder, path, config, format, arguments, &printer)?);
    }
    let cache_dtype = models.first().map_or(arguments.cache.format, |model| model.cache_dtype);
    let result = BenchResult {
        device: arguments.device.to_string(),
        cache_dtype: cache_dtype.to_string(),
        new_tokens: arguments.new_tokens,
        models,
    };
    printer.result(&render(&result), &result)
}

/// One model, which is dropped before the next is read.
fn measure(
    folder: &ModelFolder,
    path: &str,
    config: ModelConfig,
    format: CacheFormat,
    arguments: &BenchArguments,
    printer: &Printer,
) -> anyhow::Result<Measured> {
    check_room(&config, format, arguments)?;
    let longest = arguments.longest();
    if longest > config.max_position_embeddings {
        printer.warn(format!(
            "{path}: {longest} tokens are more than the model's context of {}; the time is the same",
            config.max_position_embeddings
        ));
    }
    let model = folder.open_on(&arguments.device, config, Residency::Loaded)?;
    let model = model.for_cache(format)?;
    let mut bar = printer.bar(&format!("Decode: {path}"));
    let total = (arguments.context.len() * arguments.batch.len()) as u64;
    let mut steps = Vec::new();
    // As it was kept: a device may not know the format that was asked for.
    let mut kept = format;
    for &context in &arguments.context {
        for &batch in &arguments.batch {
            let (step, found) = decode(&model, context, batch, format, arguments)?;
            steps.push(step);
            kept = found;
            bar.step(total);
        }
    }
    drop(bar);
    Ok(Measured {
        model_path: path.to_owned(),
        numbers_per_token_and_layer: model.config().attention.cache_numbers(),
        bytes_per_token_and_layer: kept.bytes_per_token(model.config())?,
        cache_dtype: kept,
        steps,
    })
}

/// Checks that there is memory for the largest cache, and for the random numbers of a layer that it is filled with.
fn check_room(config: &ModelConfig, format: CacheFormat, arguments: &BenchArguments) -> anyhow::Result<()> {
    if arguments.device.open()? != Device::flex() {
        return Ok(());
    }
    let batch = arguments.batch.iter().copied().max().unwrap_or(0);
    let tokens = arguments.longest().saturating_mul(batch);
    let numbers = config.attention.cache_numbers().saturating_mul(tokens);
    let cache = format
        .bytes_per_token(config)?
        .saturating_mul(tokens)
        .saturating_mul(config.num_hidden_layers);
    let bytes = cache.saturating_add(numbers.saturating_mul(size_of::<f32>()));
    room::check(bytes as u64).with_context(|| {
        format!(
            "the KV cache of {batch} x {} tokens would be {}; give a smaller --context or --batch",
            arguments.longest(),
            table::bytes(cache as u64)
        )
    })
}

/// What was measured, and the format that the cache was kept in.
fn decode(
    model: &Decoder,
    context: usize,
    batch: usize,
    format: CacheFormat,
    arguments: &BenchArguments,
) -> anyhow::Result<(Step, CacheFormat)> {
    let room = context + arguments.new_tokens + 1;
    let mut cache = KvCache::in_format(model.config(), room, format)?;
    cache.fill_at_random(batch, context, model.device())?;
    let cache_bytes = cache.bytes();
    let tokens = TokenBatch::from_ids(vec![0; batch], batch, 1).map_err(anyhow::Error::msg)?;
    // The logits come to the host, as they must before a next token can be chosen: no device is still at work then.
    let mut step = || -> anyhow::Result<f64> {
        let started = Instant::now();
        host_values(model.next_logits(&tokens, Some(&mut cache))?)?;
        Ok(started.elapsed().as_secs_f64())
    };
    // The first has memory to take and kernels to compile.
    step()?;
    let mut times = (0..arguments.new_tokens)
        .map(|_| step())
        .collect::<anyhow::Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    let seconds_per_token = times[times.len() / 2];
    let step = Step {
        context,
        batch,
        seconds_per_token,
        tokens_per_second: batch as f64 / seconds_per_token,
        cache_bytes,
    };
    Ok((step, cache.format()))
}

/// A line for each length and batch, the models side by side with milliseconds and tokens per second, and how many times
/// faster the first one is. Two models fit beside each other on a terminal of 80 columns.
fn render(result: &BenchResult) -> String {
    let mut header = vec!["context".to_owned(), "batch".to_owned()];
    for _ in &result.models {
        header.extend(["ms", "tok/s", "KV cache"].map(str::to_owned));
    }
    let compared = result.models.len() > 1;
    if compared {
        header.push("speed-up".to_owned());
    }
    let mut lines = vec![header];
    let Some(first) = result.models.first() else {
        return String::new();
    };
    for (index, step) in first.steps.iter().enumerate() {
        let mut line = vec![step.context.to_string(), step.batch.to_string()];
        for model in &result.models {
            let step = &model.steps[index];
            line.push(format!("{:.2}", 1e3 * step.seconds_per_token));
            line.push(match step.tokens_per_second {
                slow if slow < 99.95 => format!("{slow:.1}"),
                fast => format!("{fast:.0}"),
            });
            line.push(table::bytes(step.cache_bytes as u64));
        }
        if compared {
            let other = result.models[1].steps[index].seconds_per_token;
            line.push(format!("{:.2}x", other / step.seconds_per_token));
        }
        lines.push(line);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = format!("Decoding on {}\n", result.device);
    for (index, model) in result.models.iter().enumerate() {
        let place = if index == 0 { "left" } else { "right" };
        let place = if compared { format!(" ({place})") } else { String::new() };
        text.push_str(&format!(
            "  {}{place}: {} numbers per token and layer, {} bytes in {}\n",
            model.model_path, model.numbers_per_token_and_layer, model.bytes_per_token_and_layer, model.cache_dtype
        ));
    }
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        text.push_str(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use transmla_core::Quantisation;

    use super::*;

    #[test]
    fn models_side_by_side() {
        let model = |path: &str, numbers, cache_dtype, milliseconds: f64| Measured {
            model_path: path.into(),
            numbers_per_token_and_layer: numbers,
            bytes_per_token_and_layer: numbers + 2,
            cache_dtype,
            steps: vec![Step {
                context: 8192,
                batch: 8,
                seconds_per_token: milliseconds / 1e3,
                tokens_per_second: 8e3 / milliseconds,
                cache_bytes: numbers << 20,
            }],
        };
        let result = BenchResult {
            device: "cpu".into(),
            cache_dtype: "int8".into(),
            new_tokens: 16,
            models: vec![
                model("small", 160, CacheFormat::Quantised(Quantisation::Int8), 20.0),
                model("large", 384, CacheFormat::Plain(StorageDtype::Bf16), 50.0),
            ],
        };
        let expected = "\
Decoding on cpu
  small (left): 160 numbers per token and layer, 162 bytes in int8
  large (right): 384 numbers per token and layer, 386 bytes in bf16
  context  batch     ms  tok/s   KV cache     ms  tok/s   KV cache  speed-up
     8192      8  20.00    400  160.0 MiB  50.00    160  384.0 MiB     2.50x
";
        assert_eq!(render(&result), expected);
    }
}
