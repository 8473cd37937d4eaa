//! Texts as token ids.

use std::path::Path;

use transmla_calib::{
    CalibError, ReadOptions, SampleSpec, Split, TextTokenizer, evaluation_windows, evaluation_windows_from, interleave,
    sample_with_noise,
};
use transmla_core::checkpoint::read_input_ids;
use transmla_core::{CheckpointError, ModelConfig, TokenBatch};

use transmla_core::hub::HubOptions;

use crate::spec::error::ConvertError;
use crate::spec::report::Warning;
use crate::text::mix::TextMix;
use crate::text::source::{LocalText, TextSource};

/// Tokens of an evaluation window by the published protocol.
const PUBLISHED_WINDOW: usize = 2048;

/// Tokens of one text that stand together in a mix, for methods that join samples to sequences of so many.
pub(crate) const RUN: usize = 512;

/// Token ids and where they are from.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// `[rows, seq]`.
    pub tokens: TokenBatch,
    /// For people.
    pub origin: String,
}

/// How text is read for a model.
#[derive(Debug, Clone, Copy)]
pub struct TextReader<'a> {
    /// The model's configuration.
    pub config: &'a ModelConfig,
    /// Access to datasets on the hub.
    pub hub: &'a HubOptions,
    /// Texts of the program's own.
    pub locals: &'a [LocalText],
    /// The column that is the text, in files that have columns, if one was named; the folder of the model, whose chat template
    /// chats are written in.
    pub options: ReadOptions<'a>,
}

impl Corpus {
    fn checked(tokens: TokenBatch, origin: String, config: &ModelConfig) -> Result<Self, ConvertError> {
        let checked = tokens.check_vocabulary(config.vocab_size);
        checked.map_err(ConvertError::doing(format!("cannot use {origin}")))?;
        Ok(Self { tokens, origin })
    }

    /// Ids as they are in a file, or fewer of them: the first rows, the first tokens of each row.
    ///
    /// # Errors
    /// The file cannot be read, or does not fit the model.
    pub fn from_file(
        file: &Path,
        rows: Option<usize>,
        sequence: Option<usize>,
        config: &ModelConfig,
        warn: &mut dyn FnMut(Warning),
    ) -> Result<Self, ConvertError> {
        let all = read_input_ids(file)?;
        let (batch, length) = (all.batch(), all.sequence());
        for (wanted, found, what) in [(rows, batch, "rows"), (sequence, length, "tokens per row")] {
            if let Some(wanted) = wanted.filter(|wanted| *wanted > found) {
                warn(Warning::FewerTokens {
                    file: file.to_path_buf(),
                    found,
                    wanted,
                    what,
                });
            }
        }
        let (batch, length) = (rows.unwrap_or(batch).min(batch), sequence.unwrap_or(length).min(length));
        check_length(length, config).map_err(ConvertError::doing(format!("cannot use {}", file.display())))?;
        let ids = (0..batch)
            .flat_map(|row| all.row(row)[..length].iter().copied())
            .collect();
        let tokens = TokenBatch::from_ids(ids, batch, length)?;
        Self::checked(tokens, file.display().to_string(), config)
    }

    /// Calibration samples of the train split, from each text of a mix in proportion to its weight, a share of them with
    /// random words.
    ///
    /// `own` has what the original wrote, as many samples as [`TextMix::own_samples`] says, and where that is from.
    ///
    /// # Errors
    /// A text that cannot be had or is too short, ids that the model does not have.
    pub fn samples(
        mix: &TextMix,
        spec: &SampleSpec,
        noise: f64,
        own: Option<&Self>,
        tokenizer: &TextTokenizer,
        reader: &TextReader<'_>,
        warn: &mut dyn FnMut(Warning),
    ) -> Result<Self, ConvertError> {
        check_length(spec.sequence, reader.config)?;
        let (mut batches, mut origins) = (Vec::new(), Vec::new());
        let (mut written, mut read) = (0, false);
        for ((source, _), samples) in mix.parts().iter().zip(mix.divide(spec.samples)?) {
            let several = |found: usize, origin: String| match mix.parts().len() {
                1 => origin,
                _ => format!("{found} x {origin}"),
            };
            if *source == TextSource::Own
                && let Some(own) = own
                && let Some(tokens) = own.tokens.rows(written..written + samples)
            {
                written += samples;
                origins.push(several(samples, own.origin.clone()));
                batches.push(tokens);
                continue;
            }
            read = true;
            let text = source.load(Split::Train, &reader.options, reader.hub, reader.locals)?;
            let sampled = sample_with_noise(&text, tokenizer, &SampleSpec { samples, ..*spec }, noise).map_err(
                ConvertError::doing(format!("cannot draw calibration samples from {}", text.origin)),
            )?;
            let (found, origin) = (sampled.tokens.batch(), text.origin);
            if found < samples {
                warn(Warning::FewerSamples {
                    origin: origin.clone(),
                    found,
                    wanted: samples,
                });
            }
            batches.push(match start(reader.config) {
                Some(bos) => beginning_with(bos, &sampled.tokens)?,
                None => sampled.tokens,
            });
            origins.push(several(found, origin));
        }
        let mut origin = origins.join("; ");
        if noise > 0.0 && read {
            let share = (1000.0 * noise).round() / 10.0;
            let them = if written > 0 { "those that were read" } else { "them" };
            origin = format!("{origin}; random words in {share} % of {them}");
        }
        let run = RUN / spec.sequence.max(1);
        Self::checked(interleave(&batches, run)?, origin, reader.config)
    }

