//! Calibration text that the original model writes itself.

use std::path::Path;

use transmla_calib::{ChatMessage, ChatTemplate, Openings, SampleSpec, TextTokenizer};
use transmla_core::generate::{BatchGeneration, GenerationSettings, Prompt, Sampler, Sampling};
use transmla_core::{Decoder, LayeredModel, ModelConfig, StorageDtype, TokenBatch};

use crate::spec::error::{ConvertError, TextNameError};
use crate::spec::report::{Observer, Stage};

/// Tokens are drawn as the model has them: by its probabilities, none left out.
pub(crate) const SAMPLING: Sampling = Sampling {
    temperature: 1.0,
    top_k: None,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
};

/// Format of the cache while a text is written.
const CACHE: StorageDtype = StorageDtype::Bf16;

/// Stands where an answer will be, to find what a template puts around it.
const ANSWER: &str = "transmla:answer";

/// Has the original write samples.
pub(crate) trait Author {
    /// So many samples of so many tokens, from a seed.
    ///
    /// # Errors
    /// The model or its chat template cannot be used.
    fn write(
        &mut self,
        spec: &SampleSpec,
        tokenizer: &TextTokenizer,
        observer: &mut dyn Observer,
    ) -> Result<TokenBatch, ConvertError>;
}

/// What every text of a model begins with and ends at.
struct Writing<'a> {
    tokenizer: &'a TextTokenizer,
    template: Option<ChatTemplate>,
    stop_ids: Vec<u32>,
    /// Of a text that is no chat.
    start: Vec<u32>,
}

/// Bytes that a text takes while it is written: its cache, and some rows of logits.
fn bytes_of_each(config: &ModelConfig, sequence: usize) -> u64 {
    let cache = sequence * config.num_hidden_layers * config.attention.cache_numbers() * CACHE.bytes();
    (cache + 4 * config.vocab_size * size_of::<f32>()) as u64
}

/// How many texts are written side by side where so many bytes may be used, at least one.
pub(crate) fn side_by_side(config: &ModelConfig, spec: &SampleSpec, max_bytes: u64) -> usize {
    let most = (max_bytes / bytes_of_each(config, spec.sequence)).clamp(1, spec.samples.max(1) as u64) as usize;
    // Batches of one size.
    spec.samples.div_ceil(spec.samples.div_ceil(most).max(1)).max(1)
}

/// Bytes that are used for writing where so many may be.
pub(crate) fn writing_bytes(config: &ModelConfig, spec: &SampleSpec, max_bytes: u64) -> u64 {
    side_by_side(config, spec, max_bytes) as u64 * bytes_of_each(config, spec.sequence)
}

/// Has a model write samples: chats from openings of many kinds where its folder has a chat template, else free text.
///
/// A sample is filled chat by chat and ends in the midst of one; each chat is written without sight of those before it. A
/// sample follows from its index and the seed, not from how many there are.
///
/// # Errors
/// A chat template that cannot be used or refuses plain chats; no token that a text begins with; a model that fails.
pub(crate) fn write_samples(
    model: &Decoder,
    folder: &Path,
    tokenizer: &TextTokenizer,
    spec: &SampleSpec,
    max_bytes: u64,
    observer: &mut dyn Observer,
) -> Result<TokenBatch, ConvertError> {
    let writing = Writing::of(model.config(), folder, tokenizer)?;
    let generation = BatchGeneration {
        tokens: spec.sequence,
        stop_ids: &writing.stop_ids,
        cache_dtype: CACHE,
    };
    observer.begin(Stage::WriteText);
    let (width, total) = (
        side_by_side(model.config(), spec, max_bytes),
        spec.samples * spec.sequence,
    );
    let mut ids: Vec<i64> = Vec::with_capacity(total);
    for first in (0..spec.samples).step_by(width) {
        let samples = first..(first + width).min(spec.samples);
        let (done, count) = (ids.len(), samples.len());
        let mut samplers: Vec<Sampler> = samples.clone().map(|sample| sampler(spec.seed, sample)).collect();
        let mut scripts: Vec<Script> = samples.map(|sample| Script::new(spec.seed, sample)).collect();
        let mut prompt = |index: usize| scripts[index].next(&writing);
        let texts = generation.run(model, &mut samplers, &mut prompt, &mut |written| {
            observer.advance((done + written * count) as u64, total as u64);
        })?;
        ids.extend(texts.iter().flatten().map(|id| i64::from(*id)));
    }
    observer.end(Stage::WriteText, None);
    Ok(TokenBatch::from_ids(ids, spec.samples, spec.sequence)?)
}

/// A number for each sample of each seed, apart from those that draw other texts.
fn seed_of(seed: u64, sample: usize) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(sample as u64)
}

