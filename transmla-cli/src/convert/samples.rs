//! What the original and the converted model write, from the same beginnings.

use transmla_calib::TextTokenizer;
use transmla_convert::Finished;
use transmla_core::generate::{GenerationSettings, Sampler};
use transmla_core::model::model_tensors;
use transmla_core::{Decoder, LayeredModel, ModelConfig, Residency, StorageDtype, TensorSpec};
use transmla_report::Sample;

use crate::writer::Writer;

/// Models of more parameters write no sample text: that would read all weights again.
const LARGEST_SAMPLED: usize = 300_000_000;

/// What models continue as a sample; the first is shown on the terminal too.
const PROMPTS: [&str; 2] = ["Once upon a time", "The most important thing"];

/// Most tokens of a sample.
const SAMPLE_TOKENS: usize = 60;

/// A few sentences by a finished model, and by its original where that is in memory; none if it is large or has no tokenizer.
///
/// # Errors
/// The tokenizer or a model fails.
pub fn samples(finished: &Finished<'_>) -> anyhow::Result<Vec<Sample>> {
    let Finished { source, folder, .. } = finished;
    if parameters(source.config()) >= LARGEST_SAMPLED || !folder.join("tokenizer.json").is_file() {
        return Ok(Vec::new());
    }
    let tokenizer = TextTokenizer::from_folder(folder)?;
    let converted = Decoder::open(folder, source.device(), Residency::Loaded)?;
    let settings = GenerationSettings::from_folder(folder, converted.config())
        .unwrap_or_else(|_| GenerationSettings::of_config(converted.config()));
    let by = |model: &Decoder, prompt: &str| -> anyhow::Result<String> {
        let writer = Writer {
            model,
            tokenizer: &tokenizer,
            stop_ids: &settings.stop_ids,
            max_new_tokens: SAMPLE_TOKENS,
        };
        let ids = writer.prompt_ids(prompt)?;
        let mut cache = writer.cache(ids.len(), StorageDtype::F32);
        let mut text = String::new();
        writer.write(&mut cache, &ids, &mut Sampler::greedy(), &mut |piece| {
            text.push_str(piece);
            Ok(())
        })?;
        Ok(text)
    };
    let sample = |prompt: &&str| {
        let original = match source.residency() {
            Residency::Loaded => Some(by(source, prompt)?),
            // Every token would read all weights again.
            Residency::Streamed => None,
        };
        Ok(Sample {
            prompt: (*prompt).to_owned(),
            original,
            converted: by(&converted, prompt)?,
        })
    };
    PROMPTS.iter().map(sample).collect()
}

/// The converted model's first sample up to its last sentence that is whole, on one line and without what would steer a
/// terminal.
pub fn first_sentences(samples: &[Sample]) -> Option<String> {
    let Sample { prompt, converted, .. } = samples.first()?;
    let text = format!("{prompt}{converted}");
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let line = words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    Some(match line.rfind(['.', '!', '?']) {
        Some(end) => line[..=end].to_owned(),
        None => format!("{line} …"),
    })
}

fn parameters(config: &ModelConfig) -> usize {
    model_tensors(config).iter().map(TensorSpec::elements).sum()
}
