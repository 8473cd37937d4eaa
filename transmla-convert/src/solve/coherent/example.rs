//! What a layer's attention is given and what it should give, on calibration text.

use burn::tensor::Tensor;
use transmla_core::kernels::attend;
use transmla_core::model::attention::{Attention, LatentAttention};
use transmla_core::model::{RmsNorm, Rotary};
use transmla_core::{CoreError, DecoderLayer};

use crate::layer::stream::{CalibrationStream, scalar};

/// Inputs of a layer's attention for some sequences, and what comes of them.
#[derive(Clone)]
pub(crate) struct Example {
    /// `[batch·seq, hidden]`, as the converted layers before produce them.
    pub inputs: Tensor<2>,
    /// `[batch·seq, hidden]`, what the original attention gives to the original inputs.
    pub output: Tensor<2>,
    /// `[batch·seq, hidden]`, what takes the converted model's residual stream to where the original's is behind attention.
    pub missing: Tensor<2>,
    /// `[batch·seq, 1]`: one over the mean square of the original's residual stream behind attention. The norms that read
    /// it divide by the root, so an error counts relative to it; unweighted, a few sink tokens would be all that is seen.
    pub weight: Tensor<2>,
    /// Gradients of the loss at the original's output, if they were taken for these sequences.
    pub gradients: Option<Tensor<2>>,
    /// Number of sequences.
    pub batch: usize,
}

impl Example {
    /// Each sequence alone.
    pub fn sequences(&self) -> Vec<Self> {
        let length = self.inputs.dims()[0] / self.batch.max(1);
        let one = |index: usize| {
            let part = |all: &Tensor<2>| all.clone().narrow(0, index * length, length);
            Self {
                inputs: part(&self.inputs),
                output: part(&self.output),
                missing: part(&self.missing),
                weight: part(&self.weight),
                gradients: self.gradients.as_ref().map(part),
                batch: 1,
            }
        };
        (0..self.batch).map(one).collect()
    }
}

/// Sequences of one length as a batch, without gradients; nothing if there are none.
pub(crate) fn together<'a>(sequences: impl Iterator<Item = &'a Example>) -> Option<Example> {
    let parts: Vec<&Example> = sequences.collect();
    let first = *parts.first()?;
    let all = |part: &dyn Fn(&Example) -> &Tensor<2>| match parts.len() {
        1 => part(first).clone(),
        _ => Tensor::cat(parts.iter().map(|&example| part(example).clone()).collect(), 0),
    };
    Some(Example {
        inputs: all(&|example| &example.inputs),
        output: all(&|example| &example.output),
        missing: all(&|example| &example.missing),
        weight: all(&|example| &example.weight),
        gradients: None,
        batch: parts.iter().map(|example| example.batch).sum(),
    })
}

/// The calibration text in front of one layer, by batch.
pub(crate) fn examples(
    student: &CalibrationStream,
    teacher: &CalibrationStream,
    layer: &DecoderLayer,
    gradients: impl Iterator<Item = Option<Tensor<2>>>,
) -> Vec<Example> {
    gradients
        .enumerate()
        .map(|(index, gradients)| {
            let (inputs, batch) = student.input(index, layer);
            let (original, _) = teacher.input(index, layer);
            let output = layer.attention.forward(original, batch, teacher.rotary(), None);
            let behind = layer.add_attention(teacher.state(index), output.clone());
            let power = behind.clone().square().mean_dim(1);
            Example {
                inputs,
                output,
                missing: behind - student.state(index),
                weight: power.clamp_min(f64::from(f32::MIN_POSITIVE)).recip(),
                gradients,
                batch,
            }
        })
        .collect()
}

/// Share of what an error in a random direction costs below which the metric does not see the output.
const BLIND: f64 = 1e-3;

