//! Some sequences of a text, and a model on them.

use burn::tensor::Tensor;
use transmla_core::model::LayerRotary;
use transmla_core::{CoreError, LayeredModel, TokenBatch};

/// Some sequences of a text, by their indices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    /// The whole text.
    pub text: &'a TokenBatch,
    /// Which of its sequences.
    pub rows: &'a [usize],
}

impl Batch<'_> {
    /// Their ids.
    pub fn tokens(&self) -> Result<TokenBatch, CoreError> {
        let ids = self.rows.iter().flat_map(|row| self.text.row(*row).iter().copied());
        Ok(TokenBatch::from_ids(
            ids.collect(),
            self.rows.len(),
            self.text.sequence(),
        )?)
    }

    /// The token that each one is followed by in its sequence.
    pub fn next(&self) -> Vec<Option<usize>> {
        let of_row = |row: &usize| {
            let ids = self.text.row(*row);
            (1..=ids.len()).map(|place| ids.get(place).and_then(|id| usize::try_from(*id).ok()))
        };
        self.rows.iter().flat_map(of_row).collect()
    }
}

/// The residual stream in front of every layer and behind the last, `[batch, seq, hidden]` each.
pub(crate) fn states(
    model: &dyn LayeredModel,
    tokens: &TokenBatch,
    rotary: &LayerRotary,
) -> Result<Vec<Tensor<3>>, CoreError> {
    let mut states = vec![model.embed(tokens)?];
    for index in 0..model.config().num_hidden_layers {
        let hidden = states[index].clone();
        states.push(model.layer(index)?.forward(hidden, rotary.of(index), None)?);
    }
    Ok(states)
}

/// The residual stream behind the last layer, `[batch·seq, hidden]`.
pub(crate) fn last_state(model: &dyn LayeredModel, tokens: &TokenBatch) -> Result<Tensor<2>, CoreError> {
    let rotary = LayerRotary::new(&model.config().rope, 0..tokens.sequence(), model.device());
    let mut hidden = model.embed(tokens)?;
    for index in 0..model.config().num_hidden_layers {
        hidden = model.layer(index)?.forward(hidden, rotary.of(index), None)?;
    }
    Ok(hidden.flatten(0, 1))
}
