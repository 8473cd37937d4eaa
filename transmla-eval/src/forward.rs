//! Running windows through a model, layer by layer.

use transmla_core::burn::tensor::Tensor;
use transmla_core::model::{LayerCache, LayerRotary};
use transmla_core::{CacheFormat, CoreError, LayeredModel, TokenBatch};

use crate::observer::Progress;

/// How an evaluation trades memory for time.
#[derive(Debug, Clone, Copy)]
pub struct EvalOptions {
    /// Windows that go through a layer together; 0 is taken as 1.
    pub batch_size: usize,
    /// Bytes of hidden states held at once; as many windows as fit share one reading of the layers.
    pub state_bytes: u64,
    /// Tokens attend to what a KV cache of this format keeps of them and of those before them, if there is one. A model for it is
    /// made by [`Decoder::for_cache`](transmla_core::Decoder::for_cache).
    pub cache: Option<CacheFormat>,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            batch_size: 2,
            state_bytes: 256 << 20,
            cache: None,
        }
    }
}

/// Most logits that an evaluation computes at once, as a count; while they are normalised, three copies of them are held.
pub const LOGITS_AT_ONCE: usize = 8 << 20;

impl EvalOptions {
    /// Number of windows that share one reading of the layers.
    pub(crate) fn group(&self, model: &dyn LayeredModel, sequence: usize) -> usize {
        let per_window = sequence as u64 * state_bytes(model);
        let batch = self.batch_size.max(1);
        ((self.state_bytes / per_window.max(1)) as usize)
            .max(1)
            .next_multiple_of(batch)
    }

    pub(crate) fn rows_at_once(model: &dyn LayeredModel) -> usize {
        (LOGITS_AT_ONCE / model.config().vocab_size.max(1)).max(1)
    }
}

/// Bytes that a token's residual stream takes on its way through the layers.
pub(crate) fn state_bytes(model: &dyn LayeredModel) -> u64 {
    let config = model.config();
    // Experts add to a second one.
    let copies = if config.experts.is_some() { 2 } else { 1 };
    (copies * config.hidden_size * size_of::<f32>()) as u64
}

/// Residual streams after the last layer, one `[batch, seq, hidden]` for each batch of windows.
pub(crate) fn final_states(
    model: &dyn LayeredModel,
    windows: &TokenBatch,
    batch_size: usize,
    cache: Option<CacheFormat>,
    progress: &mut Progress<'_>,
) -> Result<Vec<Tensor<3>>, CoreError> {
    let rotary = LayerRotary::new(&model.config().rope, 0..windows.sequence(), model.device());
    let starts = (0..windows.batch()).step_by(batch_size);
    let mut states = starts
        .filter_map(|start| windows.rows(start..start + batch_size))
        .map(|batch| model.embed(&batch))
        .collect::<Result<Vec<_>, _>>()?;
    for index in 0..model.config().num_hidden_layers {
        let layer = model.layer(index)?;
        let mut attend = |_, hidden| {
            let of_format = |format| LayerCache::in_format(model.config(), windows.sequence(), format);
            let mut cache = cache.map(of_format).transpose()?;
            Ok(layer.attend(hidden, rotary.of(index), cache.as_mut()))
        };
        layer.forward_each(&mut states, &mut attend, &mut || progress.step())?;
    }
    Ok(states)
}

/// Log-probabilities `[rows, vocabulary]` from logits.
pub(crate) fn log_probabilities(logits: Tensor<2>) -> Tensor<2> {
    let shifted = logits.clone() - logits.max_dim(1);
    let normaliser = shifted.clone().exp().sum_dim(1).log();
    shifted - normaliser
}
