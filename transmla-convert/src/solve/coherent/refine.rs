//! Layer-wise reconstruction: one layer's MLA tensors are trained until its output brings the residual stream closest to
//! the original's.

mod adam;

use burn::tensor::Tensor;
use faer::MatRef;
use transmla_calib::SecondMoment;
use transmla_core::CoreError;
use transmla_core::kernels::matrix_product;
use transmla_core::model::attention::{Attention, LatentAttention, QueryProjection};
use transmla_core::model::{Linear, RecordedAttention, RmsNorm, Rotary};

use self::adam::{EigenAdam, eigenbasis};
use crate::layer::stream::scalar;
use crate::solve::coherent::example::{Example, added, attended, contribution, residual_error, together};

/// Largest step, relative to the weights, of a matrix with one input; with n inputs it is less by `sqrt(n)`: the changes of
/// all inputs add up (Yang et al., Tensor Programs V, arXiv 2203.03466).
const RATE: f64 = 0.35;

/// Share of the steps in which their length grows to its largest; from there on it falls linearly to 0.
const WARM_UP: f64 = 0.1;

/// Times that the held-out error is looked at.
pub(crate) const CHECKS: usize = 8;

/// Batches that the second moment of `o_proj`'s inputs is taken from.
pub(crate) const MOMENT_BATCHES: usize = 4;

/// What a layer is refined on.
pub(crate) struct Refinement<'a> {
    /// Second moment of the layer's inputs, with or without a constant as last dimension.
    pub moment: MatRef<'a, f64>,
    /// The norm between attention and residual stream, if the model has one.
    pub norm: Option<&'a RmsNorm>,
    /// Sequences to learn from.
    pub training: &'a [Example],
    /// Sequences that pick the best step.
    pub held_out: &'a [Example],
    /// Positions with the converted model's frequencies.
    pub rotary: &'a Rotary,
    /// Number of steps.
    pub steps: usize,
    /// Sequences of a step, those that follow each other in [`Self::training`]; at most all of these.
    pub batch: usize,
}

/// A refined layer.
pub(crate) struct Refined {
    /// The best on the held-out sequences.
    pub attention: LatentAttention,
    /// Held-out error after so many steps, where it was looked at.
    pub errors: Vec<(usize, f64)>,
}

/// Minimises the error of the residual stream on the training sequences, some of them in each step; gives the parameters that
/// are best on the held-out ones. `step_done` hears of each step and of its error before it, relative as in [`residual_error`].
pub(crate) fn refine(
    start: LatentAttention,
    problem: &Refinement<'_>,
    step_done: &mut dyn FnMut(f64),
) -> Result<Refined, CoreError> {
    let Refinement { steps, norm, .. } = *problem;
    let device = start.o.weight.device();
    let hidden = start.kv_down.weight.dims()[1];
    let basis = eigenbasis(problem.moment.submatrix(0, 0, hidden, hidden), &device)?;
    let turned = |example: &Example| Example {
        inputs: matrix_product(example.inputs.clone(), basis.clone().transpose()),
        ..example.clone()
    };
    let training: Vec<Example> = problem.training.iter().flat_map(Example::sequences).collect();
    let held_out: Vec<Example> = problem.held_out.iter().map(turned).collect();
    let held_out_error = |attention: &LatentAttention| residual_error(attention, norm, &held_out, problem.rotary);

    let key_scale = start.key_scale.clone();
    let mut current = turn(start, &basis.clone().transpose());
    let mut best = (held_out_error(&current)?, current.clone());
    let mut errors = vec![(0, best.0)];
    let mut optimisers = optimisers(&current, &held_out, problem.rotary)?;
    // An attention that adds nothing leaves nothing to be relative to, and no gradient.
    let batch = problem.batch.min(training.len());
    let power = contribution(&training, norm)? * batch as f64 / training.len().max(1) as f64;
    let power = power.max(f64::from(f32::MIN_POSITIVE));
    let mut sequences = training.iter().cycle();
    let rotary = problem.rotary.clone().autodiff();
    let tracked_norm = norm.cloned().map(RmsNorm::autodiff);
    for step in 0..steps {
        let Some(example) = together(sequences.by_ref().take(batch)) else {
            break;
        };
        let example = turned(&example);
        let mut tracked = current.clone().autodiff();
        parameters(&mut tracked, &mut |tensor| *tensor = tensor.clone().require_grad());
        let leaves = collect(&mut tracked);
        let tracked = Attention::Latent(tracked);
        let attention = RecordedAttention::run(&tracked, example.inputs.autodiff(), example.batch, &rotary);
        let error = added(tracked_norm.as_ref(), attention.output()) - example.missing.autodiff();
        let loss = (error.square() * example.weight.autodiff()).sum().div_scalar(power);
        let relative = scalar(loss.clone().detach().without_autodiff())?;
        let backward = attention.backward(loss);
        let fraction = step_fraction(step, steps);
        let mut pairs = optimisers.iter_mut().zip(&leaves);
        parameters(&mut current, &mut |tensor| {
            if let Some((optimiser, leaf)) = pairs.next()
                && let Some(gradient) = backward.of(leaf)
            {
                *tensor = optimiser.step(tensor.clone(), gradient, fraction);
            }
        });
        step_done(relative);
        if (step + 1) * CHECKS % steps < CHECKS || step + 1 == steps {
            let error = held_out_error(&current)?;
            errors.push((step + 1, error));
            if error < best.0 {
                best = (error, current.clone());
            }
        }
    }
    Ok(Refined {
        attention: LatentAttention {
            // Not refined, and turned twice would be rounded.
            key_scale,
            ..turn(best.1, &basis)
        },
        errors,
    })
}

