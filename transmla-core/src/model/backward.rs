//! Gradients through an attention without recording its softmax.

use burn::tensor::{Gradients, Tensor};
use transmla_checkpoint::config::AttentionParameters;

use super::attention::heads::Projected;
use super::attention::kind::Attention;
use super::rotary::Rotary;
use crate::kernels::{attend, attention_gradients};

/// An attention after its forward pass, ready for the backward pass.
///
/// The projections before and after the softmax are recorded by burn's autodiff; in between, the fused kernel computes
/// both directions and no score matrix is ever kept.
pub struct RecordedAttention {
    projected: Projected,
    parameters: AttentionParameters,
    attended: Tensor<4>,
    output: Tensor<2>,
}

/// Gradients of a loss with respect to the leaves, in the two parts that they are computed in.
pub struct AttentionBackward {
    after: Gradients,
    before: Gradients,
}

impl RecordedAttention {
    /// Runs an attention forwards. `attention`, `x` and `rotary` are tracked tensors, or constants in the same context.
    pub fn run(attention: &Attention, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Self {
        let projected = attention.project(x, batch, rotary);
        let Projected { q, k, v } = &projected;
        let parameters = *attention.parameters();
        let attended = attend(plain(q), plain(k), plain(v), &parameters);
        let attended = attended.autodiff().require_grad();
        Self {
            output: attention.combine(attended.clone()),
            projected,
            parameters,
            attended,
        }
    }

    /// The output, `[batch·seq, hidden]`, tracked as far as the softmax.
    pub fn output(&self) -> Tensor<2> {
        self.output.clone()
    }

    /// The gradients of a loss that was computed from [`Self::output`].
    pub fn backward(self, loss: Tensor<1>) -> AttentionBackward {
        let Projected { q, k, v } = self.projected;
        let after = loss.backward();
        let output = match self.attended.grad(&after) {
            Some(gradient) => gradient.without_autodiff(),
            // A loss that does not look at the output.
            None => plain(&self.attended).zeros_like(),
        };
        let gradients = attention_gradients(plain(&q), plain(&k), plain(&v), output, &self.parameters);
        // The gradient of this sum is the chain rule through the projections.
        let through = |tensor: Tensor<4>, gradient: Tensor<4>| (tensor * gradient.autodiff()).sum();
        let sum = through(q, gradients.q) + through(k, gradients.k) + through(v, gradients.v);
        AttentionBackward {
            after,
            before: sum.backward(),
        }
    }
}

impl AttentionBackward {
    /// The gradient with respect to a leaf, without autodiff; `None` if the loss does not depend on it.
    pub fn of<const D: usize>(&self, leaf: &Tensor<D>) -> Option<Tensor<D>> {
        let parts = [leaf.grad(&self.after), leaf.grad(&self.before)].into_iter().flatten();
        parts.map(Tensor::without_autodiff).reduce(|a, b| a + b)
    }
}

fn plain(tensor: &Tensor<4>) -> Tensor<4> {
    tensor.clone().detach().without_autodiff()
}
