//! The errors of this crate.

use transmla_core::{CheckpointError, CoreError};

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The model could not be read or run.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// A window of one token predicts nothing.
    #[error("windows of {found} token predict nothing; at least 2 are needed")]
    ShortWindow {
        /// Tokens per window.
        found: usize,
    },
    /// The model's output is NaN or infinite.
    #[error("the model's output for window {window} is not finite: its weights are damaged or overflow")]
    NotFinite {
        /// Index of the window.
        window: usize,
    },
    /// A request for a log-likelihood that has no answer.
    #[error("request {index} cannot be scored: {problem}")]
    Request {
        /// Its index.
        index: usize,
        /// Why.
        problem: String,
    },
    /// The two models have different vocabularies.
    #[error(
        "the models have vocabularies of {first} and {second} tokens; only models with the same one can be compared"
    )]
    Vocabulary {
        /// Of the first model.
        first: usize,
        /// Of the second.
        second: usize,
    },
}

impl From<CheckpointError> for EvalError {
    fn from(error: CheckpointError) -> Self {
        CoreError::from(error).into()
    }
}
