//! Decoding from cached latents with `kv_b_proj` absorbed into queries and outputs, on the CPU.

use burn::tensor::{Device, Tensor, TensorData};
use transmla_checkpoint::config::{AttentionParameters, LatentConfig};

use super::cached_rows::CachedRows;
use crate::host::HostNumbers;
use crate::kernels::{DecodeShape, add_combinations, decode, dot_products, for_each_piece};

/// `kv_b_proj` where it lies in host memory, `[H, d + d_v, r]`: what turns queries into latents and attended latents into
/// values; nothing where they are these already. A view, made for each use: nothing is copied.
#[derive(Debug)]
pub(super) struct AbsorbedUp<'a> {
    weight: Option<HostNumbers>,
    shape: &'a LatentConfig,
}

impl<'a> AbsorbedUp<'a> {
    /// Of the weight, `[H·(d + d_v), r]`, if there is one; `None` if it is not at hand in `f32`.
    pub(super) fn new(weight: Option<&Tensor<2>>, shape: &'a LatentConfig) -> Option<Self> {
        let weight = match weight {
            Some(weight) => Some(HostNumbers::of(weight.clone())?),
            None => None,
        };
        Some(Self { weight, shape })
    }

    /// Attention of new tokens to all cached ones, themselves included.
    ///
    /// `q_nope` is `[batch, H, new, d]` and `q_rope` `[batch, H, new, d_r]`; the result is `[batch, H, new, d_v]`. Nothing if
    /// the cache is not in host memory.
    pub(super) fn attend(
        &self,
        q_nope: Tensor<4>,
        q_rope: Tensor<4>,
        rows: &CachedRows,
        parameters: &AttentionParameters,
    ) -> Option<Tensor<4>> {
        let cached = rows.cached_heads(None)?;
        let [batch, heads, new, nope] = q_nope.dims();
        let (rank, rope, value) = (
            self.shape.kv_lora_rank,
            self.shape.qk_rope_head_dim,
            self.shape.v_head_dim,
        );
        let (width, up) = (rank + rope, (nope + value) * rank);
        let (q_nope, q_rope) = (HostNumbers::of(q_nope)?, HostNumbers::of(q_rope)?);
        let (q_nope, q_rope) = (q_nope.as_slice(), q_rope.as_slice());
        let weight = self.weight.as_ref().map(HostNumbers::as_slice);
        let mut q = vec![0.0; batch * heads * new * width];
        let work = batch * heads * new * nope * rank;
        for_each_piece(&mut q, new * width, work, |index, q| {
            let q_nope = &q_nope[index * new * nope..][..new * nope];
            let q_rope = &q_rope[index * new * rope..][..new * rope];
            match weight {
                Some(weight) => {
                    let keys = &weight[index % heads * up..][..nope * rank];
                    add_combinations(q, width, q_nope, keys, [new, nope, rank]);
                }
                None => {
                    for (q, q_nope) in q.chunks_exact_mut(width).zip(q_nope.chunks_exact(rank)) {
                        q[..rank].copy_from_slice(q_nope);
                    }
                }
            }
            for (q, q_rope) in q.chunks_exact_mut(width).zip(q_rope.chunks_exact(rope)) {
                q[rank..].copy_from_slice(q_rope);
            }
        });
        let shape = DecodeShape {
            shared: heads / self.shape.latent_groups,
            new,
            width,
            value_width: rank,
            scales: self.shape.key_norm_heads.unwrap_or(0),
        };
        let attended = decode(&shape, parameters, &q, &cached);
        let Some(weight) = weight else {
            let output = TensorData::new(attended, [batch, heads, new, rank]);
            return Some(Tensor::from_data(output, &Device::flex()));
        };
        let mut output = vec![0.0; batch * heads * new * value];
        let work = batch * heads * new * value * rank;
        for_each_piece(&mut output, new * value, work, |index, output| {
            let attended = &attended[index * new * rank..][..new * rank];
            let values = &weight[index % heads * up + nope * rank..][..value * rank];
            dot_products(output, attended, values, [new, rank, value]);
        });
        let output = TensorData::new(output, [batch, heads, new, value]);
        Some(Tensor::from_data(output, &Device::flex()))
    }
}
