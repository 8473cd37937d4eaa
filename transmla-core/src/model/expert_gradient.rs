//! The gradient of a loss through a mixture of experts, with respect to its input, one expert in memory at a time.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{IndexingUpdateOp, Tensor};

use super::experts::Experts;
use crate::error::CoreError;

impl Experts {
    /// The gradient with respect to an input `[rows, hidden]`, given that at the output; nothing is recorded.
    ///
    /// With shares `w` of the chosen experts, the output is `y = Σ w_e f_e(x) + σ(s·x) f(x)`. The way through the experts is
    /// `Σ f_e'(x)ᵀ (w_e g)`, that through the shares begins with `∂w_e = g·f_e(x)`. Which experts are chosen is taken for fixed.
    ///
    /// # Errors
    /// An expert cannot be read; [`CoreError::Execution`] if the device fails while experts are chosen.
    pub fn input_gradient(&self, x: Tensor<2>, output: Tensor<2>) -> Result<Tensor<2>, CoreError> {
        let routes = self.routes(x.clone())?;
        let mut gradient = match &self.shared {
            None => x.zeros_like(),
            Some(shared) => {
                let share = sigmoid(shared.gate.forward(x.clone()));
                let of_share = (output.clone() * shared.mlp.forward(x.clone())).sum_dim(1);
                let slope = share.clone() * share.clone().neg().add_scalar(1.0);
                let through = shared.mlp.input_gradient(x.clone(), output.clone() * share);
                through + (of_share * slope).matmul(shared.gate.weight.clone())
            }
        };
        let mut of_shares = routes.shares.zeros_like();
        for index in 0..self.count {
            let Some(rows) = routes.to(index) else {
                continue;
            };
            let expert = self.expert(index)?;
            let (x, output) = (
                x.clone().select(0, rows.clone()),
                output.clone().select(0, rows.clone()),
            );
            let share = routes.shares.clone().narrow(1, index, 1).select(0, rows.clone());
            let of_share = (output.clone() * expert.forward(x.clone())).sum_dim(1);
            let column = of_shares.clone().narrow(1, index, 1);
            let column = column.select_assign(0, rows.clone(), of_share, IndexingUpdateOp::Add);
            let count = of_shares.dims()[0];
            of_shares = of_shares.slice_assign([0..count, index..index + 1], column);
            let through = expert.input_gradient(x, output * share);
            gradient = gradient.select_assign(0, rows, through, IndexingUpdateOp::Add);
        }
        let all = softmax(self.gate.forward(x), 1);
        let of_all = match self.normalised {
            // w = p / Σ p over the chosen; a share that is rounded to 0 has no gradient.
            true => {
                let mean = (routes.shares.clone() * of_shares.clone()).sum_dim(1);
                let chosen = routes.shares.clone().greater_elem(0.0).float();
                let sum = (all.clone() * chosen.clone()).sum_dim(1);
                (of_shares - mean) * chosen / sum
            }
            false => of_shares,
        };
        let mean = (all.clone() * of_all.clone()).sum_dim(1);
        let of_scores = all * (of_all - mean);
        Ok(gradient + of_scores.matmul(self.gate.weight.clone()))
    }
}
