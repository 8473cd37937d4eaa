//! The memory of the coherent method.

use transmla_calib::Sensitivity;

use crate::solve::coherent::closed_form::CANDIDATES;
use crate::solve::coherent::groups::MOST_SOLVED;
use crate::solve::coherent::loss_gradients::division;
use crate::solve::coherent::sequential::steps_of;
use crate::solve::memory::{Needs, elements};
use crate::spec::plan::Plan;

/// Tokens whose logits the gradients are taken for at once.
const LOGIT_ROWS: u64 = 256;

/// Bytes at the peak, for `samples` calibration sequences of `tokens` tokens: none of it grows with the number of layers.
///
/// Two phases, the gradients and the layers. Within a layer the closed form, the refinement and the regression of the output follow each
/// other, and each gives back what it took.
pub(super) fn peak_bytes(plan: &Plan, samples: usize, tokens: usize) -> u64 {
    let needs = Needs::of(plan, samples, tokens);
    let (source, text) = (plan.source(), division(plan, samples, tokens));
    let (hidden, vocabulary) = (source.hidden_size as u64, source.vocab_size as u64);
    let gradients = 4 * text.with_gradients as u64 * hidden;
    // A layer forwards and backwards, or the head with some logits; the gradients behind the layer and in front of it.
    let layer = needs.layer + 2 * needs.activations;
    let head = 4 * vocabulary * hidden + 3 * LOGIT_ROWS * vocabulary * 4;
    let taken = layer.max(head) + 2 * gradients;

    let heads = source.num_attention_heads;
    let sensitivity = Sensitivity::peak_bytes(heads, plan.grouped().head_dim, text.sequence);
    let sizes = Sizes::of(plan);
    let solved = sizes
        .closed_form()
        .max(sizes.refinement(plan))
        .max(sizes.regression())
        .max(sizes.weights() + sensitivity);
    // Of the text: teacher and student, inputs, outputs and what is missing.
    let kept = needs.layer + 5 * needs.states + gradients;
    taken.max(kept + needs.activations.max(sizes.moments() + solved))
}

/// Widths of a layer.
struct Sizes {
    hidden: u64,
    /// All query heads.
    queries: u64,
    /// The rotary queries of all heads.
    rope_queries: u64,
    /// All key heads; values are as many.
    keys: u64,
    rank: u64,
    /// Bytes of the latent attention in f32.
    attention: u64,
    /// Bytes of all groups of heads that are solved to find the best; without groups those of the attention.
    solved: u64,
}

impl Sizes {
    fn of(plan: &Plan) -> Self {
        let (source, grouped) = (plan.source(), plan.grouped());
        let heads = source.num_attention_heads as u64;
        let attention = 4 * elements(&plan.solved_attention(0).2);
        let groups = plan.latent().latent_groups;
        let solved = match groups > 1 && grouped.num_key_value_heads > groups {
            true => MOST_SOLVED.max(groups),
            false => groups,
        };
        Self {
            hidden: source.hidden_size as u64,
            queries: heads * grouped.head_dim as u64,
            rope_queries: heads * plan.latent().qk_rope_head_dim as u64,
            keys: grouped.key_width() as u64,
            rank: plan.latent().kv_lora_rank as u64,
            attention,
            solved: attention * solved as u64 / groups.max(1) as u64,
        }
    }

    /// The second moment of the inputs, and the same for a token.
    fn moments(&self) -> u64 {
        2 * 8 * self.hidden * self.hidden
    }

    /// The original's queries, keys and values in f64.
    fn weights(&self) -> u64 {
        8 * self.hidden * (self.queries + 2 * self.keys)
    }

    /// What one candidate takes on top of the weights, the candidates' splits and the best attention so far.
    fn closed_form(&self) -> u64 {
        let rows = self.queries + self.rope_queries;
        // Queries as factors, their rotary rows, both together, and the same in f32.
        let queries = self.hidden * (8 * self.queries + 8 * self.rope_queries + 8 * rows + 4 * rows);
        // Keys and values in the metric and out of it, their joint moment with its eigenvectors, and the up-projection.
        let latent = 8 * (4 * self.hidden * self.keys + 16 * self.keys * self.keys + 2 * self.queries * self.rank);
        // The maps of keys to keys and, of each query head, to all of them.
        let split = 8 * (self.keys * self.keys + self.queries * self.keys);
        self.weights() + queries + latent + CANDIDATES.len() as u64 * split + self.solved
    }

    /// Weights, their gradient, what Adam keeps of each, the best so far, and the basis of the inputs.
    fn refinement(&self, plan: &Plan) -> u64 {
        match steps_of(plan.recipe()) {
            0 => 0,
            _ => 6 * self.attention + 4 * self.hidden * self.hidden,
        }
    }

    /// The moment of the attended values with its factor, what is solved for, and the attention before and after.
    fn regression(&self) -> u64 {
        8 * (2 * self.queries * self.queries + 2 * self.queries * self.hidden) + 2 * self.attention
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use transmla_core::ModelConfig;

    use super::*;
    use crate::spec::recipe::Recipe;

    fn peak(layers: usize, samples: usize, refine: usize) -> u64 {
        let config = json!({
            "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": layers,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 2048, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "tie_word_embeddings": false, "max_position_embeddings": 8192,
        });
        let source = ModelConfig::from_json(config.as_object().unwrap().clone()).unwrap();
        let recipe = Recipe {
            refine: Some(refine),
            ..Recipe::default()
        };
        peak_bytes(&Plan::new(&source, &recipe).unwrap(), samples, 256)
    }

    /// Measured with 2 and 8 samples ([docs/performance.md]): 2951 and 3160 MiB.
    ///
    /// [docs/performance.md]: ../../../../docs/performance.md
    #[test]
    fn layers_of_llama_3_8b_take_what_was_measured() {
        let mebibytes = |bytes: u64| bytes >> 20;
        for (samples, measured) in [(2, 2951), (8, 3160)] {
            let planned = mebibytes(peak(2, samples, 2));
            assert!(planned.abs_diff(measured) * 100 < 15 * measured, "{planned} {measured}");
        }
    }

    #[test]
    fn it_does_not_grow_with_the_number_of_layers() {
        assert_eq!(peak(2, 128, 100), peak(80, 128, 100));
        assert!(peak(2, 128, 0) <= peak(2, 128, 100));
        assert!(peak(2, 8, 100) < peak(2, 128, 100));
    }
}