/// The attention for inputs that are turned by the transpose of `rotation`: its weights on them, times `rotation`.
fn turn(mut attention: LatentAttention, rotation: &Tensor<2>) -> LatentAttention {
    let by = |linear: &mut Linear| linear.weight = matrix_product(linear.weight.clone(), rotation.clone());
    match &mut attention.q {
        QueryProjection::Plain(q) => by(q),
        QueryProjection::Lora { down, .. } => by(down),
    }
    by(&mut attention.kv_down);
    if let Some(scale) = &mut attention.key_scale {
        by(&mut scale.k);
    }
    attention
}

/// Length of a step relative to the longest.
fn step_fraction(step: usize, steps: usize) -> f64 {
    let (step, steps) = (step as f64, steps as f64);
    let warm = (WARM_UP * steps).max(1.0);
    ((step + 1.0) / warm).min(1.0) * (1.0 - step / steps)
}

/// One for each of [`parameters`], in their order. Inputs are turned into their eigenbasis and latents are principal
/// components; what is left is the basis of `o_proj`.
fn optimisers(start: &LatentAttention, examples: &[Example], rotary: &Rotary) -> Result<Vec<EigenAdam>, CoreError> {
    let moment = attended_moment(start, examples, rotary)?;
    let attended = eigenbasis(moment.matrix(), &start.o.weight.device())?;
    let tensors = collect(&mut start.clone());
    let last = tensors.len() - 1;
    let optimiser = |(index, tensor): (usize, &Tensor<2>)| {
        let rate = RATE / (tensor.dims()[1].max(1) as f64).sqrt();
        EigenAdam::new(tensor, rate, (index == last).then(|| attended.clone()))
    };
    Ok(tensors.iter().enumerate().map(optimiser).collect())
}

/// Second moment of what `o_proj` multiplies, `[H·d_v, H·d_v]`.
fn attended_moment(
    attention: &LatentAttention,
    examples: &[Example],
    rotary: &Rotary,
) -> Result<SecondMoment, CoreError> {
    let mut moment = SecondMoment::new(attention.o.weight.dims()[1], false);
    for example in examples.iter().take(MOMENT_BATCHES) {
        moment.add(&attended(attention, example, rotary))?;
    }
    Ok(moment)
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
    if let Some(up) = &mut attention.kv_up {
        visit(&mut up.weight);
    }
    visit(&mut attention.o.weight);
}

fn collect(attention: &mut LatentAttention) -> Vec<Tensor<2>> {
    let mut tensors = Vec::new();
    parameters(attention, &mut |tensor| tensors.push(tensor.clone()));
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_and_then_fall_to_almost_nothing() {
        let lengths: Vec<f64> = (0..50).map(|step| step_fraction(step, 50)).collect();
        assert!(lengths[..5].windows(2).all(|pair| pair[0] < pair[1]));
        assert!(lengths[5..].windows(2).all(|pair| pair[0] > pair[1]));
        assert!(lengths[0] > 0.1 && lengths[4] > 0.9 && lengths[49] < 0.03);
        assert_eq!(step_fraction(0, 1), 1.0);
    }
}
