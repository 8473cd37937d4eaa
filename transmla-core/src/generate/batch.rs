//! Many texts written side by side.

use std::collections::VecDeque;

use rayon::prelude::*;
use transmla_checkpoint::{StorageDtype, TokenBatch};

use super::sampler::Sampler;
use crate::error::CoreError;
use crate::host::host_values;
use crate::model::{Decoder, KvCache, LayeredModel};

/// Texts of equal length, written side by side: each step of the model reads one token of every text.
///
/// Each text has a sampler of its own, so that what is drawn for one does not depend on the others. Prompts are read token by
/// token like what is written, and wait for nobody: while one text is in its prompt, others are written.
#[derive(Debug, Clone, Copy)]
pub struct BatchGeneration<'a> {
    /// Tokens of each text, prompts included.
    pub tokens: usize,
    /// Ids that end what is written after a prompt; the one that ended it is not part of the text.
    pub stop_ids: &'a [u32],
    /// Format of the cache.
    pub cache_dtype: StorageDtype,
}

/// What a text goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// These ids follow what was written, which the model still sees.
    Further(Vec<u32>),
    /// The first ids end what was written; the second begin something new, and the model sees nothing before them.
    Anew {
        /// Possibly none.
        end: Vec<u32>,
        /// At least one.
        start: Vec<u32>,
    },
}

/// A text while it is written.
struct Text<'a> {
    sampler: &'a mut Sampler,
    ids: Vec<u32>,
    /// What is to be read before anything is written, and where the model forgets what was before.
    pending: VecDeque<Pending>,
}

struct Pending {
    id: u32,
    forgets: bool,
}

impl Text<'_> {
    fn take_up(&mut self, prompt: Prompt) -> Result<(), CoreError> {
        let (end, start, forgets) = match prompt {
            Prompt::Further(ids) => (Vec::new(), ids, false),
            Prompt::Anew { end, start } => (end, start, true),
        };
        if start.is_empty() {
            return Err(CoreError::EmptyPrompt);
        }
        self.sampler.saw(&end);
        self.sampler.saw(&start);
        let first = |index| forgets && index == 0;
        self.pending
            .extend(end.into_iter().map(|id| Pending { id, forgets: false }));
        let start = start.into_iter().enumerate();
        self.pending.extend(start.map(|(index, id)| Pending {
            id,
            forgets: first(index),
        }));
        Ok(())
    }
}

impl BatchGeneration<'_> {
    /// Writes one text for each sampler; gives the ids of each, all of them [`Self::tokens`] long.
    ///
    /// `prompt` is asked, by the index of a text, at its beginning and whenever an id ends what is written. `advance` is
    /// told how many tokens of each text there are.
    ///
    /// # Errors
    /// [`CoreError::EmptyPrompt`]; [`CoreError::NonFiniteLogits`]; a token outside the vocabulary, or a device that fails; an
    /// error of `prompt`, which ends the generation.
    pub fn run<E: From<CoreError>>(
        &self,
        model: &Decoder,
        samplers: &mut [Sampler],
        prompt: &mut dyn FnMut(usize) -> Result<Prompt, E>,
        advance: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<u32>>, E> {
        let mut texts: Vec<Text<'_>> = Vec::with_capacity(samplers.len());
        for (index, sampler) in samplers.iter_mut().enumerate() {
            let mut text = Text {
                sampler,
                ids: Vec::with_capacity(self.tokens),
                pending: VecDeque::new(),
            };
            text.take_up(prompt(index)?)?;
            texts.push(text);
        }
        let mut cache = KvCache::with_dtype(model.config(), self.tokens, self.cache_dtype);
        let mut logits: Vec<f32> = Vec::new();
        for written in 1..=self.tokens {
            let chosen = choose(&mut texts, &logits, model.config().vocab_size)?;
            for (index, (text, chosen)) in texts.iter_mut().zip(chosen).enumerate() {
                let ends = chosen.is_some_and(|id| self.stop_ids.contains(&id));
                if ends {
                    text.take_up(prompt(index)?)?;
                }
                match text.pending.pop_front() {
                    Some(Pending { id, forgets }) => {
                        text.ids.push(id);
                        if forgets {
                            cache.restart(index);
                        }
                    }
                    // There is one where nothing is pending.
                    None => text.ids.extend(chosen),
                }
            }
            if written < self.tokens && !texts.is_empty() {
                logits = step(model, &mut cache, &texts)?;
            }
            advance(written);
        }
        Ok(texts.into_iter().map(|text| text.ids).collect())
    }
}

/// The next id of every text that is not in a prompt.
fn choose(texts: &mut [Text<'_>], logits: &[f32], vocabulary: usize) -> Result<Vec<Option<u32>>, CoreError> {
    let choice = |(index, text): (usize, &mut Text<'_>)| {
        if !text.pending.is_empty() {
            return Ok(None);
        }
        let row = logits.get(index * vocabulary..(index + 1) * vocabulary);
        text.sampler.choose(row.unwrap_or_default()).map(Some)
    };
    texts.par_iter_mut().enumerate().map(choice).collect()
}

/// Logits behind the last id of each text, row after row.
fn step(model: &Decoder, cache: &mut KvCache, texts: &[Text<'_>]) -> Result<Vec<f32>, CoreError> {
    let last = texts.iter().filter_map(|text| text.ids.last());
    let ids: Vec<i64> = last.map(|id| i64::from(*id)).collect();
    let batch = ids.len();
    let tokens = TokenBatch::from_ids(ids, batch, 1)?;
    host_values(model.next_logits(&tokens, Some(cache))?)
}
