//! Queries, keys and values, and the strategies that are the same on every device.

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor};
use transmla_core::CacheFormat;
use transmla_core::kernels::{AttentionParameters, plain_decode};

use crate::catalogue::Attend;
use crate::numbers::Numbers;

/// Formats of the fused strategies, in the catalogue's order after the two of tensor operations. Those that are quantised are for
/// latents alone.
pub(super) const FORMATS: [CacheFormat; 6] = CacheFormat::ALL;

/// A fused kernel with its caches.
pub(super) trait Fused {
    /// `[1, H, 1, d_v]` from the cache of one format.
    fn attend(&self, operands: &Operands, format: usize) -> Tensor<4>;

    /// What the cache of a quantised format keeps, `[1, G, tokens, width]`; nothing for others.
    fn kept(&self, _: &Operands, _: usize) -> Option<Tensor<4>> {
        None
    }

    /// Whether the kernel has the format.
    fn has(&self, operands: &Operands, format: usize) -> bool;
}

pub(super) struct Operands {
    pub(super) shape: Attend,
    pub(super) parameters: AttentionParameters,
    /// `[1, H, 1, width]`
    pub(super) q: Tensor<4>,
    /// `[1, G, tokens, width]`
    pub(super) keys: Tensor<4>,
    /// `[1, G, tokens, d_v]`
    pub(super) values: Tensor<4>,
}

impl Operands {
    pub(super) fn new(shape: Attend, context: usize, device: &Device) -> Self {
        let mut numbers = Numbers::on(device, 7);
        let Attend {
            groups,
            shared,
            width,
            value_width,
            latent,
        } = shape;
        let keys = numbers.tensor([1, groups, context, width], 1.0);
        let values = match latent {
            true => keys.clone().narrow(3, 0, value_width),
            false => numbers.tensor([1, groups, context, value_width], 1.0),
        };
        Self {
            shape,
            parameters: AttentionParameters::of_width(width),
            q: numbers.tensor([1, groups * shared, 1, width], 2.0),
            keys,
            values,
        }
    }

    pub(super) fn tokens(&self) -> usize {
        self.keys.dims()[2]
    }

    pub(super) fn plain(&self) -> Tensor<4> {
        self.plain_of(self.keys.clone(), self.values.clone())
    }

    /// The same with latents that were kept in another format.
    pub(super) fn plain_of_kept(&self, keys: Tensor<4>) -> Tensor<4> {
        self.plain_of(keys.clone(), keys.narrow(3, 0, self.shape.value_width))
    }

    fn plain_of(&self, keys: Tensor<4>, values: Tensor<4>) -> Tensor<4> {
        plain_decode(self.q.clone(), keys, values, &[self.tokens()], &self.parameters)
    }

    /// Heads that share keys become rows of one query: all of them attend to every token.
    pub(super) fn burn(&self) -> Tensor<4> {
        let Attend {
            groups,
            shared,
            width,
            value_width,
            ..
        } = self.shape;
        let q = self.q.clone().reshape([1, groups, shared, width]);
        let options = AttentionModuleOptions::default();
        let (keys, values) = (self.keys.clone(), self.values.clone());
        attention(q, keys, values, None, None, options).reshape([1, groups * shared, 1, value_width])
    }
}
