//! Perplexity by the published protocol.

use transmla_core::burn::tensor::{Int, Tensor, TensorData};
use transmla_core::model::OutputHead;
use transmla_core::{CoreError, LayeredModel, TokenBatch, host_values};

use crate::error::EvalError;
use crate::forward::{EvalOptions, final_states};
use crate::observer::{Observer, Progress};
use crate::positions::{PositionPerplexity, WindowMeans};
use crate::standard_error::standard_error;

/// The perplexity of a model on a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// exp of `mean_nll`.
    pub perplexity: f64,
    /// Mean over windows of the mean negative log-likelihood within a window, in nats per token.
    pub mean_nll: f64,
    /// Standard error of `mean_nll`, from the spread of the windows; nothing for a single window. That of the perplexity is
    /// this times the perplexity, to first order.
    pub standard_error: Option<f64>,
    /// Number of windows.
    pub windows: usize,
    /// Number of predicted tokens.
    pub predictions: usize,
}

/// Perplexity relative to the size of the vocabulary from which on a model counts as broken.
const GUESS: f64 = 0.5;

impl Perplexity {
    /// Whether the model hardly does better than guessing, that is, whether the perplexity is at least half of the size of the
    /// vocabulary. A uniform guess has the whole size as its perplexity; even text that a model was not trained on stays far
    /// below half.
    pub fn is_guess(&self, vocab_size: usize) -> bool {
        self.perplexity >= GUESS * vocab_size as f64
    }
}

/// Perplexity of a model on windows `[windows, seq]`; every token but a window's first is predicted.
///
/// # Errors
/// [`EvalError::ShortWindow`] for windows of one token, [`EvalError::NotFinite`] if the model's output is not finite, and
/// [`EvalError::Core`] for ids outside the vocabulary, a layer that cannot be read or a device that fails.
pub fn perplexity(
    model: &dyn LayeredModel,
    windows: &TokenBatch,
    options: &EvalOptions,
    observer: &mut dyn Observer,
) -> Result<Perplexity, EvalError> {
    perplexity_by_position(model, windows, options, observer).map(|(all, _)| all)
}

/// [`perplexity`], and that of the predictions in each of the [`position_ranges`](crate::position_ranges) of a window, from the
/// same pass over the text.
///
/// # Errors
/// As [`perplexity`].
pub fn perplexity_by_position(
    model: &dyn LayeredModel,
    windows: &TokenBatch,
    options: &EvalOptions,
    observer: &mut dyn Observer,
) -> Result<(Perplexity, Vec<PositionPerplexity>), EvalError> {
    let sequence = windows.sequence();
    if sequence < 2 {
        return Err(EvalError::ShortWindow { found: sequence });
    }
    windows.check_vocabulary(model.config().vocab_size)?;
    let batch_size = options.batch_size.max(1);
    let group = options.group(model, sequence);
    let batches = windows.batch().div_ceil(batch_size);
    let mut progress = Progress::new(batches, model.config().num_hidden_layers, observer);
    let head = model.head()?;
    let mut window_nll = Vec::with_capacity(windows.batch());
    let mut means = WindowMeans::new(sequence);
    for start in (0..windows.batch()).step_by(group) {
        let Some(part) = windows.rows(start..start + group) else {
            break;
        };
        let states = final_states(model, &part, batch_size, options.cache, &mut progress)?;
        for (index, state) in states.into_iter().enumerate() {
            for row in 0..state.dims()[0] {
                let window = index * batch_size + row;
                let hidden = state.clone().narrow(0, row, 1).flatten::<2>(0, 1);
                let nll = negative_log_likelihoods(model, &head, hidden, part.row(window))?;
                let sum: f64 = nll.iter().sum();
                if !sum.is_finite() {
                    return Err(EvalError::NotFinite { window: start + window });
                }
                window_nll.push(sum / (sequence - 1) as f64);
                means.add(&nll);
            }
            progress.step();
        }
    }
    let mean_nll = window_nll.iter().sum::<f64>() / window_nll.len() as f64;
    let all = Perplexity {
        perplexity: mean_nll.exp(),
        mean_nll,
        standard_error: standard_error(&window_nll, mean_nll),
        windows: window_nll.len(),
        predictions: window_nll.len() * (sequence - 1),
    };
    Ok((all, means.perplexities(sequence)))
}

/// -log p(next token) at every position of a window but the last, from its residual stream `[seq, hidden]`.
fn negative_log_likelihoods(
    model: &dyn LayeredModel,
    head: &OutputHead,
    hidden: Tensor<2>,
    ids: &[i64],
) -> Result<Vec<f64>, CoreError> {
    let predictions = ids.len() - 1;
    let chunk = EvalOptions::rows_at_once(model);
    let mut all = Vec::with_capacity(predictions);
    for start in (0..predictions).step_by(chunk) {
        let count = chunk.min(predictions - start);
        let logits = head.logits(hidden.clone().narrow(0, start, count));
        let next = TensorData::new(ids[start + 1..start + 1 + count].to_vec(), [count, 1]);
        let next = Tensor::<2, Int>::from_data(next, model.device());
        // One pass over the logits at a time: -log p = max + log(sum(exp(logit - max))) - logit[next].
        let picked = logits.clone().gather(1, next);
        let largest = logits.clone().max_dim(1);
        let normaliser = (logits - largest.clone()).exp().sum_dim(1).log();
        let nll = (normaliser + largest - picked).flatten::<1>(0, 1);
        all.extend(host_values(nll)?.into_iter().map(f64::from));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_vocabulary_is_a_guess() {
        let of = |perplexity: f64| Perplexity {
            perplexity,
            mean_nll: perplexity.ln(),
            standard_error: None,
            windows: 1,
            predictions: 1,
        };
        for (perplexity, guess) in [(4.3, false), (255.9, false), (256.0, true), (512.0, true), (9e9, true)] {
            assert_eq!(of(perplexity).is_guess(512), guess, "{perplexity}");
        }
    }
}
