//! A saved layer's attention in the form of the file: queries as the loader wants them, latents for the file's epsilon.

use burn::tensor::Tensor;
use transmla_core::DecoderLayer;
use transmla_core::model::attention::{Attention, LatentAttention, QueryProjection};
use transmla_core::model::{Linear, RmsNorm};
use transmla_core::{CoreError, host_values};

use super::survey::mean_share;
use crate::layer::latent_norm::{LatentNorm, LatentNorms, NormForm, identity_norms, latent_rows};
use crate::layer::stream::CalibrationStream;
use crate::output::verify::absorb;
use crate::spec::error::ConvertError;

/// The attention of a layer that a stream stands in front of, without norms, and the norms that the file has for it.
///
/// Norms that are the identity are made anew for the file's epsilon; norms of the model's own stay what they are. With
/// `query_rank` full queries go through a query latent that is the input itself; without it queries are full.
pub(super) fn rewritten(
    layer: &DecoderLayer,
    stream: &CalibrationStream,
    form: &NormForm,
    query_rank: Option<usize>,
) -> Result<(LatentAttention, LatentNorms), ConvertError> {
    let Attention::Latent(attention) = &layer.attention else {
        return Err(ConvertError::NotLatent {
            model_type: "layer without a latent".into(),
        });
    };
    let mut attention = attention.clone();
    let mut own = None;
    if let Some(norm) = attention.kv_norm.take() {
        match mean_share(&latent_rows(&attention), &norm, stream, layer)? {
            Some(share) => attention.kv_down = absorb(&norm, &attention.kv_down, share),
            None => own = Some(kept(&norm, form)?),
        }
    }
    let mut own_query = None;
    attention.q = match attention.q {
        QueryProjection::Plain(q) if query_rank.is_some() => {
            let input = q.weight.dims()[1];
            let down = Linear::new(Tensor::eye(input, &q.weight.device()));
            let norm = None;
            QueryProjection::Lora { down, norm, up: q }
        }
        QueryProjection::Plain(q) => QueryProjection::Plain(q),
        QueryProjection::Lora { mut down, norm, up } => {
            if let Some(norm) = norm {
                match mean_share(&down, &norm, stream, layer)? {
                    Some(share) => down = absorb(&norm, &down, share),
                    None => own_query = Some(kept(&norm, form)?),
                }
            }
            match query_rank {
                Some(_) => QueryProjection::Lora { down, norm: None, up },
                None if own_query.is_some() => {
                    return Err(ConvertError::Gguf {
                        problem: "llama.cpp takes a model of this many layers for one with full queries, and a query latent \
                                  with a norm of its own cannot be one matrix; convert without `q_lora_rank` or without \
                                  `use_qkv_norm`"
                            .into(),
                    });
                }
                None => QueryProjection::Plain(Linear::new(up.weight.matmul(down.weight))),
            }
        }
    };
    let mut norms = identity_norms(&attention, form, stream, layer)?;
    if own.is_some() || own_query.is_some() {
        // Nothing is small that the input would have to be small for.
        norms.input_scale = 1.0;
    }
    norms.kv = own.unwrap_or(norms.kv);
    norms.q = own_query.or(norms.q);
    Ok((attention, norms))
}

/// A norm of the model's own, for another epsilon: rows that are larger by its root give the same.
fn kept(norm: &RmsNorm, form: &NormForm) -> Result<LatentNorm, CoreError> {
    let weight: Vec<f64> = host_values(norm.weight.clone())?.into_iter().map(f64::from).collect();
    Ok(LatentNorm {
        rows: vec![(form.eps / norm.eps).sqrt(); weight.len()],
        columns: vec![1.0; weight.len()],
        weight,
    })
}
