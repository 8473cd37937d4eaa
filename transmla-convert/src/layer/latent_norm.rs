//! RMSNorms on the latents: none, one that keeps the scale, or one that is the identity.
//!
//! Stock code computes `w·y / sqrt(mean(y²) + eps)`. With `y = a·c`, `a = sqrt(eps)/w` and a `w` that is large against `c`, the root
//! is almost `sqrt(eps)` and `c` comes out; of a token with `m = mean(c²)` the share `1/sqrt(1 + m/w²)`. The larger `w`, the
//! nearer this is to 1, and the smaller `y`: half precision has all its digits down to 6e-5 and none below 6e-8. So `w` is as
//! small as the norm's error permits, and the mean share is taken back, so that only its variation is left.

use burn::tensor::{Tensor, TensorData};
use transmla_core::config::LatentStyle;
use transmla_core::model::Linear;
use transmla_core::model::attention::{LatentAttention, QueryProjection};
use transmla_core::{CoreError, DecoderLayer, StorageDtype, host_values};

use crate::layer::input_scale::{Reader, input_scale};
use crate::layer::rounding::{SUBNORMAL_ERROR, power_of_two};
use crate::layer::stream::{CalibrationStream, scalar};
use crate::spec::plan::Plan;
use crate::spec::plan::STOCK_EPS;

/// What becomes of a latent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LatentNorm {
    /// What each row of the projection in front of the norm is multiplied by.
    pub rows: Vec<f64>,
    /// The norm's weight.
    pub weight: Vec<f64>,
    /// What each column of the projection behind the norm is multiplied by.
    pub columns: Vec<f64>,
}

/// The norms of the key/value latent and of the query latent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LatentNorms {
    pub kv: LatentNorm,
    pub q: Option<LatentNorm>,
    /// What the layer's `input_layernorm` is multiplied by on top, and the projections that read it divided by.
    pub input_scale: f64,
}

/// How a file's norms are computed and stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NormForm {
    /// Epsilon of the latent norms.
    pub eps: f64,
    /// Most of a latent that its norm may take away on average.
    pub largest_error: f64,
    /// Whether the norms' weights have the digits to take the mean of that back.
    pub exact_weights: bool,
}

impl NormForm {
    /// For transformers, whose latent norms have an epsilon of their own.
    pub(crate) fn stock(dtype: StorageDtype) -> Self {
        Self {
            eps: STOCK_EPS,
            largest_error: LARGEST_ERROR,
            exact_weights: dtype == StorageDtype::F32,
        }
    }

    /// For a file with one epsilon for all norms, which is as large as its residual stream permits, and norms in f32.
    pub(crate) fn of_file(eps: f64) -> Self {
        Self {
            eps,
            largest_error: (ORDINARY * ORDINARY / (2.0 * eps)).clamp(1e-6, LARGEST_ERROR),
            exact_weights: true,
        }
    }
}

/// Most of a latent that the identity may cost where it cannot be had for nothing.
const LARGEST_ERROR: f64 = 1e-3;

/// Root mean square of a latent that no 16-bit format takes digits of.
const ORDINARY: f64 = 1e-3;

/// Weights of identity norms are powers of two up to this exponent.
const LARGEST_EXPONENT: i32 = 24;

/// The norms that a plan asks for, or nothing.
pub(crate) fn latent_norms(
    plan: &Plan,
    attention: &LatentAttention,
    stream: &CalibrationStream,
    layer: &DecoderLayer,
) -> Result<Option<LatentNorms>, CoreError> {
    if plan.recipe().use_qkv_norm {
        let q = match &attention.q {
            QueryProjection::Plain(_) => None,
            QueryProjection::Lora { down, .. } => Some(typical_norm(down, stream, layer)?),
        };
        return Ok(Some(LatentNorms {
            kv: typical_norm(&latent_rows(attention), stream, layer)?,
            q,
            input_scale: 1.0,
        }));
    }
    match plan.style() {
        LatentStyle::Family => Ok(None),
        LatentStyle::DeepseekV3 => {
            identity_norms(attention, &NormForm::stock(plan.recipe().dtype), stream, layer).map(Some)
        }
    }
}

