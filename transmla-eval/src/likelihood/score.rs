//! From residual streams to log-likelihoods.

use transmla_core::burn::tensor::{Int, Tensor, TensorData};
use transmla_core::model::OutputHead;
use transmla_core::{CoreError, LayeredModel, host_values};

use super::batch::Batch;
use super::layout::Prediction;
use super::request::Likelihood;
use crate::forward::{EvalOptions, log_probabilities};

/// Adds what a batch predicts to what was found for its sequences.
pub(super) fn score(
    model: &dyn LayeredModel,
    head: &OutputHead,
    batch: &Batch,
    found: &mut [Likelihood],
) -> Result<(), CoreError> {
    for part in std::iter::once(None).chain((0..batch.parts()).map(Some)) {
        let state = batch.state(part);
        let [rows, longest, _] = state.dims();
        let flat: Tensor<2> = state.clone().flatten(0, 1);
        let asked: Vec<&Prediction> = batch.predictions.iter().filter(|asked| asked.part == part).collect();
        // Several continuations may be predicted from one place.
        let mut places: Vec<usize> = asked.iter().map(|asked| asked.row * longest + asked.position).collect();
        places.sort_unstable();
        places.dedup();
        debug_assert!(places.last().is_none_or(|last| *last < rows * longest));
        for places in places.chunks(EvalOptions::rows_at_once(model)) {
            let here = |asked: &&&Prediction| places.binary_search(&(asked.row * longest + asked.position)).is_ok();
            let asked: Vec<&Prediction> = asked.iter().filter(here).copied().collect();
            let rows: Vec<usize> = asked
                .iter()
                .filter_map(|asked| places.binary_search(&(asked.row * longest + asked.position)).ok())
                .collect();
            let logits = head.logits(flat.clone().select(0, indices(model, places)));
            let most_likely = host_values(logits.clone().argmax(1).float().flatten::<1>(0, 1))?;
            let logarithms = log_probabilities(logits);
            let targets: Vec<usize> = asked.iter().map(|asked| asked.target as usize).collect();
            let picked = logarithms
                .select(0, indices(model, &rows))
                .gather(1, indices(model, &targets).reshape([targets.len(), 1]));
            let picked = host_values(picked.flatten::<1>(0, 1))?;
            for ((asked, row), logarithm) in asked.iter().zip(rows).zip(picked) {
                let found = &mut found[asked.sequence];
                found.log_likelihood += f64::from(logarithm);
                found.is_greedy &= most_likely[row] as u32 == asked.target;
            }
        }
    }
    Ok(())
}

fn indices(model: &dyn LayeredModel, values: &[usize]) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|value| *value as i32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), model.device())
}
