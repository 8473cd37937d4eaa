//! Keys, values and queries of one layer in factors, before they are put together.

use faer::Mat;
use transmla_core::model::layer_prefix;
use transmla_lowrank::{KvFactors, QueryFactors};
use transmla_rope::Decoupling;

/// One layer's factorised attention, on the host.
pub(crate) struct Factors<'a> {
    /// Keys and values.
    pub kv: KvFactors,
    /// The shared rotary key, `[d_r, hidden (+ 1)]`, half-split.
    pub rope_keys: Mat<f64>,
    /// Queries.
    pub queries: &'a Queries,
    /// The split that made the rotary key; it gives the rotary queries.
    pub decoupling: Decoupling,
}

/// Query weights before the rotary rows are added.
pub(crate) enum Queries {
    /// `[H·d, hidden (+ 1)]`.
    Full(Mat<f64>),
    /// A query latent; the bias stays with the up-projection.
    LowRank {
        /// Down- and up-projection.
        factors: QueryFactors,
        /// `[H·d]`.
        bias: Option<Vec<f64>>,
    },
}

/// Where the tensors of a layer's attention are.
pub(crate) fn attention_prefix(layer: usize) -> String {
    format!("{}.self_attn", layer_prefix(layer))
}