/// The rows of `kv_a_proj_with_mqa` that make the latent.
pub(crate) fn latent_rows(attention: &LatentAttention) -> Linear {
    let rank = attention.shape.kv_lora_rank;
    let down = &attention.kv_down;
    Linear {
        weight: down.weight.clone().narrow(0, 0, rank),
        bias: down.bias.clone().map(|bias| bias.narrow(0, 0, rank)),
    }
}

/// Norms that change nothing, as far as their form permits, for latents as the text of a stream has them in front of `layer`.
///
/// The latents' channels are rescaled by powers of two, so that each is as large before its norm as behind it: no other scales
/// lose less to rounding that is the same for all of them.
pub(crate) fn identity_norms(
    attention: &LatentAttention,
    form: &NormForm,
    stream: &CalibrationStream,
    layer: &DecoderLayer,
) -> Result<LatentNorms, CoreError> {
    let (rank, down) = (attention.shape.kv_lora_rank, &attention.kv_down);
    let Some(up) = &attention.kv_up else {
        let problem = "a tied latent has no kv_b_proj, which would undo what is done to its norm";
        return Err(CoreError::Execution(problem.into()));
    };
    let kv = identity(&latent_rows(attention), up, form, stream, layer)?;
    let mut readers = vec![
        Reader::new(down, 0..rank, Some(&kv.rows))?,
        Reader::new(down, rank..down.weight.dims()[0], None)?,
    ];
    let q = match &attention.q {
        QueryProjection::Plain(queries) => {
            readers.push(Reader::new(queries, 0..queries.weight.dims()[0], None)?);
            None
        }
        QueryProjection::Lora { down, up, .. } => {
            let norm = identity(down, up, form, stream, layer)?;
            readers.push(Reader::new(down, 0..down.weight.dims()[0], Some(&norm.rows))?);
            Some(norm)
        }
    };
    Ok(LatentNorms {
        kv,
        q,
        input_scale: input_scale(&readers, stream, layer)?,
    })
}

fn identity(
    down: &Linear,
    up: &Linear,
    form: &NormForm,
    stream: &CalibrationStream,
    layer: &DecoderLayer,
) -> Result<LatentNorm, CoreError> {
    let rank = down.weight.dims()[0];
    let (mut power, mut tokens) = (vec![0.0; rank], 0usize);
    stream.inputs(layer, &mut |x| {
        tokens += x.dims()[0];
        add(&mut power, down.forward(x).square().sum_dim(0))
    })?;
    power.iter_mut().for_each(|power| *power /= tokens.max(1) as f64);
    let mut behind = vec![0.0; rank];
    add(&mut behind, up.weight.clone().square().sum_dim(0))?;
    let mut scales = balancing_scales(&power, &behind);
    let values: Vec<f32> = scales.iter().map(|scale| *scale as f32).collect();
    let values: Tensor<1> = Tensor::from_data(TensorData::new(values, [rank]), &down.weight.device());
    let mut mean_squares = mean_squares(down, Some(&values), stream, layer)?;
    // Latents near 1, so that no weight of a norm is large or small.
    let mean = mean_squares.iter().sum::<f64>() / mean_squares.len().max(1) as f64;
    let whole = match mean > 0.0 {
        true => power_of_two(mean.sqrt().recip()),
        false => 1.0,
    };
    scales.iter_mut().for_each(|scale| *scale *= whole);
    mean_squares.iter_mut().for_each(|square| *square *= whole * whole);
    let Choice { weight, kept } = choose(&mean_squares, form);
    let (in_weight, in_columns) = match form.exact_weights {
        true => (kept, 1.0),
        false => (1.0, kept),
    };
    Ok(LatentNorm {
        rows: scales.iter().map(|scale| scale * form.eps.sqrt() / weight).collect(),
        weight: vec![weight / in_weight; rank],
        columns: scales.iter().map(|scale| 1.0 / (scale * in_columns)).collect(),
    })
}

