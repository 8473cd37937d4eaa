//! Memory that every method needs: text, weights and moments of one layer.

use transmla_core::model::{attention_tensors, residual_tensors};
use transmla_core::{ModelConfig, TensorSpec};

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
    /// One layer of the original in f32, with one of its experts.
    pub layer: u64,
    /// Hidden states of all calibration tokens.
    pub states: u64,
    /// Activations of a batch.
    pub activations: u64,
    /// What experts add up for all calibration tokens, each in memory once.
    pub fed: u64,
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
        let states = samples.saturating_mul(tokens) as u64 * hidden * 4;
        Self {
            layer: 4 * layer_elements(source),
            states,
            fed: if source.experts.is_some() { states } else { 0 },
            activations: batch * 4 * (3 * source.intermediate_size as u64 + 2 * queries + 2 * hidden),
            factorisation: 8 * (3 * hidden * hidden + hidden * rows + 4 * joint * joint + 2 * queries * keys),
        }
    }
}

/// Numbers of the largest layer that are in memory at once.
fn layer_elements(config: &ModelConfig) -> u64 {
    let of_layer = |layer: usize| {
        let all = elements(&residual_tensors(config, layer)) + elements(&attention_tensors(config, layer));
        let read_later = config.experts_of(layer);
        all - read_later.map_or(0, |experts| experts.all_but_one(config.hidden_size))
    };
    // One with experts, and one without.
    let differs = |layer: &usize| config.experts_of(*layer).is_some() != config.experts_of(0).is_some();
    let other = (0..config.num_hidden_layers).find(differs);
    other.map_or(0, of_layer).max(of_layer(0))
}

/// Numbers of some tensors.
pub(crate) fn elements(specs: &[TensorSpec]) -> u64 {
    specs.iter().map(|spec| spec.elements() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of its experts one is in memory, and the text twice while they are gone over.
    #[test]
    fn a_layer_with_experts_takes_one_of_them() {
        let needs = |experts: usize| {
            let config = serde_json::json!({
                "model_type": "mixtral", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "vocab_size": 128, "num_local_experts": experts, "num_experts_per_tok": 1,
                "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false, "max_position_embeddings": 512,
            });
            let source = ModelConfig::from_json(config.as_object().unwrap().clone()).unwrap();
            Needs::of(&Plan::new(&source, &Recipe::default()).unwrap(), 4, 16)
        };
        let (one, many) = (needs(1), needs(64));
        // The router has a row for each.
        assert_eq!(many.layer - one.layer, 4 * 63 * 64);
        assert_eq!((many.fed, many.states), (4 * 16 * 64 * 4, 4 * 16 * 64 * 4));
    }

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
