//! RMSNorms on the latents: none, one that keeps the scale, or one that is the identity.

use burn::tensor::Tensor;
use transmla_core::config::LatentStyle;
use transmla_core::model::Linear;
use transmla_core::model::attention::{LatentAttention, QueryProjection};
use transmla_core::{CoreError, DecoderLayer, StorageDtype};

use crate::example::scalar;
use crate::plan::STOCK_EPS;
use crate::{CalibrationStream, Plan};

/// What becomes of a latent: its rows are multiplied by `scale`, and its norm has `weight` everywhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LatentNorm {
    pub scale: f64,
    pub weight: f64,
}

/// Weight of a norm that is the identity; a power of two, so that no format rounds it.
const IDENTITY_WEIGHT: f64 = (1u64 << 20) as f64;

impl LatentNorm {
    /// A norm that stock code applies and that changes nothing.
    ///
    /// RMSNorm(y) = w·y / sqrt(mean(y²) + eps). With y = s·c, w = 2^20 and s = sqrt(eps)/w the mean square of y is far below
    /// eps, the root is sqrt(eps), and c comes out, with a relative error of mean(c²)/(2 w²).
    pub(crate) const IDENTITY: Self = Self {
        scale: STOCK_SQRT_EPS / IDENTITY_WEIGHT,
        weight: IDENTITY_WEIGHT,
    };

    /// The same for half precision, for latents of this mean square: its weight is the least power of two that keeps the
    /// error mean(c²)/(2 w²) below [`HALF_ERROR`].
    fn half(mean_square: f64) -> Self {
        let least = (mean_square / (2.0 * HALF_ERROR)).sqrt().log2().ceil();
        let weight = least.clamp(-10.0, 15.0).exp2();
        Self {
            scale: STOCK_SQRT_EPS / weight,
            weight,
        }
    }
}

/// sqrt(1e-6).
const STOCK_SQRT_EPS: f64 = 1e-3;
const _: () = assert!(STOCK_SQRT_EPS * STOCK_SQRT_EPS - STOCK_EPS < 1e-20);

/// Most of a latent's scale that the identity may cost in half precision, where it cannot be had for nothing.
const HALF_ERROR: f64 = 1e-3;

/// The norms of the key/value latent and of the query latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LatentNorms {
    pub kv: LatentNorm,
    pub q: Option<LatentNorm>,
    /// What the layer's `input_layernorm` is multiplied by on top.
    pub input_scale: f64,
}

/// The norms that a plan asks for, or nothing.
pub(crate) fn latent_norms(
    plan: &Plan,
    attention: &LatentAttention,
    stream: &CalibrationStream,
    layer: &DecoderLayer,
) -> Result<Option<LatentNorms>, CoreError> {
    let query_latent = match &attention.q {
        QueryProjection::Plain(_) => None,
        QueryProjection::Lora { down, .. } => Some(down),
    };
    let find = match (plan.options.use_qkv_norm, plan.style, plan.options.dtype) {
        (true, _, _) => typical_norm,
        (false, LatentStyle::Family, _) => return Ok(None),
        (false, LatentStyle::DeepseekV3, StorageDtype::F16) => half_identity,
        (false, LatentStyle::DeepseekV3, _) => |_: &_, _: &_, _: &_| Ok(LatentNorm::IDENTITY),
    };
    let rank = plan.latent.kv_lora_rank;
    let latent = Linear {
        weight: attention.kv_down.weight.clone().narrow(0, 0, rank),
        bias: attention.kv_down.bias.clone().map(|bias| bias.narrow(0, 0, rank)),
    };
    Ok(Some(LatentNorms {
        kv: find(&latent, stream, layer)?,
        q: query_latent.map(|down| find(down, stream, layer)).transpose()?,
        input_scale: plan.input_scale(),
    }))
}

/// The identity for half precision: the largest latent whose mean square, over the calibration tokens, costs no more than
/// [`HALF_ERROR`], because numbers below 6e-5 lose digits there.
fn half_identity(
    projection: &Linear,
    stream: &CalibrationStream,
    layer: &DecoderLayer,
) -> Result<LatentNorm, CoreError> {
    let (mut sum, mut tokens) = (0.0, 0usize);
    stream.inputs(layer, &mut |x| {
        let mean_square: Tensor<2> = projection.forward(x).square().mean_dim(1);
        tokens += mean_square.dims()[0];
        sum += scalar(mean_square.sum())?;
        Ok(())
    })?;
    Ok(LatentNorm::half(sum / tokens as f64))
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
    Ok(LatentNorm {
        scale: 1.0,
        weight: tokens as f64 / inverse_sum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The norm as stock code computes it, of a latent with all entries alike.
    fn through(norm: LatentNorm, latent: f64) -> f64 {
        let scaled = norm.scale * latent;
        norm.weight * scaled / (scaled * scaled + STOCK_EPS).sqrt()
    }

    #[test]
    fn identity_norms_change_nothing() {
        for latent in [1e-3, 0.3, 1.0, 40.0] {
            assert!((through(LatentNorm::IDENTITY, latent) / latent - 1.0).abs() < 1e-8);
            let half = LatentNorm::half(latent * latent);
            let error = 1.0 - through(half, latent) / latent;
            // No smaller than it must be: half the weight would cost four times as much.
            assert!((0.2 * HALF_ERROR..HALF_ERROR).contains(&error), "{latent}: {error}");
        }
    }
}
