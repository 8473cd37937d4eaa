//! How far the predictions of a second model are from those of a first.

use transmla_core::{LayeredModel, TokenBatch, host_values};

use crate::error::EvalError;
use crate::forward::{EvalOptions, final_states, log_probabilities};
use crate::observer::{Observer, Progress};
use crate::positions::{DivergenceSums, PositionDivergence};

/// How far the predictions of two models are apart, over all positions of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Kullback-Leibler divergence KL(first ‖ second), in nats per token.
    pub kl: f64,
    /// Share of positions at which both models find the same token most likely, 0 to 1.
    pub top1_agreement: f64,
    /// Largest absolute difference of two logits of the same token.
    pub max_logit_difference: f64,
    /// Number of positions compared.
    pub positions: usize,
}

/// Compares the predictions of two models on windows `[windows, seq]`. A cache ([`EvalOptions::cache`]) is of the first model alone.
///
/// # Errors
/// [`EvalError::Vocabulary`] for models of different vocabularies, [`EvalError::NotFinite`] if an output is not finite, and
/// [`EvalError::Core`] for ids outside the vocabulary, a layer that cannot be read or a device that fails.
pub fn divergence(
    first: &dyn LayeredModel,
    second: &dyn LayeredModel,
    windows: &TokenBatch,
    options: &EvalOptions,
    observer: &mut dyn Observer,
) -> Result<Divergence, EvalError> {
    divergence_by_position(first, second, windows, options, observer).map(|(all, _)| all)
}

/// [`divergence`], and that of the predictions in each of the [`position_ranges`](crate::position_ranges) of a window, from the
/// same pass over the text.
///
/// # Errors
/// As [`divergence`].
pub fn divergence_by_position(
    first: &dyn LayeredModel,
    second: &dyn LayeredModel,
    windows: &TokenBatch,
    options: &EvalOptions,
    observer: &mut dyn Observer,
) -> Result<(Divergence, Vec<PositionDivergence>), EvalError> {
    let (vocab_size, other) = (first.config().vocab_size, second.config().vocab_size);
    if vocab_size != other {
        return Err(EvalError::Vocabulary {
            first: vocab_size,
            second: other,
        });
    }
    windows.check_vocabulary(vocab_size)?;
    let batch_size = options.batch_size.max(1);
    let group = options
        .group(first, windows.sequence())
        .div_ceil(2)
        .next_multiple_of(batch_size);
    let layers = first.config().num_hidden_layers + second.config().num_hidden_layers;
    let mut progress = Progress::new(windows.batch().div_ceil(batch_size), layers, observer);
    let heads = (first.head()?, second.head()?);
    let chunk = EvalOptions::rows_at_once(first).div_ceil(2);
    let (mut sums, mut largest) = (DivergenceSums::new(windows.sequence()), 0.0f64);
    for start in (0..windows.batch()).step_by(group) {
        let Some(part) = windows.rows(start..start + group) else {
            break;
        };
        let ours = final_states(first, &part, batch_size, options.cache, &mut progress)?;
        let theirs = final_states(second, &part, batch_size, None, &mut progress)?;
        for (index, (a, b)) in ours.into_iter().zip(theirs).enumerate() {
            let (a, b) = (a.flatten::<2>(0, 1), b.flatten::<2>(0, 1));
            let rows = a.dims()[0];
            for row in (0..rows).step_by(chunk) {
                let count = chunk.min(rows - row);
                let a = heads.0.logits(a.clone().narrow(0, row, count));
                let b = heads.1.logits(b.clone().narrow(0, row, count));
                let difference = host_values((a.clone() - b.clone()).abs().max().reshape([1]))?[0];
                if !difference.is_finite() {
                    let window = start + index * batch_size + row / windows.sequence();
                    return Err(EvalError::NotFinite { window });
                }
                largest = largest.max(f64::from(difference));
                let same = a.clone().argmax(1).equal(b.clone().argmax(1)).float();
                let (log_p, log_q) = (log_probabilities(a), log_probabilities(b));
                let terms = (log_p.clone().exp() * (log_p - log_q)).sum_dim(1);
                sums.add(row, &host_values(terms)?, &host_values(same)?);
            }
            progress.step();
        }
    }
    let (kl, agreed, positions) = sums.total();
    let all = Divergence {
        kl: kl / positions as f64,
        top1_agreement: agreed / positions as f64,
        max_logit_difference: largest,
        positions,
    };
    Ok((all, sums.divergences()))
}
