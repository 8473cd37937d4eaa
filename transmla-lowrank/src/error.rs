//! Errors.

use thiserror::Error;

/// Why a factorisation could not be made.
///
/// Every variant states what was expected and what was found, and the valid range if there is one.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum LowRankError {
    /// A matrix has the wrong shape.
    #[error("{what} must be [{expected}], found [{rows}, {columns}]")]
    Shape {
        /// Which matrix.
        what: String,
        /// The shape expected, such as `256, 256`.
        expected: String,
        /// Rows found.
        rows: usize,
        /// Columns found.
        columns: usize,
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
        /// The value found.
        value: f64,
    },
    /// The rank is out of range.
    #[error("the {what} must be in 1..={max}, found {rank}")]
    Rank {
        /// Which rank.
        what: &'static str,
        /// The rank found.
        rank: usize,
        /// The largest rank possible.
        max: usize,
    },
    /// A matrix has no rows.
    #[error("{what} must have at least one row, found none")]
    Empty {
        /// Which matrix.
        what: &'static str,
    },
    /// The balance is not a positive number.
    #[error("the balance must be a positive number, found {found}; for example 1.0")]
    Balance {
        /// The balance found.
        found: f64,
    },
    /// The damping is negative or not finite.
    #[error("the damping must be a number that is not negative, found {found}; for example 0.01")]
    Damping {
        /// The damping found.
        found: f64,
    },
    /// All value dimensions would be left out of the balance.
    #[error("the skipped values must be in 0..{values}, found {skipped}")]
    SkippedValues {
        /// Value dimensions that are skipped.
        skipped: usize,
        /// Value dimensions in all.
        values: usize,
    },
    /// The number of value rows is not a multiple of the head width.
    #[error("value_head_dim must be positive and divide the {rows} value rows, found {found}")]
    ValueHeadDim {
        /// Value rows of all heads together.
        rows: usize,
        /// Head width found.
        found: usize,
    },
    /// The number of query heads is not a multiple of the number of value heads.
    #[error(
        "key_up must hold one matrix per query head, a positive multiple of the {value_heads} value heads; \
         found {found}"
    )]
    HeadCount {
        /// Number of value heads.
        value_heads: usize,
        /// Number of matrices found.
        found: usize,
    },
    /// The eigensolver did not converge.
    #[error("the {size} x {size} eigenproblem did not converge; is the moment a second moment?")]
    Eigen {
        /// Number of rows of the moment.
        size: usize,
    },
}
