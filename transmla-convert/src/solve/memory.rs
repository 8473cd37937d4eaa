//! Memory that every method needs: text, weights and moments of one layer.

use transmla_core::TensorSpec;
use transmla_core::model::{attention_tensors, residual_tensors};

use crate::spec::plan::Plan;

/// Estimated bytes of the parts of a conversion that every method has.
pub(crate) struct Needs {
    /// One layer of the original in f32.
    pub layer: u64,
    /// Hidden states of all calibration tokens.
    pub states: u64,
    /// Activations of a batch.
    pub activations: u64,
    /// Tokens of a batch.
    pub batch: u64,
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
        let batch = (plan.recipe().calibration.cal_batch_size.min(samples) * tokens) as u64;
        let rows = 2 * queries + rope_queries + 2 * keys;
        let joint = 2 * keys;
        Self {
            layer: 4 * (elements(&residual_tensors(source, 0)) + elements(&attention_tensors(source, 0))),
            states: samples.saturating_mul(tokens) as u64 * hidden * 4,
            activations: batch * 4 * (3 * source.intermediate_size as u64 + 2 * queries + 2 * hidden),
            batch,
            factorisation: 8 * (3 * hidden * hidden + hidden * rows + 4 * joint * joint + 2 * queries * keys),
        }
    }
}

/// Numbers of some tensors.
pub(crate) fn elements(specs: &[TensorSpec]) -> u64 {
    specs.iter().map(|spec| spec.elements() as u64).sum()
}
