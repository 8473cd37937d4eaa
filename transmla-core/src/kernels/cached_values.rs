//! Where the values of cached tokens are.

use burn::tensor::Tensor;

/// The values of cached tokens, as decoding reads them.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "handed on, never kept")]
pub enum CachedValues {
    /// In rows of their own, `[batch, G, longest, d_v]`.
    Apart(Tensor<4>),
    /// They are the first d_v numbers of each key, as in a latent cache.
    InKeys(usize),
    /// The same, and behind the key's own numbers are scales of its scores: one for each of as many equal shares of the heads, in
    /// their order.
    InScaledKeys {
        /// d_v.
        width: usize,
        /// Scales of a token, a divisor of the number of heads.
        scales: usize,
    },
}

impl CachedValues {
    /// d_v.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Apart(values) => values.dims()[3],
            Self::InKeys(width) | Self::InScaledKeys { width, .. } => *width,
        }
    }
}
