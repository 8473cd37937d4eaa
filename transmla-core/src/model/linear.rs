//! Linear maps and RMSNorm.

use burn::tensor::{Device, Int, Tensor, TensorData};
use transmla_checkpoint::{Checkpoint, StorageDtype};

use super::formats::round_to;
use crate::error::CoreError;
use crate::kernels::{matrix_product, skinny_product};
use crate::read_tensor::ReadTensor;

/// An affine map with the weight in the layout of the checkpoint, `[out, in]`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Weight, `[out, in]`.
    pub weight: Tensor<2>,
    /// Bias, `[out]`.
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// A map without bias.
    pub fn new(weight: Tensor<2>) -> Self {
        Self { weight, bias: None }
    }

    /// Reads `{prefix}.weight` and, if there is one, `{prefix}.bias`.
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        [out, input]: [usize; 2],
        device: &Device,
    ) -> Result<Self, CoreError> {
        let bias = format!("{prefix}.bias");
        Ok(Self {
            weight: checkpoint.matrix(&format!("{prefix}.weight"), [out, input], device)?,
            bias: match checkpoint.contains(&bias) {
                true => Some(checkpoint.vector(&bias, out, device)?),
                false => None,
            },
        })
    }

    /// The same map as a constant of an autodiff graph.
    pub fn autodiff(self) -> Self {
        Self {
            weight: self.weight.autodiff(),
            bias: self.bias.map(Tensor::autodiff),
        }
    }

    /// The same map with tensors that no autodiff graph knows.
    pub(crate) fn without_autodiff(self) -> Self {
        Self {
            weight: self.weight.without_autodiff(),
            bias: self.bias.map(Tensor::without_autodiff),
        }
    }

    /// `x Wᵀ + b`: `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = skinny_product(&x, &self.weight).unwrap_or_else(|| matrix_product(x, self.weight.clone().transpose()));
        match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        }
    }

    /// The gradient of a loss with respect to the input, given that with respect to the output: `[rows, out]` to `[rows, in]`.
    pub(super) fn input_gradient(&self, output: Tensor<2>) -> Tensor<2> {
        matrix_product(output, self.weight.clone())
    }

    /// The gradient with respect to the weight, and that with respect to the bias, `[out, 1]`, if there is one.
    pub(super) fn own_gradients(&self, input: Tensor<2>, output: Tensor<2>) -> Vec<Tensor<2>> {
        let bias = self.bias.as_ref().map(|_| output.clone().sum_dim(0).transpose());
        let weight = matrix_product(output.transpose(), input);
        [weight].into_iter().chain(bias).collect()
    }

    /// The map with its outputs times a factor.
    pub(crate) fn times(self, factor: f64) -> Self {
        if factor == 1.0 {
            return self;
        }
        Self {
            weight: self.weight.mul_scalar(factor),
            bias: self.bias.map(|bias| bias.mul_scalar(factor)),
        }
    }

    /// The map with some of its inputs, in this order.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn select_inputs(self, order: &[usize]) -> Self {
        Self {
            weight: self.weight.clone().select(1, indices(order, &self.weight.device())),
            bias: self.bias,
        }
    }

    /// The map with some of its outputs, or all, in this order.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn select_outputs(self, order: &[usize]) -> Self {
        let index = indices(order, &self.weight.device());
        Self {
            weight: self.weight.select(0, index.clone()),
            bias: self.bias.map(|bias| bias.select(0, index)),
        }
    }
}

fn indices(order: &[usize], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i64> = order.iter().map(|i| *i as i64).collect();
    Tensor::from_data(TensorData::new(ids, [order.len()]), device)
}

/// Root mean square normalisation (Zhang and Sennrich, arXiv 1910.07467, equation 4).
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// Weight, `[width]`.
    pub weight: Tensor<1>,
    /// Added to the mean square.
    pub eps: f64,
    /// The number format that inputs and outputs are rounded to, as in an engine that keeps activations in it.
    pub rounding: Option<StorageDtype>,
}

impl RmsNorm {
    /// A norm in single precision.
    pub fn new(weight: Tensor<1>, eps: f64) -> Self {
        Self {
            weight,
            eps,
            rounding: None,
        }
    }

    pub(crate) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        width: usize,
        eps: f64,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let weight = checkpoint.vector(&format!("{prefix}.weight"), width, device)?;
        Ok(Self::new(weight, eps))
    }

    /// The same norm as a constant of an autodiff graph.
    pub fn autodiff(self) -> Self {
        Self {
            weight: self.weight.autodiff(),
            ..self
        }
    }

    /// The same norm with a weight that no autodiff graph knows.
    pub(crate) fn without_autodiff(self) -> Self {
        Self {
            weight: self.weight.without_autodiff(),
            ..self
        }
    }

    /// The same with one added to its weight.
    pub(crate) fn one_plus(self) -> Self {
        Self {
            weight: self.weight.add_scalar(1.0),
            ..self
        }
    }

    /// Normalises each row of `[rows, width]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.rounded(x);
        let inverse = x.clone().square().mean_dim(1).add_scalar(self.eps).sqrt().recip();
        let normalised = self.rounded(x * inverse);
        self.rounded(normalised * self.weight.clone().unsqueeze())
    }

    /// The gradient of a loss with respect to an input `[rows, width]`, given that at its output. Rounding is taken for none.
    pub fn input_gradient(&self, x: Tensor<2>, output: Tensor<2>) -> Tensor<2> {
        let inverse = x.clone().square().mean_dim(1).add_scalar(self.eps).sqrt().recip();
        let scaled = output * self.weight.clone().unsqueeze();
        let along = (scaled.clone() * x.clone()).mean_dim(1) * inverse.clone().square();
        (scaled - x * along) * inverse
    }

    fn rounded(&self, x: Tensor<2>) -> Tensor<2> {
        match self.rounding {
            None => x,
            Some(dtype) => round_to(x, dtype),
        }
    }
}