fn sampler(seed: u64, sample: usize) -> Sampler {
    Sampler::new(SAMPLING, seed_of(seed, sample))
}

impl<'a> Writing<'a> {
    fn of(config: &ModelConfig, folder: &Path, tokenizer: &'a TextTokenizer) -> Result<Self, ConvertError> {
        let mut stop_ids = GenerationSettings::from_folder(folder, config)?.stop_ids;
        let template = ChatTemplate::from_folder(folder)?;
        let named = template
            .as_ref()
            .and_then(|template| template.special_token("eos_token"));
        stop_ids.extend(named.and_then(|token| tokenizer.id_of(token)));
        let mut writing = Self {
            tokenizer,
            template,
            start: Vec::new(),
            stop_ids,
        };
        match writing.template {
            Some(_) => {
                // The template knows best what an answer ends with, if that is a token of its own.
                let end = writing.after_answer(&[ChatMessage::user("Hello")], None)?;
                if let Some(first) = end.first()
                    && tokenizer.decode(&[*first], true)?.is_empty()
                {
                    writing.stop_ids.push(*first);
                }
            }
            None => writing.start = start(config, tokenizer)?,
        }
        Ok(writing)
    }

    fn render(&self, messages: &[ChatMessage], answered: bool) -> Result<String, ConvertError> {
        let Some(template) = &self.template else {
            return Ok(String::new());
        };
        Ok(template.render(messages, answered)?)
    }

    /// The ids up to where the answer to the last of some messages begins.
    fn before_answer(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, ConvertError> {
        Ok(self.tokenizer.encode(&self.render(messages, true)?, false)?)
    }

    /// The ids that follow the answer to the last of some messages: what ends it, and where there is a next message what
    /// leads to the next answer. None where the template does not have answers as they are.
    fn after_answer(&self, messages: &[ChatMessage], next: Option<&str>) -> Result<Vec<u32>, ConvertError> {
        let mut messages = messages.to_vec();
        messages.push(ChatMessage::assistant(ANSWER));
        messages.extend(next.map(ChatMessage::user));
        let text = self.render(&messages, next.is_some())?;
        match text.rsplit_once(ANSWER) {
            Some((_, behind)) => Ok(self.tokenizer.encode(behind, false)?),
            None => Ok(Vec::new()),
        }
    }
}

/// The ids that a text begins with where nothing is said before it.
fn start(config: &ModelConfig, tokenizer: &TextTokenizer) -> Result<Vec<u32>, ConvertError> {
    let around = tokenizer.encode("", true)?;
    if !around.is_empty() {
        return Ok(around);
    }
    let named = config.raw.integer("/bos_token_id");
    let named = named.and_then(|id| u32::try_from(id).ok());
    // Models without a BOS token are trained on texts that follow the end of others.
    match named.or_else(|| config.eos_token_ids.first().copied()) {
        Some(id) => Ok(vec![id]),
        None => Err(TextNameError::new(
            "the model has no chat template, and neither its tokenizer nor bos_token_id or eos_token_id of config.json says what \
             a text begins with",
        )
        .into()),
    }
}

/// What one sample is to be about.
struct Script {
    openings: Openings,
    /// The chat at hand, without the answer that is being written.
    messages: Vec<ChatMessage>,
}

impl Script {
    fn new(seed: u64, sample: usize) -> Self {
        Self {
            // Another stream than the sampler's: what is asked says nothing about what is drawn.
            openings: Openings::new(!seed_of(seed, sample)),
            messages: Vec::new(),
        }
    }

    /// What the sample goes on with when something in it has come to its end.
    fn next(&mut self, writing: &Writing<'_>) -> Result<Prompt, ConvertError> {
        if writing.template.is_none() {
            return Ok(Prompt::Anew {
                end: Vec::new(),
                start: writing.start.clone(),
            });
        }
        if self.messages.len() == 1
            && let Some(further) = self.openings.second()
        {
            let ids = writing.after_answer(&self.messages, Some(&further))?;
            if !ids.is_empty() {
                self.messages.push(ChatMessage::assistant(ANSWER));
                self.messages.push(ChatMessage::user(further));
                return Ok(Prompt::Further(ids));
            }
        }
        let end = match self.messages.is_empty() {
            true => Vec::new(),
            false => writing.after_answer(&self.messages, None)?,
        };
        self.messages = vec![ChatMessage::user(self.openings.first())];
        Ok(Prompt::Anew {
            end,
            start: writing.before_answer(&self.messages)?,
        })
    }
}

/// One line on what a model with this folder writes.
pub(crate) fn describe_written(folder: &Path) -> Result<&'static str, ConvertError> {
    Ok(match ChatTemplate::from_folder(folder)? {
        Some(_) => "chats that the original wrote",
        None => "text that the original wrote",
    })
}
