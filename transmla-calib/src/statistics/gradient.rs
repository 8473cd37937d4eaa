//! Gradients of the loss with respect to each layer's attention output.

use transmla_core::burn::tensor::{Device, Int, Tensor, TensorData};
use transmla_core::model::{DecoderLayer, FeedForwardLayer, LayerRotary, OutputHead, RecordedAttention};
use transmla_core::{CoreError, Decoder, LayeredModel, TokenBatch};

/// Gradients of the loss with respect to the attention output of every layer, `[batch·seq, hidden]` each.
///
/// As a [`GradientPass`] gives them, which see; the residual stream before every layer is held for the whole text, so this is
/// meant for a few sequences. The result is on the model's device and tracks no gradients.
///
/// # Errors
/// [`CoreError::Checkpoint`] for a token outside the vocabulary or a layer that cannot be read, [`CoreError::Execution`] if
/// the device fails.
pub fn output_gradients(model: &Decoder, tokens: &TokenBatch) -> Result<Vec<Tensor<2>>, CoreError> {
    let pass = GradientPass::new(model, tokens.sequence());
    let layers = model.config().num_hidden_layers;
    let mut states = vec![model.embed(tokens)?];
    for index in 0..layers {
        let next = pass.forward(&model.layer(index)?, index, states[index].clone())?;
        states.push(next);
    }
    let Some(last) = states.pop() else {
        return Ok(Vec::new());
    };
    let mut gradient = pass.at_the_loss(&pass.head()?, last, tokens)?;
    let mut gradients = Vec::with_capacity(layers);
    for index in (0..layers).rev() {
        let Some(state) = states.pop() else { break };
        let found = pass.backward(&pass.layer(index)?, index, state, gradient)?;
        gradients.push(found.output);
        gradient = found.input;
    }
    gradients.reverse();
    Ok(gradients)
}

/// The way of a text through a model forwards and backwards, one layer at a time, for callers that keep the residual stream
/// themselves: all of it is as large as the model is deep.
///
/// The loss is the sum over a sequence of -log p(next token). To first order, a change δ of one token's attention output
/// changes the loss by `g·δ`; the mean of `(g·δ)²` is the cost of a change of the outputs in the Fisher metric.
///
/// # Source
/// The Fisher information as the expected outer product of gradients: Amari, Natural gradient works efficiently in
/// learning, Neural Computation 10 (1998); here with the text's own next tokens (the empirical Fisher).
#[derive(Debug)]
pub struct GradientPass {
    traced: Decoder,
    tracking: Device,
    rotary: LayerRotary,
    traced_rotary: LayerRotary,
}

/// Gradients of the loss at one layer, `[batch·seq, hidden]`. They are on the model's device and track nothing.
#[derive(Debug, Clone)]
pub struct AttentionGradients {
    /// With respect to the output of its attention.
    pub output: Tensor<2>,
    /// With respect to the residual stream in front of it.
    pub input: Tensor<2>,
}

impl GradientPass {
    /// For sequences of so many tokens.
    pub fn new(model: &Decoder, sequence: usize) -> Self {
        let plain = model.device().clone();
        let tracking = plain.clone().autodiff();
        let rotary = LayerRotary::new(&model.config().rope, 0..sequence, &plain);
        Self {
            traced: model.on_device(&tracking),
            traced_rotary: rotary.clone().autodiff(),
            tracking,
            rotary,
        }
    }

    /// A layer for [`Self::backward`].
    ///
    /// # Errors
    /// It cannot be read.
    pub fn layer(&self, index: usize) -> Result<DecoderLayer, CoreError> {
        self.traced.layer(index)
    }

    /// The output head for [`Self::at_the_loss`].
    ///
    /// # Errors
    /// It cannot be read.
    pub fn head(&self) -> Result<OutputHead, CoreError> {
        self.traced.head()
    }

    /// The residual stream behind a layer of the model, given that in front of it, `[batch, seq, hidden]`.
    ///
    /// # Errors
    /// The device fails.
    pub fn forward(&self, layer: &DecoderLayer, index: usize, state: Tensor<3>) -> Result<Tensor<3>, CoreError> {
        layer.forward(state, self.rotary.of(index), None)
    }

