//! Memory that every method needs: text, weights and moments of one layer.

use transmla_core::TensorSpec;
use transmla_core::model::{attention_tensors, residual_tensors};

use crate::spec::plan::Plan;
use crate::spec::recipe::Recipe;

/// Most tokens that go through a layer together, unless a single sequence has more.
const BATCH_TOKENS: usize = 4096;

/// Sequences of so many tokens that go through a layer together, where the recipe's batches have samples of `sample` tokens.
pub(crate) fn batch_sequences(recipe: &Recipe, sample: usize, sequence: usize) -> usize {
    let tokens = recipe.calibration.cal_batch_size.saturating_mul(sample);
    (tokens.min(BATCH_TOKENS) / sequence.max(1)).max(1)
}

/// Estimated bytes of the parts of a conversion that every method has.
pub(crate) struct Needs {
    /// One layer of the original in f32.
    pub layer: u64,
    /// Hidden states of all calibration tokens.
    pub states: u64,
    /// Activations of a batch.
    pub activations: u64,
    /// The second moment and its products; attention weights before and after; the joint moment and its eigenvectors; one
    /// up-projection of all keys for each query head.
    pub factorisation: u64,
}

impl Needs {
    /// Of a conversion with `samples` calibration sequences of `tokens` tokens.
    pub fn of(plan: &Plan, samples: usize, tokens: usize) -> Self {
        let (source, grouped) = (plan.source(), plan.grouped());
        let (hidden, keys) = (source.hidden_size as u64, grouped.key_width() as u64);
        let heads = source.num_attention_heads as u64;
        let queries = heads * grouped.head_dim as u64;
        let rope_queries = heads * plan.latent().qk_rope_head_dim as u64;
        let batch = (batch_sequences(plan.recipe(), tokens, tokens).min(samples) * tokens) as u64;
        let rows = 2 * queries + rope_queries + 2 * keys;
        let joint = 2 * keys;
        Self {
            layer: 4 * (elements(&residual_tensors(source, 0)) + elements(&attention_tensors(source, 0))),
            states: samples.saturating_mul(tokens) as u64 * hidden * 4,
            activations: batch * 4 * (3 * source.intermediate_size as u64 + 2 * queries + 2 * hidden),
            factorisation: 8 * (3 * hidden * hidden + hidden * rows + 4 * joint * joint + 2 * queries * keys),
        }
    }
}

/// Numbers of some tensors.
pub(crate) fn elements(specs: &[TensorSpec]) -> u64 {
    specs.iter().map(|spec| spec.elements() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_the_recipes_samples_or_a_bounded_number_of_tokens() {
        let mut recipe = Recipe::default();
        recipe.calibration.cal_batch_size = 8;
        let sequences = |sample, sequence| batch_sequences(&recipe, sample, sequence);
        assert_eq!((sequences(256, 256), sequences(256, 512)), (8, 4));
        assert_eq!((sequences(512, 512), sequences(1024, 1024)), (8, 4));
        assert_eq!((sequences(4096, 4096), sequences(8192, 8192)), (1, 1));
        assert_eq!((sequences(16, 512), sequences(0, 0)), (1, 1));
    }
}
