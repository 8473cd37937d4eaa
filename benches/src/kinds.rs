//! The kinds of problem, each with its data.

mod attend;
mod attention;
mod copy;
mod decode;
mod eigen;
mod evaluate;
mod lowrank;
mod matmul;
mod moment;
mod rope;
mod score;

use burn::tensor::Device;

use crate::case::Case;
use crate::catalogue::{Kind, Problem};

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
        Kind::Score { network, questions } => score::build(network, questions),
    }
}

/// Whether a device has a strategy.
pub(crate) fn has(problem: &Problem, strategy: usize, device: &Device) -> bool {
    match problem.kind {
        Kind::Attend { shape, .. } => attend::has(shape, strategy, device),
        _ => true,
    }
}
