//! The split of keys into rotary keys and keys without position, applied to weights.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, get_global_parallelism};

use crate::check;
use crate::error::RopeError;
use crate::shape::HeadShape;

/// A linear split of the keys into a shared rotary key and keys without position (NoPE keys).
///
/// With `q_h` the query of head `h` and `k` the keys of all heads of a token, the attention score (before scaling) becomes
/// `RoPE(query_rope[h]·q_h) · RoPE(key_rope·k) + q_h · key_up[h]·key_nope·k`.
#[derive(Debug, Clone)]
pub struct Decoupling {
    /// The heads whose keys are split.
    pub shape: HeadShape,
    /// `[d_r, K]`: rows `m` and `m + d_r/2` are the real and the imaginary part of slot `m` (half-split).
    pub key_rope: Mat<f64>,
    /// `[N, K]`: the NoPE keys. In the result of [`rororope`](crate::rororope()), rows `n` and `n + N/2` are the real and the
    /// imaginary part of a pair.
    pub key_nope: Mat<f64>,
    /// One `[d_r, d]` per query head: multiplied by the head's query it gives the rotary query.
    pub query_rope: Vec<Mat<f64>>,
    /// One `[d, N]` per query head: multiplied by the NoPE keys it gives the head's NoPE key.
    pub key_up: Vec<Mat<f64>>,
}

/// Key weights after the split.
#[derive(Debug, Clone)]
pub struct SplitKeys {
    /// `[d_r, D]`: the shared rotary key, half-split.
    pub rope: Mat<f64>,
    /// `[N, D]`: the keys without position.
    pub nope: Mat<f64>,
}

impl Decoupling {
    /// The split of keys that have no position: all of them stay as they are, and the rotary key, `rope_dim` wide, is zero.
    pub fn without_positions(shape: HeadShape, rope_dim: usize) -> Self {
        let (width, head_dim) = (shape.key_width(), shape.head_dim);
        let of_head = |head: usize| {
            let first = shape.key_head_of(head) * head_dim;
            Mat::from_fn(head_dim, width, |i, j| if first + i == j { 1.0 } else { 0.0 })
        };
        Self {
            shape,
            key_rope: Mat::zeros(rope_dim, width),
            key_nope: Mat::identity(width, width),
            query_rope: vec![Mat::zeros(rope_dim, head_dim); shape.query_heads],
            key_up: (0..shape.query_heads).map(of_head).collect(),
        }
    }

    /// Width of the shared rotary key, `d_r`.
    pub fn rope_dim(&self) -> usize {
        self.key_rope.nrows()
    }

    /// Width of the keys without position, `N` (`K - d_r` for an orthogonal split).
    pub fn nope_width(&self) -> usize {
        self.key_nope.nrows()
    }

    /// Splits key weights into rotary and NoPE key weights.
    ///
    /// # Shapes
    ///
    /// `keys`: `[K, D]`, where `D` may include a column for the bias; results: `[d_r, D]` and `[N, D]`.
    ///
    /// # Errors
    ///
    /// [`RopeError::Shape`] for other than `K` rows, [`RopeError::NotFinite`] for a NaN or an infinity.
    pub fn split_keys(&self, keys: MatRef<'_, f64>) -> Result<SplitKeys, RopeError> {
        let width = self.shape.key_width();
        check::rows("the key weights", keys, width)?;
        check::shape("key_rope", self.key_rope.as_ref(), self.rope_dim(), width)?;
        check::shape("key_nope", self.key_nope.as_ref(), self.nope_width(), width)?;
        check::finite("the key weights", keys)?;
        Ok(SplitKeys {
            rope: product(self.key_rope.as_ref(), keys),
            nope: product(self.key_nope.as_ref(), keys),
        })
    }

