//! RMSNorms on the latents: none, one that keeps the scale, or one that is the identity.

use burn::tensor::Tensor;
use transmla_core::config::LatentStyle;
use transmla_core::model::Linear;
use transmla_core::model::attention::{LatentAttention, QueryProjection};
use transmla_core::{CoreError, DecoderLayer};

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
    const IDENTITY: Self = Self {
        scale: STOCK_SQRT_EPS / IDENTITY_WEIGHT,
        weight: IDENTITY_WEIGHT,
    };
}

/// sqrt(1e-6).
const STOCK_SQRT_EPS: f64 = 1e-3;
const _: () = assert!(STOCK_SQRT_EPS * STOCK_SQRT_EPS - STOCK_EPS < 1e-20);

/// The norms of the key/value latent and of the query latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LatentNorms {
    pub kv: LatentNorm,
    pub q: Option<LatentNorm>,
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
    if plan.options.use_qkv_norm {
        let rank = plan.latent.kv_lora_rank;
        let latent = Linear {
            weight: attention.kv_down.weight.clone().narrow(0, 0, rank),
            bias: attention.kv_down.bias.clone().map(|bias| bias.narrow(0, 0, rank)),
        };
        return Ok(Some(LatentNorms {
            kv: typical_norm(&latent, stream, layer)?,
            q: query_latent.map(|down| typical_norm(down, stream, layer)).transpose()?,
        }));
    }
    Ok((plan.options.style == LatentStyle::DeepseekV3).then_some(LatentNorms {
        kv: LatentNorm::IDENTITY,
        q: query_latent.map(|_| LatentNorm::IDENTITY),
    }))
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
