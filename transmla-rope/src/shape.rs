//! Heads of an attention layer.

use crate::error::RopeError;

/// The heads of one attention layer: `H` query heads, `G` key heads (`H` a multiple of `G`), `d` dimensions each.
///
/// Query head `h` attends to key head `h / (H / G)`. Multi-head attention is `G = H`, multi-query attention `G = 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Number of query heads, `H`.
    pub query_heads: usize,
    /// Number of key heads, `G`.
    pub key_heads: usize,
    /// Dimensions of a head, `d` (even).
    pub head_dim: usize,
}

impl HeadShape {
    /// Makes a head shape and checks it.
    ///
    /// # Errors
    ///
    /// [`RopeError::Heads`] unless `query_heads` is a positive multiple of `key_heads`; [`RopeError::HeadDim`] unless
    /// `head_dim` is even and positive.
    pub fn new(query_heads: usize, key_heads: usize, head_dim: usize) -> Result<Self, RopeError> {
        let shape = Self {
            query_heads,
            key_heads,
            head_dim,
        };
        shape.check()?;
        Ok(shape)
    }

    /// Checks the shape again: its fields are public.
    pub(crate) fn check(&self) -> Result<(), RopeError> {
        let Self {
            query_heads,
            key_heads,
            head_dim,
        } = *self;
        if key_heads == 0 || query_heads == 0 || !query_heads.is_multiple_of(key_heads) {
            return Err(RopeError::Heads { query_heads, key_heads });
        }
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(RopeError::HeadDim { head_dim });
        }
        Ok(())
    }

    /// Width of all keys together, `K = G·d`.
    pub fn key_width(&self) -> usize {
        self.key_heads * self.head_dim
    }

    /// Width of all queries together, `H·d`.
    pub fn query_width(&self) -> usize {
        self.query_heads * self.head_dim
    }

    /// Number of rotary pairs of a head, `J = d/2`; each has its own frequency.
    pub fn pairs(&self) -> usize {
        self.head_dim / 2
    }

    /// Number of query heads that share a key head, `R = H/G`.
    pub fn queries_per_key(&self) -> usize {
        self.query_heads / self.key_heads.max(1)
    }

    /// The key head that a query head attends to.
    pub fn key_head_of(&self, query_head: usize) -> usize {
        query_head / self.queries_per_key().max(1)
    }
}
