//! Generation: text from a model, token by token.

mod batch;
mod sampler;
mod settings;

pub use batch::{BatchGeneration, Prompt};
pub use sampler::{Sampler, Sampling};
pub use settings::GenerationSettings;

use transmla_checkpoint::{CheckpointError, TokenBatch};

use crate::error::CoreError;
use crate::host::host_values;
use crate::model::{Decoder, KvCache};

/// How far a generation goes.
#[derive(Debug, Clone, Copy)]
pub struct Generation<'a> {
    /// The most tokens that are generated.
    pub max_new_tokens: usize,
    /// Ids that end a text; the one that ended it is not handed out.
    pub stop_ids: &'a [u32],
}

/// How a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Number of new tokens.
    pub new_tokens: usize,
    /// The id that ended the text; nothing where the most tokens were reached.
    pub stop_id: Option<u32>,
}

impl Generation<'_> {
    /// Continues a prompt and hands each new token's id to `emit`.
    ///
    /// The prompt follows what is in the cache. Each new token is in the cache when the next is chosen; the last one is not.
    ///
    /// # Errors
    /// [`CoreError::EmptyPrompt`]; [`CoreError::NonFiniteLogits`]; a token outside the vocabulary, a cache of another model, or
    /// a device that fails; an error of `emit`, which ends the generation.
    pub fn run<E: From<CoreError>>(
        &self,
        model: &Decoder,
        cache: &mut KvCache,
        prompt: &[u32],
        sampler: &mut Sampler,
        emit: &mut dyn FnMut(u32) -> Result<(), E>,
    ) -> Result<Finish, E> {
        sampler.saw(prompt);
        let logits = next_logits(model, cache, prompt)?;
        self.go_on(model, cache, logits, sampler, emit)
    }

    /// As [`Self::run`], from the logits that follow a prompt already in the cache, as [`next_logits`] gives them. The sampler
    /// is told of the prompt by the caller ([`Sampler::saw`]).
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn go_on<E: From<CoreError>>(
        &self,
        model: &Decoder,
        cache: &mut KvCache,
        mut logits: Vec<f32>,
        sampler: &mut Sampler,
        emit: &mut dyn FnMut(u32) -> Result<(), E>,
    ) -> Result<Finish, E> {
        let mut new_tokens = 0;
        while new_tokens < self.max_new_tokens {
            let id = sampler.choose(&logits)?;
            if self.stop_ids.contains(&id) {
                return Ok(Finish {
                    new_tokens,
                    stop_id: Some(id),
                });
            }
            new_tokens += 1;
            emit(id)?;
            if new_tokens < self.max_new_tokens {
                logits = next_logits(model, cache, &[id])?;
            }
        }
        Ok(Finish {
            new_tokens,
            stop_id: None,
        })
    }
}

/// Logits over the vocabulary that follow some new tokens of one sequence; the tokens are added to the cache.
///
/// # Errors
/// As [`Generation::run`].
pub fn next_logits(model: &Decoder, cache: &mut KvCache, ids: &[u32]) -> Result<Vec<f32>, CoreError> {
    let row = ids.iter().map(|id| i64::from(*id)).collect();
    let tokens = TokenBatch::from_ids(row, 1, ids.len()).map_err(|error| match error {
        CheckpointError::TokenBatch { .. } => CoreError::EmptyPrompt,
        other => other.into(),
    })?;
    host_values(model.next_logits(&tokens, Some(cache))?)
}
