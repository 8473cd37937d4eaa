//! Biases in stock DeepSeek attention, which has them on its down-projections alone.
//!
//! transformers gives `q_a_proj`, `kv_a_proj_with_mqa` and `o_proj` a bias, and `q_proj`, `q_b_proj` and `kv_b_proj` none. Those
//! of keys and values are in `kv_a_proj_with_mqa` in any case, from the joint factorisation. Those of queries go through an entry
//! of the query latent that is the same for all tokens: no weights and a bias make it, and its column of `q_b_proj` is the
//! queries' bias over it. The latent norm is the identity, so the entry comes out as it goes in.

use burn::tensor::{Device, Tensor};
use transmla_core::model::Linear;
use transmla_core::model::attention::{LatentAttention, QueryProjection};

/// The constant: a power of two near a quarter of the root of the latent's width, so that in half precision neither it nor its
/// share in the latent's mean square is small or large.
fn constant(rank: usize) -> f64 {
    ((rank as f64).sqrt() / 4.0).log2().floor().max(0.0).exp2()
}

/// The same attention with its biases where stock code has them; `rank` is [`query_rank`](crate::spec::plan::query_rank) of the latent, or of the input for
/// full queries.
pub(crate) fn with_stock_biases(mut attention: LatentAttention, rank: usize) -> LatentAttention {
    let device = attention.o.weight.device();
    let (down, mut up) = match attention.q {
        QueryProjection::Plain(queries) => (Tensor::eye(queries.weight.dims()[1], &device), queries),
        QueryProjection::Lora { down, up, .. } => (down.weight, up),
    };
    let [queries, width] = up.weight.dims();
    let spare = rank - width - 1;
    let bias = up.bias.take().unwrap_or_else(|| Tensor::zeros([queries], &device));
    let value = constant(rank);
    let columns = vec![
        up.weight,
        bias.div_scalar(value).unsqueeze_dim(1),
        Tensor::zeros([queries, spare], &device),
    ];
    attention.q = QueryProjection::Lora {
        down: Linear {
            weight: Tensor::cat(
                vec![down.clone(), Tensor::zeros([spare + 1, down.dims()[1]], &device)],
                0,
            ),
            bias: Some(entry(width, rank, value, &device)),
        },
        norm: None,
        up: Linear::new(Tensor::cat(columns, 1)),
    };
    let hidden = attention.o.weight.dims()[0];
    attention.o.bias.get_or_insert_with(|| Tensor::zeros([hidden], &device));
    attention
}

/// The attention with biases of zeros on its down-projections: stock code has biases on these and on the output, or on none.
pub(crate) fn with_zero_biases(mut attention: LatentAttention) -> LatentAttention {
    let fill = |linear: &mut Linear| {
        let zeros = || Tensor::zeros([linear.weight.dims()[0]], &linear.weight.device());
        linear.bias = Some(linear.bias.take().unwrap_or_else(zeros));
    };
    if let QueryProjection::Lora { down, .. } = &mut attention.q {
        fill(down);
    }
    fill(&mut attention.kv_down);
    attention
}

/// Zeros of a width, but for one entry.
fn entry(index: usize, width: usize, value: f64, device: &Device) -> Tensor<1> {
    let parts = [(index, 0.0), (1, value), (width - index - 1, 0.0)];
    let parts = parts.map(|(length, value)| Tensor::full([length], value as f32, device));
    Tensor::cat(parts.to_vec(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::plan::query_rank;

    #[test]
    fn the_latent_has_room_for_the_constant() {
        for (rank, width) in [(1, 8), (7, 8), (8, 16), (3584, 3592)] {
            assert_eq!(query_rank(rank), width);
        }
        for (rank, value) in [(8, 1.0), (104, 2.0), (3592, 8.0)] {
            assert_eq!(constant(rank), value);
            // A sixteenth of a mean square of 1, or less.
            assert!(value * value / rank as f64 <= 1.0 / 8.0);
        }
    }
}
