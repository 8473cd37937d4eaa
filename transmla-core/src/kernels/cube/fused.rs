//! The extension of burn's backends that has the kernel.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::plan::Plan;

/// Backends that have the kernel.
#[backend_extension(Cube)]
pub(crate) trait FusedDecode: Backend {
    /// `[batch, H, new, d_v]` of queries, keys and values that the problem of a [`Plan`] describes. Values that are in the keys
    /// are not read; the keys stand for them.
    fn fused_decode(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self>;
}
