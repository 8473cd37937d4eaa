//! Gradients of the loss with respect to each layer's attention output.

use transmla_core::burn::tensor::{Device, Int, Tensor, TensorData};
use transmla_core::model::{LayerRotary, RecordedAttention};
use transmla_core::{CoreError, Decoder, LayeredModel, TokenBatch};

/// Gradients of the loss with respect to the attention output of every layer, `[batch·seq, hidden]` each.
///
/// The loss is the sum over a sequence of -log p(next token). To first order, a change δ of one token's attention output
/// changes the loss by `g·δ`; the mean of `(g·δ)²` is the cost of a change of the outputs in the Fisher metric.
///
/// The model is streamed forwards and then backwards, one layer at a time. The residual stream before every layer is held for
/// the whole text, so this is meant for a few sequences. The result is on the model's device and tracks no gradients.
///
/// # Errors
/// [`CoreError::Checkpoint`] for a token outside the vocabulary or a layer that cannot be read, [`CoreError::Execution`] if
/// the device fails.
///
/// # Source
/// The Fisher information as the expected outer product of gradients: Amari, Natural gradient works efficiently in
/// learning, Neural Computation 10 (1998); here with the text's own next tokens (the empirical Fisher).
pub fn output_gradients(model: &Decoder, tokens: &TokenBatch) -> Result<Vec<Tensor<2>>, CoreError> {
    let plain = model.device().clone();
    let tracking = plain.clone().autodiff();
    let traced = model.on_device(&tracking);
    let [batch, sequence] = [tokens.batch(), tokens.sequence()];
    let rotary = LayerRotary::new(&model.config().rope, 0..sequence, &plain);
    let layers = model.config().num_hidden_layers;
    let mut states = vec![model.embed(tokens)?];
    for index in 0..layers {
        let next = model
            .layer(index)?
            .forward(states[index].clone(), rotary.of(index), None)?;
        states.push(next);
    }
    let last = states.pop().map(|state| state.flatten::<2>(0, 1));
    let Some(last) = last else { return Ok(Vec::new()) };
    let mut gradient = loss_gradient(&traced, last, tokens, &tracking)?;
    let traced_rotary = rotary.autodiff();
    let mut gradients = Vec::with_capacity(layers);
    for index in (0..layers).rev() {
        let layer = traced.layer(index)?;
        let hidden = leaf(states[index].clone().flatten::<2>(0, 1));
        let input = layer.attention_input(hidden.clone().unsqueeze());
        let attention = RecordedAttention::run(&layer.attention, input, batch, traced_rotary.of(index));
        let middle = layer.add_attention(hidden.clone(), attention.output());
        let middle = leaf(middle.detach().without_autodiff());
        gradient = pull_back(layer.feed_forward(middle.clone())?, gradient, &middle)?;
        let at_output = match &layer.attention_output_norm {
            Some(norm) => {
                let attended = leaf(attention.output().detach().without_autodiff());
                pull_back(norm.forward(attended.clone()), gradient.clone(), &attended)?
            }
            None => gradient.clone(),
        };
        gradients.push(at_output.clone());
        let loss = (attention.output() * at_output.autodiff()).sum();
        if let Some(through) = attention.backward(loss).of(&hidden) {
            gradient = gradient + through;
        }
        states.truncate(index);
    }
    gradients.reverse();
    Ok(gradients)
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
    traced: &Decoder,
    hidden: Tensor<2>,
    tokens: &TokenBatch,
    tracking: &Device,
) -> Result<Tensor<2>, CoreError> {
    let head = traced.head()?;
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