    /// Windows of the test split.
    ///
    /// # Errors
    /// As for [`Self::samples`].
    pub fn windows(
        source: &TextSource,
        sequence: usize,
        most: Option<usize>,
        tokenizer: &TextTokenizer,
        reader: &TextReader<'_>,
    ) -> Result<Self, ConvertError> {
        check_length(sequence, reader.config)?;
        let text = source.load(Split::Test, &reader.options, reader.hub, reader.locals)?;
        let (windows, origin) = match start(reader.config) {
            Some(bos) => (
                evaluation_windows_from(bos, &text, tokenizer, sequence, most),
                format!("{}, each window after a BOS token", text.origin),
            ),
            None => (
                evaluation_windows(&text, tokenizer, sequence, most),
                text.origin.clone(),
            ),
        };
        let windows = windows.map_err(ConvertError::doing(format!(
            "cannot cut evaluation windows from {}",
            text.origin
        )))?;
        Self::checked(windows, origin, reader.config)
    }
}

/// The BOS token that every text of a model begins with, where it needs one.
fn start(config: &ModelConfig) -> Option<u32> {
    config.bos_token_id.filter(|_| config.family.needs_bos)
}

/// Samples that all begin with a token: those that do not yet get it in front, and lose their last.
fn beginning_with(bos: u32, samples: &TokenBatch) -> Result<TokenBatch, CheckpointError> {
    let bos = i64::from(bos);
    let rows = (0..samples.batch()).map(|row| samples.row(row));
    let ids = rows.flat_map(|row| {
        let missing = row.first() != Some(&bos);
        let kept = row.len() - usize::from(missing);
        missing.then_some(bos).into_iter().chain(row[..kept].iter().copied())
    });
    TokenBatch::from_ids(ids.collect(), samples.batch(), samples.sequence())
}

/// Reads the tokenizer of a model folder, and says what is to be said of it.
///
/// # Errors
/// There is none, or one that cannot be read.
pub fn read_tokenizer(folder: &Path, warn: &mut dyn FnMut(Warning)) -> Result<TextTokenizer, CalibError> {
    let tokenizer = TextTokenizer::from_folder(folder)?;
    if let Some(remark) = tokenizer.remark() {
        warn(Warning::Tokenizer(remark.to_string()));
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
pub fn check_length(sequence: usize, config: &ModelConfig) -> Result<(), ConvertError> {
    let context = config.max_position_embeddings;
    let longest = context.saturating_mul(CONTEXTS).max(ALWAYS_POSSIBLE);
    if sequence > longest {
        return Err(ConvertError::LongSequences {
            sequence,
            context,
            longest,
        });
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
pub fn warn_of_long_windows(sequence: usize, config: &ModelConfig, warn: &mut dyn FnMut(Warning)) {
    let context = config.max_position_embeddings;
    if sequence > context {
        warn(Warning::LongWindows { sequence, context });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_begin_with_bos_once() {
        let samples = TokenBatch::from_ids(vec![2, 5, 6, 7, 8, 9], 2, 3).unwrap();
        let begun = beginning_with(2, &samples).unwrap();
        assert_eq!(begun.ids(), [2, 5, 6, 2, 7, 8]);
    }
}