    /// Computes the rotary query weights of all heads, head after head, from the query weights.
    ///
    /// # Shapes
    ///
    /// `queries`: `[H·d, D]`; result: `[H·d_r, D]`, half-split within each head.
    ///
    /// # Errors
    ///
    /// [`RopeError::Shape`] for other than `H·d` rows, [`RopeError::NotFinite`] for a NaN or an infinity.
    pub fn rope_queries(&self, queries: MatRef<'_, f64>) -> Result<Mat<f64>, RopeError> {
        let (head_dim, rope_dim) = (self.shape.head_dim, self.rope_dim());
        check::rows("the query weights", queries, self.shape.query_width())?;
        self.check_heads("query_rope", &self.query_rope, rope_dim, head_dim)?;
        check::finite("the query weights", queries)?;
        let mut rope = Mat::zeros(self.shape.query_heads * rope_dim, queries.ncols());
        for (head, rotation) in self.query_rope.iter().enumerate() {
            let target = rope.as_mut().subrows_mut(head * rope_dim, rope_dim);
            multiply(target, rotation.as_ref(), queries.subrows(head * head_dim, head_dim));
        }
        Ok(rope)
    }

    /// Computes the NoPE key weights of each key head, for attention whose query heads share the keys of a key head.
    ///
    /// # Shapes
    ///
    /// `nope`: `[N, D]`; result: `[G·d, D]`.
    ///
    /// # Errors
    ///
    /// [`RopeError::HeadsDiffer`] if query heads of one key head have different `key_up` matrices (those of
    /// [`rororope`](crate::rororope()) never do), [`RopeError::Shape`] for other than `N` rows, [`RopeError::NotFinite`]
    /// for a NaN or an infinity.
    pub fn expand_nope_grouped(&self, nope: MatRef<'_, f64>) -> Result<Mat<f64>, RopeError> {
        self.check_nope(nope)?;
        let (head_dim, queries_per_key) = (self.shape.head_dim, self.shape.queries_per_key());
        let mut keys = Mat::zeros(self.shape.key_width(), nope.ncols());
        for (key_head, shared) in self.key_up.chunks(queries_per_key).enumerate() {
            if let Some(other) = shared.iter().position(|key_up| *key_up != shared[0]) {
                return Err(RopeError::HeadsDiffer {
                    key_head,
                    query_head: key_head * queries_per_key + other,
                });
            }
            let target = keys.as_mut().subrows_mut(key_head * head_dim, head_dim);
            multiply(target, shared[0].as_ref(), nope);
        }
        Ok(keys)
    }

    fn check_nope(&self, nope: MatRef<'_, f64>) -> Result<(), RopeError> {
        check::rows("the NoPE key weights", nope, self.nope_width())?;
        self.check_heads("key_up", &self.key_up, self.shape.head_dim, self.nope_width())?;
        check::finite("the NoPE key weights", nope)
    }

    /// Checks the matrices: the fields are public.
    pub(crate) fn check_heads(
        &self,
        what: &'static str,
        matrices: &[Mat<f64>],
        rows: usize,
        columns: usize,
    ) -> Result<(), RopeError> {
        self.shape.check()?;
        if matrices.len() != self.shape.query_heads {
            return Err(RopeError::HeadCount {
                what,
                expected: self.shape.query_heads,
                found: matrices.len(),
            });
        }
        for (head, matrix) in matrices.iter().enumerate() {
            check::shape(&format!("{what} of query head {head}"), matrix.as_ref(), rows, columns)?;
        }
        Ok(())
    }
}

fn product(lhs: MatRef<'_, f64>, rhs: MatRef<'_, f64>) -> Mat<f64> {
    let mut result = Mat::zeros(lhs.nrows(), rhs.ncols());
    multiply(result.as_mut(), lhs, rhs);
    result
}

fn multiply(target: MatMut<'_, f64>, lhs: MatRef<'_, f64>, rhs: MatRef<'_, f64>) {
    matmul(target, Accum::Replace, lhs, rhs, 1.0, get_global_parallelism());
}
