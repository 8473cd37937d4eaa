//! What a healing takes of disk and memory.

use transmla_core::{AttentionConfig, Decoder, LayeredModel, TokenBatch};

use crate::heal::student::Student;
use crate::heal::weights::{Weights, of_layer};
use crate::spec::healing::Healing;

/// Bytes on disk until the model stands: its weights, the state twice while one takes the place of another, and logits.
pub(crate) fn disk_bytes(converted: &Decoder, student: &Student<'_>, healing: &Healing, text: &TokenBatch) -> u64 {
    let numbers = |weights: &Weights| (3 * weights.moving() + weights.value.dims().iter().product::<usize>()) as u64;
    let state: u64 = student.weights.iter().flatten().map(numbers).sum();
    let logits = healing.teacher_top_k.map_or(0, |count| 2 * count * text.tokens()) as u64;
    converted.checkpoint().total_bytes() + 4 * (2 * state + logits)
}

/// Estimated peak of memory in bytes, for text of this shape, with the weights of so many bytes kept beside those in training.
pub(crate) fn peak_bytes(converted: &Decoder, healing: &Healing, sequence: usize, kept: u64) -> u64 {
    let config = converted.config();
    let rows = (healing.micro_batch * sequence) as u64;
    let layer = converted.layer(0).and_then(|layer| {
        let weights = of_layer(&layer, 0, healing)?;
        let value: usize = weights.iter().map(|it| it.value.dims().iter().product::<usize>()).sum();
        let moving: usize = weights.iter().map(|it| it.moving()).sum();
        Ok((value as u64, moving as u64))
    });
    let (value, moving) = layer.unwrap_or_default();
    // The weights, their best, their sizes and their gradient, then two moments of what moves.
    let trained = config.num_hidden_layers as u64 * (4 * value + 3 * moving);
    let states = (config.num_hidden_layers as u64 + 1) * rows * config.hidden_size as u64;
    let heads = match &config.attention {
        AttentionConfig::Latent(latent) => {
            config.num_attention_heads * (2 * latent.query_width() + 2 * latent.v_head_dim)
        }
        AttentionConfig::Grouped(grouped) => 4 * config.num_attention_heads * grouped.head_dim,
    };
    // Attention and its gradients, or the MLP's; the autodiff of the former keeps about three of each.
    let widest = (6 * heads).max(6 * config.intermediate_size) as u64;
    let logits = 4 * (16 << 20) + 2 * (config.vocab_size * config.hidden_size) as u64;
    kept + 4 * (trained + states + rows * widest + logits)
}
