//! Errors of text.

use std::path::{Path, PathBuf};

use transmla_checkpoint::CheckpointError;

use crate::text::datasets::split::Split;

/// An error of another crate that caused one of ours.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why text, a tokenizer or samples cannot be used.
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
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A dataset is neither known by name nor a path that exists.
    #[error("'{name}' is neither one of wikitext2, ptb, c4, alpaca nor an existing file or folder")]
    UnknownDataset {
        /// The name.
        name: String,
    },
    /// A dataset folder has neither the split nor one that may stand in for it.
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
    /// A dataset folder has no records of a split.
    #[error(
        "{}: no parquet or JSON file of the split {split}{}; expected for instance {}{split}-00000-of-00001.parquet",
        folder.display(),
        config.as_ref().map(|config| format!(" of {config}")).unwrap_or_default(),
        config.as_ref().map(|config| format!("{config}/")).unwrap_or_default()
    )]
    NoRecords {
        /// The folder.
        folder: PathBuf,
        /// The split asked for.
        split: String,
        /// The configuration asked for.
        config: Option<String>,
    },
    /// A dataset file has no text column.
    #[error(
        "{}: no text column{}: expected text, sentence, content, messages, conversations or a single column of strings, or \
         column = NAME; found {}",
        path.display(), wanted.as_ref().map(|name| format!(" {name}")).unwrap_or_default(), columns.join(", ")
    )]
    NoTextColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for, if one was.
        wanted: Option<String>,
        /// The columns of the file, with their types.
        columns: Vec<String>,
    },
    /// A path is a pipe, a device or something else that is not a regular file.
    #[error("{} is {found}; only regular files are read; put its content into one", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A record of a dataset file is longer than is read.
    #[error(
        "{}: {place} is longer than {limit}, the most that is read as one record; write one record on a line, of less text",
        path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The line or the record, by number.
        place: String,
        /// The longest that is read.
        limit: String,
    },
    /// A dataset file is damaged, or not of the format that its name says.
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
        /// The supported formats, and how to convert to one.
        supported: String,
    },
    /// A dataset contains no text.
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
    /// A chat template cannot be used, or refuses a chat.
    #[error("chat template {file}: {problem}")]
    ChatTemplate {
        /// The file.
        file: String,
        /// What is wrong, in the template's own words where it has some.
        problem: String,
        /// What the parser or the template engine said, where one did.
        #[source]
        cause: Option<Cause>,
    },
    /// A text is too short for one sample or window.
    #[error("{needed} tokens are needed in a row, the text yields {found}: {hint}")]
    TooShort {
        /// Number of tokens of a sample or window.
        needed: usize,
        /// Number of tokens of the text.
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
    /// Texts cannot be mixed as asked.
    #[error("cannot mix calibration texts: {problem}")]
    Mix {
        /// What is wrong.
        problem: String,
    },
    /// The hub failed, or ids do not form a batch.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl CalibError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn chat_template(
        file: impl Into<String>,
        problem: impl Into<String>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::ChatTemplate {
            file: file.into(),
            problem: problem.into(),
            cause: Some(Box::new(cause)),
        }
    }

    pub(crate) fn unusable_template(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::ChatTemplate {
            file: file.into(),
            problem: problem.into(),
            cause: None,
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

    /// A read that failed: invalid compressed bytes are the fault of the file, all else that of the system.
    pub(crate) fn reading(path: &Path, source: std::io::Error) -> Self {
        // Errors of the system have kinds of their own; `Other` is what the zstd library reports.
        use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        match source.kind() {
            InvalidData | InvalidInput | Other | UnexpectedEof => Self::undecodable(path, source.to_string(), source),
            _ => Self::io("read", path, source),
        }
    }
}