    /// The gradient with respect to the residual stream behind the last layer, `[batch·seq, hidden]`, given that stream.
    ///
    /// # Errors
    /// The device fails.
    pub fn at_the_loss(
        &self,
        head: &OutputHead,
        state: Tensor<3>,
        tokens: &TokenBatch,
    ) -> Result<Tensor<2>, CoreError> {
        loss_gradient(head, state.flatten(0, 1), tokens, &self.tracking)
    }

    /// The gradients at a layer of [`Self::layer`], given the residual stream in front of it and the gradient with respect to
    /// the one behind it.
    ///
    /// # Errors
    /// The device fails.
    pub fn backward(
        &self,
        layer: &DecoderLayer,
        index: usize,
        state: Tensor<3>,
        behind: Tensor<2>,
    ) -> Result<AttentionGradients, CoreError> {
        let batch = state.dims()[0];
        let hidden = leaf(state.flatten::<2>(0, 1));
        let input = layer.attention_input(hidden.clone().unsqueeze());
        let attention = RecordedAttention::run(&layer.attention, input, batch, self.traced_rotary.of(index));
        let middle = layer.add_attention(hidden.clone(), attention.output());
        let middle = middle.detach().without_autodiff();
        let gradient = match &layer.mlp {
            FeedForwardLayer::Dense(_) => {
                let middle = leaf(middle);
                pull_back(layer.feed_forward(middle.clone())?, behind, &middle)?
            }
            // A graph would hold all experts of the layer.
            FeedForwardLayer::Experts(_) => layer.feed_forward_gradient(middle, behind)?,
        };
        let output = match &layer.attention_output_norm {
            Some(norm) => {
                let attended = leaf(attention.output().detach().without_autodiff());
                pull_back(norm.forward(attended.clone()), gradient.clone(), &attended)?
            }
            None => gradient.clone(),
        };
        let loss = (attention.output() * output.clone().autodiff()).sum();
        let input = match attention.backward(loss).of(&hidden) {
            Some(through) => gradient + through,
            None => gradient,
        };
        Ok(AttentionGradients { output, input })
    }
}

/// The tensor as a leaf whose gradient is wanted.
fn leaf(tensor: Tensor<2>) -> Tensor<2> {
    tensor.autodiff().require_grad()
}

/// The gradient of `Σ output·gradient` with respect to `leaf`.
fn pull_back(output: Tensor<2>, gradient: Tensor<2>, leaf: &Tensor<2>) -> Result<Tensor<2>, CoreError> {
    let gradients = (output * gradient.autodiff()).sum().backward();
    leaf.grad(&gradients)
        .map(Tensor::without_autodiff)
        .ok_or_else(|| CoreError::Execution("a layer's output does not depend on its input".into()))
}

/// Number of tokens whose logits are held at once.
const ROWS: usize = 256;

/// The gradient of the loss with respect to the residual stream after the last layer, both `[batch·seq, hidden]`.
fn loss_gradient(
    head: &OutputHead,
    hidden: Tensor<2>,
    tokens: &TokenBatch,
    tracking: &Device,
) -> Result<Tensor<2>, CoreError> {
    let (rows, sequence) = (tokens.tokens(), tokens.sequence());
    // The last token of a sequence predicts nothing: its target has weight 0.
    let is_last = |row: usize| (row + 1).is_multiple_of(sequence);
    let mut parts = Vec::new();
    for start in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - start);
        let range = start..start + count;
        let target = |row: usize| if is_last(row) { 0 } else { tokens.ids()[row + 1] };
        let next: Vec<i64> = range.clone().map(target).collect();
        let weight: Vec<f32> = range.map(|row| f32::from(u8::from(!is_last(row)))).collect();
        let next = Tensor::<2, Int>::from_data(TensorData::new(next, [count, 1]), tracking);
        let weight = Tensor::<2>::from_data(TensorData::new(weight, [count, 1]), tracking);
        let part = leaf(hidden.clone().narrow(0, start, count));
        let logits = head.logits(part.clone());
        let picked = logits.clone().gather(1, next);
        let largest = logits.clone().detach().max_dim(1);
        let normaliser = (logits - largest.clone()).exp().sum_dim(1).log() + largest;
        let gradients = ((normaliser - picked) * weight).sum().backward();
        let gradient = part
            .grad(&gradients)
            .ok_or_else(|| CoreError::Execution("the loss does not depend on the last layer".into()))?;
        parts.push(gradient.without_autodiff());
    }
    Ok(Tensor::cat(parts, 0))
}