/// Mean over a latent's channels of the squares, for each token of a stream's text; `scales` multiply the channels.
pub(crate) fn mean_squares(
    down: &Linear,
    scales: Option<&Tensor<1>>,
    stream: &CalibrationStream,
    layer: &DecoderLayer,
) -> Result<Vec<f64>, CoreError> {
    let mut found = Vec::new();
    stream.inputs(layer, &mut |x| {
        let mut latent = down.forward(x);
        if let Some(scales) = scales {
            latent = latent * scales.clone().unsqueeze();
        }
        let squares: Tensor<1> = latent.square().mean_dim(1).flatten(0, 1);
        found.extend(host_values(squares)?.into_iter().map(f64::from));
        Ok(())
    })?;
    Ok(found)
}

fn add(sums: &mut [f64], row: Tensor<2>) -> Result<(), CoreError> {
    let row = host_values(row)?;
    sums.iter_mut()
        .zip(row)
        .for_each(|(sum, value)| *sum += f64::from(value));
    Ok(())
}

/// Powers of two for the channels of a latent, from their mean squares and the squared lengths of the columns that read them:
/// the square root of the quotient of both sizes, which minimises what rounding errors of equal size cost behind the columns.
fn balancing_scales(power: &[f64], behind: &[f64]) -> Vec<f64> {
    let least = |values: &[f64]| 1e-8 * values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (least_power, least_behind) = (least(power), least(behind));
    let scale = |(power, behind): (&f64, &f64)| match least_power > 0.0 && least_behind > 0.0 {
        true => power_of_two((behind.max(least_behind) / power.max(least_power)).powf(0.25)),
        false => 1.0,
    };
    power.iter().zip(behind).map(scale).collect()
}

/// A norm's weight, and the share of the latents that it keeps on average.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Choice {
    weight: f64,
    kept: f64,
}

/// The power of two that loses least, for latents of these mean squares: by shares that vary from token to token, and by the
/// digits that half precision does not have of small numbers.
///
/// Tokens count equally for one half and by their power for the other: attention sinks, whose latents may be ten times as
/// large, are few, and attended to by all.
fn choose(mean_squares: &[f64], form: &NormForm) -> Choice {
    let tokens = mean_squares.len().max(1) as f64;
    let total: f64 = mean_squares.iter().sum();
    let mean = total / tokens;
    if !(mean > 0.0 && mean.is_finite()) {
        return Choice { weight: 1.0, kept: 1.0 };
    }
    let shares: Vec<f64> = mean_squares.iter().map(|m| 0.5 * (1.0 / tokens + m / total)).collect();
    let mut best: Option<(f64, Choice)> = None;
    for exponent in -LARGEST_EXPONENT..=LARGEST_EXPONENT {
        let weight = f64::from(exponent).exp2();
        if mean / (2.0 * weight * weight) > form.largest_error {
            continue;
        }
        let kept_of = |m: f64| (1.0 + m / (weight * weight)).sqrt().recip();
        let tokens = || mean_squares.iter().zip(&shares);
        let kept: f64 = tokens().map(|(m, share)| share * kept_of(*m)).sum();
        let varied: f64 = tokens()
            .map(|(m, share)| share * (kept_of(*m) / kept - 1.0).powi(2))
            .sum();
        let rounded: f64 = tokens().map(|(m, share)| share / m.max(0.01 * mean)).sum();
        let cost = varied + rounded * (SUBNORMAL_ERROR * weight).powi(2) / form.eps;
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, Choice { weight, kept }));
        }
    }
    best.map_or(
        Choice {
            weight: f64::from(LARGEST_EXPONENT).exp2(),
            kept: 1.0,
        },
        |(_, choice)| choice,
    )
}

