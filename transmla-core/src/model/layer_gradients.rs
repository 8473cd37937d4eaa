//! The gradient of a loss through one layer: with respect to its input and to its projections.

use burn::tensor::Tensor;

use super::attention::kind::Attention;
use super::backward::RecordedAttention;
use super::feed_forward::FeedForwardLayer;
use super::layer::DecoderLayer;
use super::linear::RmsNorm;
use super::parameters::Projections;
use super::rotary::Rotary;
use crate::error::CoreError;

/// What [`DecoderLayer::gradients`] gives; nothing in it is recorded.
#[derive(Debug, Clone)]
pub struct LayerGradients {
    /// With respect to the residual stream in front of the layer, `[batch·seq, hidden]`.
    pub hidden: Tensor<2>,
    /// With respect to the projections, in the order and of the shapes in which [`DecoderLayer::map_projections`] shows them.
    pub projections: Vec<Tensor<2>>,
}

impl DecoderLayer {
    /// The gradient of a loss through this layer, given that with respect to the residual stream behind it.
    ///
    /// The layer is computed again from its input, so that of a whole model nothing need be kept but the residual stream in
    /// front of every layer. Projections of attention are recorded by burn's autodiff, its softmax goes through the kernel, and
    /// what has no weights to learn is written out.
    ///
    /// # Shapes
    /// `hidden`: `[batch, seq, hidden]`, `output`: `[batch·seq, hidden]`; `rotary` as for a forward pass.
    ///
    /// # Errors
    /// [`CoreError::NoGradients`] for a layer whose attention is not latent; [`CoreError::Execution`] if the device fails.
    pub fn gradients(
        &self,
        which: Projections,
        hidden: Tensor<3>,
        rotary: &Rotary,
        output: Tensor<2>,
    ) -> Result<LayerGradients, CoreError> {
        let batch = hidden.dims()[0];
        let (attention, leaves) = recorded(&self.attention)?;
        let input = leaf(self.attention_input(hidden.clone()));
        let hidden = hidden.flatten::<2>(0, 1);
        let recorded = RecordedAttention::run(&attention, input.clone(), batch, &rotary.clone().autodiff());
        let attended = recorded.output().detach().without_autodiff();
        let middle = self.add_attention(hidden.clone(), attended.clone());
        let (through, of_mlp) = self.through_feed_forward(which, &middle, output.clone())?;
        let middle_gradient = output + through;

        let at_attention = before(self.attention_output_norm.as_ref(), attended, middle_gradient.clone());
        let loss = (recorded.output() * at_attention.autodiff()).sum();
        let backward = recorded.backward(loss);
        let of = |leaf: &Tensor<2>| {
            let plain = || leaf.clone().detach().without_autodiff().zeros_like();
            backward.of(leaf).unwrap_or_else(plain)
        };
        let mut projections: Vec<Tensor<2>> = leaves.iter().map(of).collect();
        projections.extend(of_mlp);
        Ok(LayerGradients {
            hidden: middle_gradient + before(self.input_norm.as_ref(), hidden, of(&input)),
            projections,
        })
    }

    /// The gradient of a loss with respect to the residual stream in front of the second half of the layer, given that behind it, both
    /// `[rows, hidden]`. Weights may be those of an autodiff device; nothing is recorded. Experts are in memory one at a time.
    ///
    /// # Errors
    /// An expert cannot be read; [`CoreError::Execution`] if the device fails.
    pub fn feed_forward_gradient(&self, middle: Tensor<2>, output: Tensor<2>) -> Result<Tensor<2>, CoreError> {
        let plain = |norm: &Option<RmsNorm>| norm.clone().map(RmsNorm::without_autodiff);
        let half = Self {
            feed_forward_norm: plain(&self.feed_forward_norm),
            mlp: self.mlp.clone().without_autodiff()?,
            feed_forward_output_norm: plain(&self.feed_forward_output_norm),
            ..self.clone()
        };
        let (through, _) = half.through_feed_forward(Projections::Attention, &middle, output.clone())?;
        Ok(output + through)
    }

    /// The gradient at the residual stream in front of the second half of the layer, without what goes past it, and those of the
    /// half's projections, if they are wanted.
    fn through_feed_forward(
        &self,
        which: Projections,
        middle: &Tensor<2>,
        output: Tensor<2>,
    ) -> Result<(Tensor<2>, Vec<Tensor<2>>), CoreError> {
        let input = self.feed_forward_input(middle.clone());
        let output = match &self.feed_forward_output_norm {
            Some(norm) => norm.input_gradient(self.mlp.forward(input.clone())?, output),
            None => output,
        };
        let (gradient, of_mlp) = match (which, &self.mlp) {
            (Projections::Attention, mlp) => (mlp.input_gradient(input, output)?, Vec::new()),
            (Projections::All, FeedForwardLayer::Dense(mlp)) => mlp.gradients(input, output),
            (Projections::All, mlp) => recorded_feed_forward(mlp, input, output)?,
        };
        let gradient = before(self.feed_forward_norm.as_ref(), middle.clone(), gradient);
        Ok((gradient, of_mlp))
    }
}

/// The gradient in front of a norm, if there is one, given its input and the gradient behind it, all `[rows, hidden]`.
fn before(norm: Option<&RmsNorm>, input: Tensor<2>, gradient: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.input_gradient(input, gradient),
        None => gradient,
    }
}

/// An attention whose projections are leaves of an autodiff graph, and the leaves.
fn recorded(attention: &Attention) -> Result<(Attention, Vec<Tensor<2>>), CoreError> {
    let Attention::Latent(attention) = attention else {
        return Err(CoreError::NoGradients {
            problem: "gradients of projections are taken of layers with latent attention alone".into(),
        });
    };
    let mut leaves = Vec::new();
    let attention = attention.clone().autodiff().map_projections(&mut |_, tensor| {
        let leaf = tensor.require_grad();
        leaves.push(leaf.clone());
        leaf
    });
    Ok((Attention::Latent(attention), leaves))
}

/// With autodiff: what has weights to learn, and no form of its own.
fn recorded_feed_forward(
    mlp: &FeedForwardLayer,
    input: Tensor<2>,
    output: Tensor<2>,
) -> Result<(Tensor<2>, Vec<Tensor<2>>), CoreError> {
    let mut leaves = Vec::new();
    let mlp = mlp.clone().autodiff()?.map_projections(&mut |_, tensor| {
        let leaf = tensor.require_grad();
        leaves.push(leaf.clone());
        leaf
    })?;
    let input = leaf(input);
    let loss = (mlp.forward(input.clone())? * output.autodiff()).sum();
    let gradients = loss.backward();
    let of = |leaf: &Tensor<2>| match leaf.grad(&gradients) {
        Some(gradient) => gradient.without_autodiff(),
        // An expert that no token went to.
        None => leaf.clone().detach().without_autodiff().zeros_like(),
    };
    Ok((of(&input), leaves.iter().map(of).collect()))
}

/// The tensor as a leaf whose gradient is wanted.
fn leaf(tensor: Tensor<2>) -> Tensor<2> {
    tensor.autodiff().require_grad()
}
