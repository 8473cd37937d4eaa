//! What the original and the converted model write, from the same beginnings.

use std::path::Path;

use transmla_calib::TextTokenizer;
use transmla_convert::Finished;
use transmla_core::generate::{GenerationSettings, Sampler};
use transmla_core::model::model_tensors;
use transmla_core::{CacheFormat, Decoder, LayeredModel, ModelConfig, Residency, TensorSpec};
use transmla_report::Sample;

use crate::writer::Writer;

/// Models of more parameters write no sample text: that would read all weights again.
const LARGEST_SAMPLED: usize = 300_000_000;

/// What models continue as a sample; the first is shown on the terminal too.
const PROMPTS: [&str; 2] = ["Once upon a time", "The most important thing"];

/// Most tokens of a sample.
const SAMPLE_TOKENS: usize = 60;

/// A few sentences by an original and its finished model; none if it is large or has no tokenizer.
///
/// # Errors
/// The tokenizer or a model fails.
pub fn samples(finished: &Finished<'_>) -> anyhow::Result<Vec<Sample>> {
    let Finished { source, folder, .. } = finished;
    if parameters(source.config()) >= LARGEST_SAMPLED || !folder.join("tokenizer.json").is_file() {
        return Ok(Vec::new());
    }
    let tokenizer = TextTokenizer::from_folder(folder)?;
    // One after the other: two models in memory would be the peak of the conversion.
    let originals = match source.residency() {
        Residency::Loaded => written(source, folder, &tokenizer)?,
        // Every token would read all weights again.
        Residency::Streamed => {
            let folder = source.checkpoint().folder();
            written(
                &Decoder::open(folder, source.device(), Residency::Loaded)?,
                folder,
                &tokenizer,
            )?
        }
    };
    let converted = Decoder::open(folder, source.device(), Residency::Loaded)?;
    let texts = originals.into_iter().zip(written(&converted, folder, &tokenizer)?);
    let sample = |(prompt, (original, converted)): (&&str, (String, String))| Sample {
        prompt: (*prompt).to_owned(),
        original: Some(original),
        converted,
    };
    Ok(PROMPTS.iter().zip(texts).map(sample).collect())
}

/// What a model goes on with, greedily, from each prompt.
fn written(model: &Decoder, folder: &Path, tokenizer: &TextTokenizer) -> anyhow::Result<Vec<String>> {
    let settings = GenerationSettings::from_folder(folder, model.config())
        .unwrap_or_else(|_| GenerationSettings::of_config(model.config()));
    let writer = Writer {
        model,
        tokenizer,
        stop_ids: &settings.stop_ids,
        max_new_tokens: SAMPLE_TOKENS,
    };
    let by = |prompt: &&str| -> anyhow::Result<String> {
        let ids = writer.prompt_ids(prompt)?;
        let mut cache = writer.cache(ids.len(), CacheFormat::default())?;
        let mut text = String::new();
        writer.write(&mut cache, &ids, &mut Sampler::greedy(), &mut |piece| {
            text.push_str(piece);
            Ok(())
        })?;
        Ok(text)
    };
    PROMPTS.iter().map(by).collect()
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
