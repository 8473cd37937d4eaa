//! A problem with its data.

use burn::tensor::{Device, Tensor};

use crate::catalogue::{Kind, Problem};
use crate::{attend, attention, copy, decode, eigen, evaluate, lowrank, matmul, moment, rope};

/// One run of a strategy, with everything that is not to be timed done.
pub(crate) type Timed<'a> = Box<dyn FnOnce() + 'a>;

/// A problem with its data.
pub(crate) trait Case {
    /// Compares every strategy with the plain reference, or a single one with what it must satisfy.
    ///
    /// # Errors
    /// What differs, and by how much.
    fn check(&self) -> Result<(), String>;

    /// One run of the strategy with this index in the catalogue.
    fn prepare(&self, strategy: usize) -> Timed<'_>;
}

/// Makes the data of a problem on a device.
pub(crate) fn build(problem: &Problem, device: &Device) -> Box<dyn Case> {
    match problem.kind {
        Kind::Copy { numbers } => copy::build(numbers, device),
        Kind::Attend { shape, context } => attend::build(shape, context, device),
        Kind::Matmul { size, precision } => matmul::build(size, precision, device),
        Kind::Moment { rows, width } => moment::build(rows, width),
        Kind::Prefill {
            heads,
            width,
            tokens,
            window,
        } => attention::build(heads, width, tokens, window),
        Kind::Decode {
            heads,
            context,
            latents,
        } => decode::build(heads, context, &latents, &problem.strategies, device),
        Kind::Rope {
            heads,
            freqfold,
            rope_dim,
        } => rope::build(heads, freqfold, rope_dim),
        Kind::LowRank { heads, rope_dim, rank } => lowrank::build(heads, rope_dim, rank),
        Kind::Eigen { size } => eigen::build(size),
        Kind::Evaluate {
            network,
            windows,
            sequence,
        } => evaluate::build(network, windows, sequence),
    }
}

/// Whether a device has a strategy.
pub(crate) fn has(problem: &Problem, strategy: usize, device: &Device) -> bool {
    match problem.kind {
        Kind::Attend { shape, .. } => attend::has(shape, strategy, device),
        _ => true,
    }
}

/// Compares two results: the largest difference must be small beside the largest value.
pub(crate) fn compare<const D: usize>(
    what: &str,
    found: &Tensor<D>,
    expected: &Tensor<D>,
    tolerance: f64,
) -> Result<(), String> {
    let difference: f32 = (found.clone() - expected.clone()).abs().max().into_scalar();
    let scale: f32 = expected.clone().abs().max().into_scalar();
    within(what, f64::from(difference), f64::from(scale), tolerance)
}

/// Whether a difference is at most `tolerance` of a scale; a NaN never is.
pub(crate) fn within(what: &str, difference: f64, scale: f64, tolerance: f64) -> Result<(), String> {
    if difference <= tolerance * scale && scale > 0.0 {
        return Ok(());
    }
    Err(format!(
        "{what}: differs by {difference:.2e} where values reach {scale:.2e}"
    ))
}
