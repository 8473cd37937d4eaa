//! Log-likelihoods of continuations: what multiple-choice tasks and last words are scored by.

mod batch;
mod layout;
mod request;
mod score;

use transmla_core::{CoreError, LayeredModel};

pub use self::request::{Likelihood, Request, ScoringOptions};

use self::batch::Wave;
use self::layout::lay_out;
use self::request::{Sequence, distinct};
use self::score::score;
use crate::error::EvalError;
use crate::forward::state_bytes;
use crate::observer::{Observer, Progress};

/// Log-likelihoods of continuations given their contexts, in the order of the requests.
///
/// What requests have in common is computed once: requests of one context share its keys and values, contexts that begin alike (the
/// examples in front of a question) share those of the beginning, and equal requests have one result. The others go through
/// a layer in batches of similar length. A streamed model reads each layer once for as many requests as
/// [`ScoringOptions::state_bytes`] allows.
///
/// Sequences longer than [`ScoringOptions::max_length`] lose tokens at their beginning.
///
/// # Errors
/// [`EvalError::Request`] for a request that cannot be scored, [`EvalError::NotFinite`] if the model's output is not finite, and
/// [`EvalError::Core`] for a layer that cannot be read or a device that fails.
pub fn log_likelihoods(
    model: &dyn LayeredModel,
    requests: &[Request],
    options: &ScoringOptions,
    observer: &mut dyn Observer,
) -> Result<Vec<Likelihood>, EvalError> {
    let config = model.config();
    let longest = options.max_length.unwrap_or(config.max_position_embeddings);
    if let Some(limit) = config.rope_limit.filter(|limit| longest > *limit) {
        let tokens = longest;
        return Err(CoreError::BeyondContext { tokens, limit }.into());
    }
    let sequences: Vec<Sequence> = requests
        .iter()
        .enumerate()
        .map(|(index, request)| Sequence::of(index, request, longest, config.vocab_size))
        .collect::<Result<_, _>>()?;
    let (sequences, places) = distinct(sequences);
    let most = options.tokens_at_once(state_bytes(model));
    let waves = lay_out(&sequences, options, most);
    let batches = waves.iter().flatten().map(|bundle| bundle.batches.len()).sum();
    let mut progress = Progress::new(batches, config.num_hidden_layers, observer);
    let head = model.head()?;
    let mut found = vec![Likelihood::NONE; sequences.len()];
    for bundles in waves {
        let wave = Wave::begin(model, bundles)?.through_layers(model, options.cache, &mut progress)?;
        for batch in wave.batches() {
            score(model, &head, batch, &mut found)?;
            progress.step();
        }
    }
    let result: Vec<Likelihood> = places.iter().map(|place| found[*place]).collect();
    match result.iter().position(|found| !found.log_likelihood.is_finite()) {
        Some(window) => Err(EvalError::NotFinite { window }),
        None => Ok(result),
    }
}
