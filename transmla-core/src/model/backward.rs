//! Gradients through an attention without recording its softmax.

use burn::tensor::{Gradients, Tensor};

use super::attention::{Attention, Projected};
use super::rotary::Rotary;
use crate::kernels::{attention_gradients, causal_attention};

/// Gradients of a loss of an attention's output, in the two parts that they are found in.
pub struct AttentionBackward {
    after: Gradients,
    before: Gradients,
}

impl AttentionBackward {
    /// Runs an attention forwards and backwards.
    ///
    /// The projections before and after the softmax are recorded by burn's autodiff; in between, the fused kernel computes
    /// both directions and no score matrix is ever kept. `attention`, `x` and `rotary` are tracked tensors (or constants in
    /// the same context); `loss` makes a number of the output `[batch·seq, hidden]`.
    pub fn run(
        attention: &Attention,
        x: Tensor<2>,
        batch: usize,
        rotary: &Rotary,
        loss: impl FnOnce(Tensor<2>) -> Tensor<1>,
    ) -> Self {
        let Projected { q, k, v } = attention.project(x, batch, rotary);
        let plain = |tensor: &Tensor<4>| tensor.clone().detach().without_autodiff();
        let attended = causal_attention(plain(&q), plain(&k), plain(&v));
        let attended = attended.autodiff().require_grad();
        let after = loss(attention.combine(attended.clone())).backward();
        let output = match attended.grad(&after) {
            Some(gradient) => gradient.without_autodiff(),
            // A loss that does not look at the output.
            None => attended.clone().detach().without_autodiff().zeros_like(),
        };
        let gradients = attention_gradients(plain(&q), plain(&k), plain(&v), output);
        // The gradient of this sum is the chain rule through the projections.
        let through = |tensor: Tensor<4>, gradient: Tensor<4>| (tensor * gradient.autodiff()).sum();
        let sum = through(q, gradients.q) + through(k, gradients.k) + through(v, gradients.v);
        Self {
            after,
            before: sum.backward(),
        }
    }

    /// The gradient at a leaf, without autodiff; nothing if the loss does not depend on it.
    pub fn of(&self, leaf: &Tensor<2>) -> Option<Tensor<2>> {
        let parts = [leaf.grad(&self.after), leaf.grad(&self.before)].into_iter().flatten();
        parts.map(Tensor::without_autodiff).reduce(|a, b| a + b)
    }
}
