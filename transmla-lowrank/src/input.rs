//! Input of the key/value factorisations.

use faer::{Mat, MatRef};

use crate::check;
use crate::error::LowRankError;

/// Weights to factorise: keys without position (NoPE keys), values, and the map from the former to each head's keys.
#[derive(Debug, Clone, Copy)]
pub struct KvInput<'a> {
    /// `[N, D]`: NoPE key weights. `N` may be 0.
    pub nope_keys: MatRef<'a, f64>,
    /// `[G·d_v, D]`: value weights, head after head.
    pub values: MatRef<'a, f64>,
    /// One `[d, N]` per query head: multiplied by the NoPE keys it gives the head's NoPE key. `H` is a multiple of `G`.
    pub key_up: &'a [Mat<f64>],
    /// Width of a value head, `d_v`.
    pub value_head_dim: usize,
}

impl KvInput<'_> {
    /// Checks shapes, rank, damping and numbers before any product is taken, and returns the number of value heads.
    pub(crate) fn check(&self, moment: MatRef<'_, f64>, rank: usize, damping: f64) -> Result<usize, LowRankError> {
        check::square("the moment of the inputs", moment)?;
        check::columns("the NoPE key weights", self.nope_keys, moment.nrows())?;
        check::columns("the value weights", self.values, moment.nrows())?;
        let (keys, values) = (self.nope_keys.nrows(), self.values.nrows());
        if values == 0 {
            return Err(LowRankError::Empty {
                what: "the value weights",
            });
        }
        if self.value_head_dim == 0 || !values.is_multiple_of(self.value_head_dim) {
            return Err(LowRankError::ValueHeadDim {
                rows: values,
                found: self.value_head_dim,
            });
        }
        let value_heads = values / self.value_head_dim;
        if self.key_up.is_empty() || !self.key_up.len().is_multiple_of(value_heads) {
            return Err(LowRankError::HeadCount {
                value_heads,
                found: self.key_up.len(),
            });
        }
        let head_dim = self.key_up[0].nrows();
        for (head, key_up) in self.key_up.iter().enumerate() {
            check::shape(&format!("key_up of query head {head}"), key_up.as_ref(), head_dim, keys)?;
            check::finite("key_up", key_up.as_ref())?;
        }
        check::rank("rank", rank, keys + values)?;
        check::damping(damping)?;
        check::finite("the NoPE key weights", self.nope_keys)?;
        check::finite("the value weights", self.values)?;
        check::finite("the moment of the inputs", moment)?;
        Ok(value_heads)
    }
}
