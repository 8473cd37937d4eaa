//! Layer-wise reconstruction: Adam on one layer's MLA tensors until its attention output is closest to the original's.

use burn::tensor::Tensor;
use transmla_core::CoreError;
use transmla_core::model::attention::{Attention, LatentAttention, QueryProjection};
use transmla_core::model::{RecordedAttention, Rotary};

use crate::coherent::{Example, output_error, scalar};

/// How long and how fast a layer is refined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Refinement {
    pub steps: usize,
    /// Step of each tensor relative to its root mean square, decaying linearly to 0.
    pub rate: f64,
}

/// Betas of Adam (Kingma and Ba, arXiv 1412.6980).
const BETAS: (f64, f64) = (0.9, 0.99);

/// Times that the held-out error is looked at.
const CHECKS: usize = 8;

/// Minimises the squared error of the attention output on `training`; gives the parameters that are best on `held_out`
/// and their error there.
pub(crate) fn refine(
    start: LatentAttention,
    start_error: f64,
    training: &[Example],
    held_out: &[Example],
    rotary: &Rotary,
    plan: Refinement,
    step_done: &mut dyn FnMut(),
) -> Result<(LatentAttention, f64), CoreError> {
    let mut best = (start.clone(), start_error);
    let mut current = start;
    let mut states = collect(&mut current)
        .iter()
        .map(|tensor| Adam::new(tensor, plan.rate))
        .collect::<Result<Vec<_>, _>>()?;
    let power = mean_power(training)?;
    let traced_rotary = rotary.clone().autodiff();
    for step in 0..plan.steps {
        let example = &training[step % training.len()];
        let mut tracked = current.clone().autodiff();
        parameters(&mut tracked, &mut |tensor| *tensor = tensor.clone().require_grad());
        let leaves = collect(&mut tracked);
        let tracked = Attention::Latent(tracked);
        let inputs = example.inputs.clone().autodiff();
        let attention = RecordedAttention::run(&tracked, inputs, example.batch, &traced_rotary);
        let error = attention.output() - example.target.clone().autodiff();
        let backward = attention.backward(error.square().mean().div_scalar(power));
        let fraction = 1.0 - step as f64 / plan.steps as f64;
        let mut optimisers = states.iter_mut().zip(&leaves);
        parameters(&mut current, &mut |tensor| {
            if let Some((state, leaf)) = optimisers.next()
                && let Some(gradient) = backward.of(leaf)
            {
                *tensor = state.step(tensor.clone(), gradient, step, fraction);
            }
        });
        step_done();
        if (step + 1) * CHECKS % plan.steps < CHECKS || step + 1 == plan.steps {
            let error = output_error(&current, held_out, rotary)?;
            if error < best.1 {
                best = (current.clone(), error);
            }
        }
    }
    Ok(best)
}

fn mean_power(examples: &[Example]) -> Result<f64, CoreError> {
    let mut sum = 0.0;
    for example in examples {
        sum += scalar(example.target.clone().square().mean())?;
    }
    Ok((sum / examples.len().max(1) as f64).max(f64::MIN_POSITIVE))
}

/// Shows every weight matrix that may be refined, always in the same order.
fn parameters(attention: &mut LatentAttention, visit: &mut dyn FnMut(&mut Tensor<2>)) {
    match &mut attention.q {
        QueryProjection::Plain(q) => visit(&mut q.weight),
        QueryProjection::Lora { down, up, .. } => {
            visit(&mut down.weight);
            visit(&mut up.weight);
        }
    }
    visit(&mut attention.kv_down.weight);
    visit(&mut attention.kv_up.weight);
    visit(&mut attention.o.weight);
}

fn collect(attention: &mut LatentAttention) -> Vec<Tensor<2>> {
    let mut tensors = Vec::new();
    parameters(attention, &mut |tensor| tensors.push(tensor.clone()));
    tensors
}

/// Adam on one tensor, its step relative to the tensor's own size at the start.
struct Adam {
    first: Tensor<2>,
    second: Tensor<2>,
    rate: f64,
}

impl Adam {
    fn new(tensor: &Tensor<2>, rate: f64) -> Result<Self, CoreError> {
        let rms = scalar(tensor.clone().square().mean())?.sqrt();
        Ok(Self {
            first: tensor.zeros_like(),
            second: tensor.zeros_like(),
            rate: rate * rms,
        })
    }

    fn step(&mut self, tensor: Tensor<2>, gradient: Tensor<2>, step: usize, fraction: f64) -> Tensor<2> {
        let (b1, b2) = BETAS;
        self.first = self.first.clone().mul_scalar(b1) + gradient.clone().mul_scalar(1.0 - b1);
        self.second = self.second.clone().mul_scalar(b2) + gradient.square().mul_scalar(1.0 - b2);
        let count = (step + 1) as i32;
        let first = self.first.clone().div_scalar(1.0 - b1.powi(count));
        let second = self.second.clone().div_scalar(1.0 - b2.powi(count));
        tensor - (first / second.sqrt().add_scalar(1e-12)).mul_scalar(self.rate * fraction)
    }
}
