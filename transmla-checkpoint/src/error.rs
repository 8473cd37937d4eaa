//! The errors of this crate.

use std::path::{Path, PathBuf};

/// Errors of checkpoints, configurations, token files and the hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb: "read", "create", "rename".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file was written to, replaced or removed while it was in use.
    #[error(
        "{} has changed since it was opened: {problem}; leave the model's files alone while they are read, and run the \
         command again",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is different.
        problem: String,
    },
    /// Another conversion to the same place is under way.
    #[error(
        "another process{} is converting to {}; wait until it has ended, or choose another place",
        process.map_or_else(String::new, |id| format!(" ({id})")),
        target.display()
    )]
    Busy {
        /// The target of both.
        target: PathBuf,
        /// The other process, if its id is known.
        process: Option<u32>,
    },
    /// This process is ending and writes nothing more.
    #[error("{} is not written: the process is ending", path.display())]
    Ending {
        /// The file or folder that is not written.
        path: PathBuf,
    },
    /// A file cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A required file of a checkpoint folder is missing.
    #[error("{} is missing: {hint}", path.display())]
    MissingFile {
        /// The expected file.
        path: PathBuf,
        /// What to do about it.
        hint: String,
    },
    /// A JSON file is malformed.
    #[error("{}: {problem}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A key of config.json is absent or has an impossible value.
    #[error("config.json: {key}: {problem}")]
    Config {
        /// The key.
        key: String,
        /// What was expected and found.
        problem: String,
    },
    /// The configuration needs a feature that is not implemented.
    #[error("unsupported model: {feature} ({found}); supported: {supported}")]
    Unsupported {
        /// The feature.
        feature: &'static str,
        /// Its value in the configuration.
        found: String,
        /// The supported values.
        supported: String,
    },
    /// A safetensors file is truncated, corrupt or not a safetensors file.
    #[error("{} is not a valid safetensors file: {problem}; download or copy it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// A GGUF file is truncated, corrupt, or holds no model that is read.
    #[error("{} is no GGUF file that can be read: {problem}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// A file that torch has saved is damaged, or holds something else than a dict of tensors.
    #[error(
        "{} is a PyTorch pickle that is not read: {problem}; save the model as model.safetensors first (pickles hold programs, so only \
         where you trust it): python -c \"from transformers import AutoModelForCausalLM as M; \
         M.from_pretrained('{folder}').save_pretrained('{folder}', safe_serialization=True)\"",
        path.display(),
        folder = path.parent().unwrap_or(path).display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// A tensor is not in the checkpoint.
    #[error("tensor {name} is not in {}; the checkpoint is incomplete or of another architecture", folder.display())]
    MissingTensor {
        /// The tensor's name.
        name: String,
        /// The checkpoint folder or file.
        folder: PathBuf,
    },
    /// A tensor's shape differs from what the configuration implies.
    #[error("tensor {name}: config.json implies shape {expected:?}, the file has {found:?}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has an unsupported number format.
    #[error("tensor {name} has dtype {found}; supported: {supported}")]
    Dtype {
        /// The tensor's name.
        name: String,
        /// The dtype in the file.
        found: String,
        /// The supported formats.
        supported: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error(
        "tensor {name} holds {value} at element {index}; the checkpoint is damaged, nothing was converted from it; download it again, or take its bf16 or fp32 weights if fp16 overflowed"
    )]
    NonFinite {
        /// The tensor's name.
        name: String,
        /// Flat index of the first such element.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// A value does not fit the number format it must be stored in.
    #[error("tensor {name}: value {value} does not fit {dtype}; use bf16 or fp32 as `dtype`")]
    Overflow {
        /// The tensor's name.
        name: String,
        /// The value.
        value: f32,
        /// The storage dtype.
        dtype: &'static str,
    },
    /// A file of token ids is malformed.
    #[error("{}: {problem}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// Token ids do not form a batch.
    #[error("{problem}")]
    TokenBatch {
        /// What does not fit.
        problem: String,
    },
    /// A token id is outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}; were the ids made with another tokenizer?")]
    TokenOutOfRange {
        /// The id.
        id: i64,
        /// The model's vocabulary size.
        vocab_size: usize,
    },
    /// A model on the hub could not be resolved.
    #[error("hub repository {repo}: {problem}")]
    Hub {
        /// Repository id.
        repo: String,
        /// The reason.
        problem: String,
    },
    /// The hub does not answer, or refuses the token.
    #[error("{address} cannot be used: {problem}")]
    Unreachable {
        /// Where it was asked.
        address: String,
        /// What failed.
        problem: String,
    },
    /// A text names no number format.
    #[error("'{found}' is not one of fp32, fp16, bf16")]
    UnknownDtype {
        /// The text.
        found: String,
    },
    /// A text is not a size in bytes.
    #[error("'{found}' is not a size such as 5GB, 200MB or 2GiB")]
    UnknownSize {
        /// The text.
        found: String,
    },
    /// A write does not match the plan of a checkpoint writer.
    #[error("writing tensor {name}: {problem}")]
    Write {
        /// The tensor's name.
        name: String,
        /// What does not fit.
        problem: String,
    },
}

impl CheckpointError {
    /// An input/output error on a path.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn config(key: &str, problem: impl Into<String>) -> Self {
        Self::Config {
            key: key.to_owned(),
            problem: problem.into(),
        }
    }
}
