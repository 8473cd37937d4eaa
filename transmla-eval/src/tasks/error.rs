//! The errors of tasks.

use transmla_calib::CalibError;

use crate::error::EvalError;

/// Why tasks cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A name that is neither a task, a group nor a file.
    #[error("there is no task {name}; expected {known}, or a file with tasks (.toml)")]
    Unknown {
        /// The name.
        name: String,
        /// The tasks that there are.
        known: String,
    },
    /// A file with tasks says something that it cannot mean.
    #[error("{file}: {problem}")]
    Definition {
        /// The file.
        file: String,
        /// What, with the line and the key.
        problem: String,
    },
    /// A record is not as the task expects.
    #[error("{task}, record {record} of the {split} split: {problem}")]
    Record {
        /// The task.
        task: String,
        /// The split.
        split: String,
        /// Index of the record.
        record: usize,
        /// What is wrong.
        problem: String,
    },
    /// More examples than there are.
    #[error("{task}: {wanted} examples were asked for, the {split} split has {found} records; ask for fewer")]
    FewExamples {
        /// The task.
        task: String,
        /// The split that examples are from.
        split: String,
        /// Number of examples.
        wanted: usize,
        /// Number of records.
        found: usize,
    },
    /// Chat templates are asked for, and the model has none.
    #[error("the model has no chat template")]
    NoChatTemplate,
    /// Nothing to start a text with, which an empty context needs.
    #[error(
        "{task}, record {record}: its context is empty, and the tokenizer names no token that starts a text (bos_token, eos_token)"
    )]
    NoStart {
        /// The task.
        task: String,
        /// Index of the record.
        record: usize,
    },
    /// A request cannot be scored.
    #[error("{task}, record {record}: {problem}")]
    Request {
        /// The task.
        task: String,
        /// Index of the record.
        record: usize,
        /// Why.
        problem: String,
    },
    /// A dataset or the tokenizer.
    #[error(transparent)]
    Text(#[from] CalibError),
    /// The model.
    #[error(transparent)]
    Eval(#[from] EvalError),
}
