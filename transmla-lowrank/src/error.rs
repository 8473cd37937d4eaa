//! What can be wrong with the input.

use thiserror::Error;

/// Why a factorisation could not be made.
///
/// Every variant names what was expected and what was found, with the range of valid values where there is one.
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
    /// A matrix holds a NaN or an infinity.
    #[error("{what} must be finite, found {value} at row {row}, column {column}")]
    NotFinite {
        /// Which matrix.
        what: &'static str,
        /// Row of the first such value, column by column.
        row: usize,
        /// Column of the first such value.
        column: usize,
        /// The value found.
        value: f64,
    },
    /// More or fewer components are asked for than there are.
    #[error("the {what} must be in 1..={max}, found {rank}")]
    Rank {
        /// Which rank.
        what: &'static str,
        /// The rank found.
        rank: usize,
        /// The largest rank possible.
        max: usize,
    },
    /// There is nothing to factorise.
    #[error("{what} must have at least one row, found none")]
    Empty {
        /// Which matrix.
        what: &'static str,
    },
    /// The balance between keys and values is not a positive number.
    #[error("the balance must be a positive number, found {found}; for example 1.0")]
    Balance {
        /// The balance found.
        found: f64,
    },
    /// The damping is not a number, or negative.
    #[error("the damping must be a number that is not negative, found {found}; for example 0.01")]
    Damping {
        /// The damping found.
        found: f64,
    },
    /// The mean over values would be over none.
    #[error("the skipped values must be in 0..{values}, found {skipped}")]
    SkippedValues {
        /// How many values are skipped.
        skipped: usize,
        /// How many values there are.
        values: usize,
    },
    /// The value rows cannot be cut into heads.
    #[error("value_head_dim must be positive and divide the {rows} value rows, found {found}")]
    ValueHeadDim {
        /// Value rows of all heads together.
        rows: usize,
        /// The width of a head found.
        found: usize,
    },
    /// The query heads cannot be dealt evenly to the value heads.
    #[error(
        "key_up must hold one matrix per query head, a positive multiple of the {value_heads} value heads; \
         found {found}"
    )]
    HeadCount {
        /// Value heads, from the value rows.
        value_heads: usize,
        /// Matrices found.
        found: usize,
    },
    /// The eigenvalue solver did not converge.
    #[error("the {size} x {size} eigenproblem did not converge; is the moment a second moment?")]
    Eigen {
        /// Size of the moment.
        size: usize,
    },
}
