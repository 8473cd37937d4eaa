//! The errors of this crate.

use std::path::{Path, PathBuf};

use transmla_core::CoreError;

use crate::text::datasets::split::Split;

/// An error of another crate, as the cause of one of ours.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong with calibration text, tokenizers and samples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "list".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A dataset argument is no known name and no path.
    #[error("'{name}' is neither one of wikitext2, ptb, c4, alpaca nor an existing file or folder")]
    UnknownDataset {
        /// The argument.
        name: String,
    },
    /// A dataset folder lacks the split and all that may stand in for it.
    #[error("{} has no {wanted} split: {hint}; found: {found}", folder.display())]
    NoSplit {
        /// The folder.
        folder: PathBuf,
        /// The split asked for.
        wanted: Split,
        /// What to do about it.
        hint: &'static str,
        /// The files that are there.
        found: String,
    },
    /// No column of a dataset file is the text.
    #[error(
        "{}: no text column{}: expected text, sentence, content, messages, conversations or a single column of strings, or \
         `column` NAME; found {}",
        path.display(), wanted.as_ref().map(|name| format!(" {name}")).unwrap_or_default(), columns.join(", ")
    )]
    NoTextColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for, if one was.
        wanted: Option<String>,
        /// Its columns with their types.
        columns: Vec<String>,
    },
    /// A dataset file is a pipe, a device or something else that is no regular file.
    #[error("{} is {found}; only regular files are read; put its content into one", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A record of a dataset file is too long.
    #[error(
        "{}: {place} is longer than {limit}, the most that is read as one record; write one record on a line, of less text",
        path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The line or record.
        place: String,
        /// The limit.
        limit: String,
    },
    /// A dataset file is damaged or not of the format its name says.
    #[error("{}: {problem}; download or write the file again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line or row.
        problem: String,
        /// What the decoder said, where one did.
        #[source]
        cause: Option<Cause>,
    },
    /// A dataset file is of a format or compression that cannot be read.
    #[error("{}: cannot read {found}; supported: {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: String,
        /// The formats that work and how to get there.
        supported: String,
    },
    /// A dataset has no text in it.
    #[error("{origin} holds no text; use another file or split")]
    Empty {
        /// File, column and split.
        origin: String,
    },
    /// A folder has no usable tokenizer.
    #[error("tokenizer {}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do about it.
        problem: String,
        /// What the parser said, where one did.
        #[source]
        cause: Option<Cause>,
    },
    /// The tokenizer failed on a text or on token ids.
    #[error("tokenizer {} failed to {action}: {problem}; download or copy it again", path.display())]
    Tokenization {
        /// The file.
        path: PathBuf,
        /// What was tried, as a verb: "encode", "decode".
        action: &'static str,
        /// The tokenizer's reason.
        problem: String,
        /// What the tokenizer said.
        #[source]
        cause: Cause,
    },
    /// A text is too short for a single sample or window.
    #[error("{needed} tokens are needed in a row, the text yields {found}: {hint}")]
    TooShort {
        /// Tokens of one sample or window.
        needed: usize,
        /// Tokens there are.
        found: usize,
        /// What to do about it, with a value that works.
        hint: String,
    },
    /// An argument is out of its range.
    #[error("{name} is {found}; expected {expected}")]
    Argument {
        /// The argument.
        name: &'static str,
        /// Its value.
        found: usize,
        /// The allowed range.
        expected: String,
    },
    /// Token ids do not form a batch.
    #[error("token ids: {0}")]
    Tokens(String),
    /// Texts cannot be mixed as asked.
    #[error("cannot mix calibration texts: {problem}")]
    Mix {
        /// What does not fit.
        problem: String,
    },
    /// The hub or a token file failed.
    #[error(transparent)]
    Core(#[from] CoreError),
}

impl CalibError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn corrupt(path: &Path, problem: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_path_buf(),
            problem: problem.into(),
            cause: None,
        }
    }

    /// What a decoder said of a file; `problem` quotes it.
    pub(crate) fn undecodable(path: &Path, problem: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self::Corrupt {
            path: path.to_path_buf(),
            problem: problem.into(),
            cause: Some(cause.into()),
        }
    }

    /// A read that failed: bytes that decompress to nonsense are the file's fault, all else is the system's.
    pub(crate) fn reading(path: &Path, source: std::io::Error) -> Self {
        // What the system says has a kind of its own; `Other` is what the zstd library says.
        use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        match source.kind() {
            InvalidData | InvalidInput | Other | UnexpectedEof => Self::undecodable(path, source.to_string(), source),
            _ => Self::io("read", path, source),
        }
    }
}
