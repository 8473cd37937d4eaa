//! Errors.

use thiserror::Error;

/// Why a decoupling could not be made or applied.
///
/// Every variant states what was expected and what was found, and a valid value if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RopeError {
    /// The number of query heads is not a positive multiple of the number of key heads.
    #[error(
        "the number of query heads must be a positive multiple of the number of key heads, \
         found {query_heads} query heads and {key_heads} key heads; for example 32 and 8"
    )]
    Heads {
        /// Query heads found.
        query_heads: usize,
        /// Key heads found.
        key_heads: usize,
    },
    /// The head width is zero or odd; RoPE pairs dimensions.
    #[error("head_dim must be even and positive, found {head_dim}; for example {}", head_dim / 2 * 2 + 2)]
    HeadDim {
        /// Head width found.
        head_dim: usize,
    },
    /// The width of the shared rotary key is odd or does not divide the head width.
    #[error("the rope dimension must be even and divide head_dim {head_dim}, found {found}; valid values: {valid:?}")]
    RopeDim {
        /// Head width.
        head_dim: usize,
        /// Width of the rotary key found.
        found: usize,
        /// All valid widths.
        valid: Vec<usize>,
    },
    /// The freqfold is not a multiple of the collapse, or does not divide the number of pairs.
    #[error(
        "freqfold must be a multiple of the collapse {collapse} and divide the {pairs} frequencies of a head, \
         found {found}; valid values: {valid:?}"
    )]
    FreqFold {
        /// Head width divided by rope dimension.
        collapse: usize,
        /// Frequencies of a head.
        pairs: usize,
        /// The freqfold found.
        found: usize,
        /// All valid freqfolds.
        valid: Vec<usize>,
    },
    /// A [`FoldSpec`](crate::FoldSpec) is for heads of another width.
    #[error(
        "the fold was made for head_dim {expected}, found heads of head_dim {found}; make it with the same HeadShape"
    )]
    FoldShape {
        /// Head width of the fold.
        expected: usize,
        /// Head width found.
        found: usize,
    },
    /// A matrix has the wrong shape.
    #[error("{what} must be [{expected}], found [{rows}, {columns}]")]
    Shape {
        /// Which matrix.
        what: String,
        /// The shape expected, such as `256, any`.
        expected: String,
        /// Rows found.
        rows: usize,
        /// Columns found.
        columns: usize,
    },
    /// A list does not have one matrix per query head.
    #[error("{what} must hold one matrix per query head, {expected} in all, found {found}")]
    HeadCount {
        /// Which list.
        what: &'static str,
        /// Number of query heads.
        expected: usize,
        /// Number of matrices found.
        found: usize,
    },
    /// Query heads of one key head have different `key_up` matrices, so there is no expansion per key head.
    #[error(
        "the query heads of key head {key_head} must share one key_up matrix, found that query head {query_head} \
         differs; multiply by the key_up of each query head instead"
    )]
    HeadsDiffer {
        /// The key head.
        key_head: usize,
        /// The first query head that differs from the key head's first.
        query_head: usize,
    },
    /// A matrix contains a NaN or an infinity.
    #[error("{what} must be finite, found {value} at row {row}, column {column}")]
    NotFinite {
        /// Which matrix.
        what: &'static str,
        /// Row of the first such value in column order.
        row: usize,
        /// Column of the first such value.
        column: usize,
        /// The value, as text.
        value: String,
    },
    /// The eigensolver did not converge.
    #[error(
        "the {size} x {size} eigenproblem of frequency group {group} did not converge; \
         is the key moment a second moment?"
    )]
    Eigen {
        /// Which group of frequencies.
        group: usize,
        /// Number of rows of its second moment.
        size: usize,
    },
    /// The normal equations of a least-squares problem are not positive.
    #[error(
        "the least squares for the queries of pair {pair} of query head {head} have no solution; \
         is the moment of keys, slots and latent a second moment?"
    )]
    LeastSquares {
        /// The query head.
        head: usize,
        /// The pair.
        pair: usize,
    },
}