/// A norm whose weight is the harmonic mean of the latent's root mean square over the calibration tokens.
///
/// The harmonic mean follows ordinary tokens: attention sinks, whose latents are many times larger, hardly move it.
fn typical_norm(
    projection: &Linear,
    stream: &CalibrationStream,
    layer: &DecoderLayer,
) -> Result<LatentNorm, CoreError> {
    let (mut inverse_sum, mut tokens) = (0.0, 0usize);
    stream.inputs(layer, &mut |x| {
        let mean_square: Tensor<2> = projection.forward(x).square().mean_dim(1);
        let inverse = mean_square.add_scalar(1e-12).sqrt().recip();
        tokens += inverse.dims()[0];
        inverse_sum += scalar(inverse.sum())?;
        Ok(())
    })?;
    let rank = projection.weight.dims()[0];
    Ok(LatentNorm {
        rows: vec![1.0; rank],
        weight: vec![tokens as f64 / inverse_sum; rank],
        columns: vec![1.0; rank],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOCK: NormForm = NormForm {
        eps: STOCK_EPS,
        largest_error: LARGEST_ERROR,
        exact_weights: false,
    };

    /// What the norm of stock code makes of a latent with all entries alike, relative to it, its mean taken back.
    fn error(choice: Choice, form: &NormForm, mean_square: f64) -> f64 {
        let latent = mean_square.sqrt();
        let scaled = latent * form.eps.sqrt() / choice.weight;
        let through = choice.weight * scaled / (scaled * scaled + form.eps).sqrt();
        through / choice.kept / latent - 1.0
    }

    #[test]
    fn latents_are_as_large_as_the_error_permits() {
        for size in [1e-3, 0.3, 1.0, 40.0] {
            // Tokens that differ a little.
            let squares: Vec<f64> = (0..64)
                .map(|i| size * size * (0.8 + 0.4 * f64::from(i) / 63.0))
                .collect();
            let choice = choose(&squares, &STOCK);
            let taken = size * size / (2.0 * choice.weight * choice.weight);
            // No smaller than it must be: half the weight would cost four times as much.
            assert!(
                (0.2 * LARGEST_ERROR..=LARGEST_ERROR).contains(&taken),
                "{size}: {taken}"
            );
            for square in squares {
                let error = error(choice, &STOCK, square);
                // Of an error of up to 1e-3 only what varies is left.
                assert!(error.abs() < 3e-4, "{size}: {error}");
            }
            // 1000 and more steps of half precision.
            assert!(
                size * STOCK_EPS.sqrt() / choice.weight > 4e2 * SUBNORMAL_ERROR,
                "{size}"
            );
        }
    }

    /// One token in 256 with a latent of ten or a hundred times the size: neither it nor the others may lose much.
    #[test]
    fn sinks_and_ordinary_tokens_are_both_kept() {
        for (size, worst) in [(10.0, 1e-2), (100.0, 3e-2)] {
            let mut squares = vec![1.0; 255];
            squares.push(size * size);
            let choice = choose(&squares, &STOCK);
            for (square, error) in [
                (1.0, error(choice, &STOCK, 1.0)),
                (size, error(choice, &STOCK, size * size)),
            ] {
                assert!(error.abs() < worst, "{size}, {square}: {error}");
            }
            let digits = SUBNORMAL_ERROR * choice.weight / STOCK_EPS.sqrt();
            assert!(digits < worst, "{size}: {digits}");
        }
    }

    #[test]
    fn a_larger_epsilon_makes_the_identity_exact() {
        for (eps, worst) in [(1e-6, 5e-4), (1e-2, 5e-5), (1.0, 1e-6)] {
            let form = NormForm::of_file(eps);
            let choice = choose(&[0.7, 1.0, 1.4], &form);
            for square in [0.7, 1.0, 1.4] {
                assert!(error(choice, &form, square).abs() < worst, "{eps}: {choice:?}");
            }
            assert_eq!(choice.weight.log2().fract(), 0.0);
        }
    }

    #[test]
    fn channels_are_balanced_between_their_two_maps() {
        let (power, behind) = ([16.0, 1.0, 0.0, 1.0 / 256.0], [1.0, 16.0, 1.0, 0.0]);
        let scales = balancing_scales(&power, &behind);
        assert_eq!(scales[..2], [0.5, 2.0]);
        assert!(
            scales
                .iter()
                .all(|scale| scale.log2().fract() == 0.0 && scale.is_finite())
        );
        assert_eq!(balancing_scales(&[0.0; 2], &[1.0; 2]), [1.0; 2]);
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        for squares in [&[][..], &[0.0, 0.0], &[1e-300], &[1e30, 0.0]] {
            let choice = choose(squares, &STOCK);
            assert!(
                choice.weight.is_finite() && choice.weight > 0.0 && choice.kept > 0.0,
                "{squares:?}"
            );
        }
    }
}
