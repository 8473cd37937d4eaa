//! Queries and keys with an RMSNorm on each head (Qwen3, Gemma 3), or on all heads together (OLMo 2).

use burn::tensor::{Device, Tensor, TensorData};
use transmla_checkpoint::{Checkpoint, RopeLayout};

use super::rope_order::rope_order;
use crate::error::CoreError;
use crate::model::linear::RmsNorm;
use crate::read_tensor::ReadTensor;

/// Normalises every part of a row that is as wide as the norm, one head's or those of all: `[rows, heads·d]` to the same shape.
pub(super) fn normalise_parts(norm: &RmsNorm, x: Tensor<2>) -> Tensor<2> {
    let [rows, width] = x.dims();
    let part = norm.weight.dims()[0];
    norm.forward(x.reshape([rows * width / part, part]))
        .reshape([rows, width])
}

/// Queries that are normalised before their rotary part is made.
///
/// The norm's scale depends on the token, so it can be folded into no matrix: queries are normalised as they were, and a
/// map of each head then makes its rotary query. The normalised query itself meets the keys without position.
#[derive(Debug, Clone)]
pub struct NormedQueries {
    /// `q_norm`, `[d]` or `[H·d]`.
    pub norm: RmsNorm,
    /// `q_rope_proj`, `[H, d_r, d]`, half-split.
    pub rope: Tensor<3>,
}

impl NormedQueries {
    pub(super) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        [heads, rope_dim, head_dim]: [usize; 3],
        norm: RmsNorm,
        layout: RopeLayout,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let shape = [heads * rope_dim, head_dim];
        let rows = checkpoint.matrix(&format!("{prefix}.q_rope_proj.weight"), shape, device)?;
        let order = rope_order(layout, heads, 0, rope_dim);
        let order: Vec<i64> = order.into_iter().map(|i| i as i64).collect();
        let order = Tensor::from_data(TensorData::new(order, [shape[0]]), device);
        Ok(Self {
            norm,
            rope: rows.select(0, order).reshape([heads, rope_dim, head_dim]),
        })
    }

    /// From raw queries `[rows, H·d]`: per head the normalised query and the rotary one before its rotation,
    /// `[rows, H·(d + d_r)]`.
    pub(super) fn forward(&self, raw: Tensor<2>) -> Tensor<2> {
        let [heads, rope_dim, head_dim] = self.rope.dims();
        let rows = raw.dims()[0];
        let q = normalise_parts(&self.norm, raw).reshape([rows, heads, head_dim]);
        let rope = q.clone().swap_dims(0, 1).matmul(self.rope.clone().swap_dims(1, 2)); // [H, rows, d_r]
        Tensor::cat(vec![q, rope.swap_dims(0, 1)], 2).reshape([rows, heads * (head_dim + rope_dim)])
    }
}
