//! Tensors of all heads: projected, split and merged.

use burn::tensor::Tensor;

/// Queries, keys and values of some tokens, rotated: q `[batch, H, seq, width]`, k and v with H heads or a divisor of it.
#[derive(Debug, Clone)]
pub struct Projected {
    /// Queries.
    pub q: Tensor<4>,
    /// Keys.
    pub k: Tensor<4>,
    /// Values.
    pub v: Tensor<4>,
}

/// `[batch·seq, heads·width]` to `[batch, heads, seq, width]`.
pub(super) fn split_heads(x: Tensor<2>, batch: usize, heads: usize) -> Tensor<4> {
    let [rows, width] = x.dims();
    x.reshape([batch, rows / batch, heads, width / heads]).swap_dims(1, 2)
}

/// `[batch, heads, seq, width]` to `[batch·seq, heads·width]`.
pub(super) fn merge_heads(x: Tensor<4>) -> Tensor<2> {
    let [batch, heads, sequence, width] = x.dims();
    x.swap_dims(1, 2).reshape([batch * sequence, heads * width])
}
