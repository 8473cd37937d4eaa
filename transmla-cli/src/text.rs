//! Texts by name, path or as token ids.

pub mod source;

use std::path::Path;

use anyhow::Context;
use transmla_calib::{
    SampleSpec, Split, TextTokenizer, divide_samples, evaluation_windows, interleave, sample_with_noise,
};
use transmla_core::checkpoint::read_input_ids;
use transmla_core::{ModelConfig, TokenBatch};

use self::source::TextSource;
use crate::mix::TextMix;
use crate::printer::Printer;

/// Tokens of an evaluation window by the published protocol.
const PUBLISHED_WINDOW: usize = 2048;

/// Token ids and where they are from.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// `[rows, seq]`.
    pub tokens: TokenBatch,
    /// For people.
    pub origin: String,
}

impl Corpus {
    fn checked(tokens: TokenBatch, origin: String, config: &ModelConfig) -> anyhow::Result<Self> {
        tokens
            .check_vocabulary(config.vocab_size)
            .with_context(|| format!("cannot use {origin}"))?;
        Ok(Self { tokens, origin })
    }

    /// Ids as they are in a file, or fewer of them: the first rows, the first tokens of each row.
    pub fn from_file(
        file: &Path,
        rows: Option<usize>,
        sequence: Option<usize>,
        config: &ModelConfig,
        printer: &Printer,
    ) -> anyhow::Result<Self> {
        let all = read_input_ids(file)?;
        let (batch, length) = (all.batch(), all.sequence());
        for (wanted, found, what) in [(rows, batch, "rows"), (sequence, length, "tokens per row")] {
            if let Some(wanted) = wanted.filter(|wanted| *wanted > found) {
                let name = file.display();
                printer.warn(format!(
                    "{name} has {found} {what} where {wanted} were asked for; all are used"
                ));
            }
        }
        let (batch, length) = (rows.unwrap_or(batch).min(batch), sequence.unwrap_or(length).min(length));
        check_length(length, config).with_context(|| format!("cannot use {}", file.display()))?;
        let ids = (0..batch)
            .flat_map(|row| all.row(row)[..length].iter().copied())
            .collect();
        let tokens = TokenBatch::from_ids(ids, batch, length).map_err(anyhow::Error::msg)?;
        Self::checked(tokens, file.display().to_string(), config)
    }

    /// Calibration samples of the train split, from each text of a mix in proportion to its weight, a share of them with
    /// random words.
    pub fn samples(
        mix: &TextMix,
        column: Option<&str>,
        spec: &SampleSpec,
        noise: f64,
        tokenizer: &TextTokenizer,
        config: &ModelConfig,
        printer: &Printer,
    ) -> anyhow::Result<Self> {
        check_length(spec.sequence, config)?;
        let weights: Vec<f64> = mix.parts().iter().map(|(_, weight)| *weight).collect();
        let (mut batches, mut origins) = (Vec::new(), Vec::new());
        for ((source, _), samples) in mix.parts().iter().zip(divide_samples(spec.samples, &weights)?) {
            let text = source.load(Split::Train, column, printer)?;
            let sampled = sample_with_noise(&text.rows, tokenizer, &SampleSpec { samples, ..*spec }, noise)
                .with_context(|| format!("cannot draw calibration samples from {}", text.origin))?;
            let (found, origin) = (sampled.tokens.batch(), text.origin);
            if found < samples {
                printer.warn(format!(
                    "{origin} yields {found} calibration samples where {samples} were asked for"
                ));
            }
            batches.push(sampled.tokens);
            origins.push(match weights.len() {
                1 => origin,
                _ => format!("{found} x {origin}"),
            });
        }
        let mut origin = origins.join("; ");
        if noise > 0.0 {
            origin = format!(
                "{origin}; random words in {} % of them",
                (1000.0 * noise).round() / 10.0
            );
        }
        Self::checked(interleave(&batches)?, origin, config)
    }

    /// Windows of the test split.
    pub fn windows(
        source: &TextSource,
        column: Option<&str>,
        sequence: usize,
        most: Option<usize>,
        tokenizer: &TextTokenizer,
        config: &ModelConfig,
        printer: &Printer,
    ) -> anyhow::Result<Self> {
        check_length(sequence, config)?;
        let text = source.load(Split::Test, column, printer)?;
        let windows = evaluation_windows(&text.rows, tokenizer, sequence, most)
            .with_context(|| format!("cannot cut evaluation windows from {}", text.origin))?;
        Self::checked(windows, text.origin, config)
    }
}

/// Reads the tokenizer of a model folder, and says what is to be said of it.
pub fn read_tokenizer(folder: &Path, printer: &Printer) -> anyhow::Result<TextTokenizer> {
    let tokenizer = TextTokenizer::from_folder(folder)?;
    if let Some(remark) = tokenizer.remark() {
        printer.warn(remark);
    }
    Ok(tokenizer)
}

/// Tokens of a sequence that are possible with any model.
const ALWAYS_POSSIBLE: usize = 32_768;

/// How many times a model's context a sequence may be.
const CONTEXTS: usize = 4;

/// Refuses sequences so long that neither memory nor time would do, and that no model was made for.
///
/// # Errors
/// With the longest that is possible.
pub fn check_length(sequence: usize, config: &ModelConfig) -> anyhow::Result<()> {
    let context = config.max_position_embeddings;
    let longest = context.saturating_mul(CONTEXTS).max(ALWAYS_POSSIBLE);
    if sequence > longest {
        anyhow::bail!(
            "sequences of {sequence} tokens are too long for a model with a context of {context}; use at most {longest} \
             tokens in a row"
        );
    }
    Ok(())
}

/// Tokens of an evaluation window where none are asked for, and what to say about it.
pub fn default_window(config: &ModelConfig) -> (usize, &'static str) {
    match config.max_position_embeddings {
        context if context < PUBLISHED_WINDOW => (context, " (the model's whole context)"),
        _ => (PUBLISHED_WINDOW, ""),
    }
}

/// Says so if windows are longer than the model was trained for.
pub fn warn_of_long_windows(sequence: usize, config: &ModelConfig, printer: &Printer) {
    let context = config.max_position_embeddings;
    if sequence > context {
        printer.warn(format!(
            "windows of {sequence} tokens are longer than the model's context of {context}: perplexity will suffer"
        ));
    }
}