/// What the error of an attention's output costs: in the metric of the loss's gradients where they are known, otherwise
/// squared; relative to the output's own size in the same metric. A norm behind attention makes the metric blind to the
/// output itself; there it is relative to an error of the output's size in a random direction.
pub(crate) fn output_cost(
    attention: &LatentAttention,
    examples: &[Example],
    rotary: &Rotary,
) -> Result<f64, CoreError> {
    let (error, power) = output_error(attention, examples, rotary)?;
    Ok(error / power.max(f64::MIN_POSITIVE))
}

/// What the error of an attention's output costs, and what it is relative to, as in [`output_cost`].
pub(crate) fn output_error(
    attention: &LatentAttention,
    examples: &[Example],
    rotary: &Rotary,
) -> Result<(f64, f64), CoreError> {
    let attention = Attention::Latent(attention.clone());
    let (mut error, mut power, mut random) = (0.0, 0.0, 0.0);
    for example in examples {
        let output = attention.forward(example.inputs.clone(), example.batch, rotary, None);
        let difference = output - example.output.clone();
        let cost = |x: Tensor<2>| match &example.gradients {
            Some(gradients) => (x * gradients.clone()).sum_dim(1).square().sum(),
            None => x.square().sum(),
        };
        error += scalar(cost(difference))?;
        power += scalar(cost(example.output.clone()))?;
        if let Some(gradients) = &example.gradients {
            let lengths = |x: &Tensor<2>| x.clone().square().mean_dim(1);
            let width = gradients.dims()[1] as f64;
            random += scalar((lengths(&example.output) * lengths(gradients)).sum())? * width;
        }
    }
    Ok((error, if power < BLIND * random { random } else { power }))
}

/// Squared distance of the residual stream behind attention to the original's, by [`Example::weight`], relative to the
/// size of the original attention's contribution. `norm` is the one behind attention, if the model has it.
pub(crate) fn residual_error(
    attention: &LatentAttention,
    norm: Option<&RmsNorm>,
    examples: &[Example],
    rotary: &Rotary,
) -> Result<f64, CoreError> {
    let attention = Attention::Latent(attention.clone());
    let mut error = 0.0;
    for example in examples {
        let output = attention.forward(example.inputs.clone(), example.batch, rotary, None);
        let difference = added(norm, output) - example.missing.clone();
        error += scalar((difference.square() * example.weight.clone()).sum())?;
    }
    Ok(error / contribution(examples, norm)?)
}

/// A [`residual_error`] as a distance relative to the residual stream's own length, root mean square over tokens.
pub(crate) fn stream_error(residual: f64, examples: &[Example], norm: Option<&RmsNorm>) -> Result<f64, CoreError> {
    // One over the mean square of the stream is the weight.
    let numbers: usize = examples
        .iter()
        .map(|example| example.output.shape().num_elements())
        .sum();
    Ok((residual * contribution(examples, norm)? / numbers.max(1) as f64).sqrt())
}

/// What `o_proj` multiplies, `[batch·seq, H·d_v]`: the values that the heads attend to, side by side.
pub(crate) fn attended(attention: &LatentAttention, example: &Example, rotary: &Rotary) -> Tensor<2> {
    let attention = Attention::Latent(attention.clone());
    let projected = attention.project(example.inputs.clone(), example.batch, rotary);
    let attended = attend(projected.q, projected.k, projected.v, attention.parameters());
    let [batch, heads, sequence, value] = attended.dims();
    attended.swap_dims(1, 2).reshape([batch * sequence, heads * value])
}

/// Weighted size of what the original attention adds to the residual stream, summed over the examples.
pub(crate) fn contribution(examples: &[Example], norm: Option<&RmsNorm>) -> Result<f64, CoreError> {
    let mut sum = 0.0;
    for example in examples {
        let added = added(norm, example.output.clone());
        sum += scalar((added.square() * example.weight.clone()).sum())?;
    }
    Ok(sum.max(f64::MIN_POSITIVE))
}

/// What an attention's output adds to the residual stream.
pub(crate) fn added(norm: Option<&RmsNorm>, output: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(output),
        None => output,
    }
}
