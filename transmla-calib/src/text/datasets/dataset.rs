//! Datasets by name or path.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use transmla_checkpoint::hub::HubOptions;

use crate::error::CalibError;
use crate::text::datasets::named;
use crate::text::datasets::split::Split;
use crate::text::datasets::text_rows::{ReadOptions, TextRows, from_files, from_folder};

/// A dataset on the hub, or a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatasetSource {
    /// `wikitext-2-raw-v1` of `Salesforce/wikitext` on the hub, column `text`.
    Wikitext2,
    /// The Penn treebank, `ptb-text-only/ptb_text_only` on the hub, column `sentence`.
    Ptb,
    /// The first English shard of `allenai/c4` on the hub, column `text`; its validation file is also its test split.
    C4,
    /// `tatsu-lab/alpaca` on the hub, column `text`, shuffled by a fixed seed and split 80/10/10.
    Alpaca,
    /// A file, which serves as any split, or a folder with one or more files for each split.
    ///
    /// Files are parquet, JSON or plain text; the latter two may be compressed with gzip or zstd. JSON is one object per line,
    /// an array of objects or strings, or an object with such an array. The rows of plain text are its paragraphs, or its
    /// lines if there are no blank lines between them; it may be UTF-8, UTF-16 or windows-1252. The text is the column `text`,
    /// else `sentence`, else `content`, else a chat (`messages`, `conversations`), else the only column of strings.
    /// A chat is a row, in the chat template of [`ReadOptions::chat_model`] or as plain text.
    ///
    /// In a folder, files are named after their split (`train-00000-of-00001.parquet`, `wiki.valid.raw`) or lie in a folder
    /// named after it, at the top or in `data`. Shards are read in the order of their names. If no file is named after a split,
    /// all files are the train split. A path spelled like one of the names above needs a `./` before it.
    Path(PathBuf),
}

impl FromStr for DatasetSource {
    type Err = CalibError;

    fn from_str(text: &str) -> Result<Self, CalibError> {
        match text {
            "wikitext2" | "wikitext" => Ok(Self::Wikitext2),
            "ptb" => Ok(Self::Ptb),
            "c4" => Ok(Self::C4),
            "alpaca" => Ok(Self::Alpaca),
            path if Path::new(path).exists() => Ok(Self::Path(PathBuf::from(path))),
            name => Err(CalibError::UnknownDataset { name: name.to_owned() }),
        }
    }
}

impl fmt::Display for DatasetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wikitext2 => f.write_str("wikitext2"),
            Self::Ptb => f.write_str("ptb"),
            Self::C4 => f.write_str("c4"),
            Self::Alpaca => f.write_str("alpaca"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// Reads one split of a dataset; of a hub dataset only that split's files are fetched.
///
/// If a folder lacks the split, validation stands in for train and test, and train for validation. At most the first GiB of a
/// split is read, and rows of more than 1 MiB are split. [`TextRows::origin`] says so where it happens.
///
/// # Errors
/// [`CalibError::Checkpoint`] if the hub fails; [`CalibError::Io`], [`CalibError::NotAFile`] and [`CalibError::NoSplit`] if a
/// file or the split cannot be found or read; [`CalibError::Corrupt`], [`CalibError::Unsupported`],
/// [`CalibError::NoTextColumn`] and [`CalibError::TooLong`] for a file that is damaged, of another format, without a text
/// column or with too long a record; [`CalibError::Empty`] if there is no text.
pub fn load(source: &DatasetSource, split: Split, hub: &HubOptions) -> Result<TextRows, CalibError> {
    load_with(source, split, &ReadOptions::default(), hub)
}

/// Reads one split of a dataset as [`load`] does, from a column of one's choice, with chats in a model's template.
///
/// # Errors
/// As for [`load`]; [`CalibError::ChatTemplate`] if the model's template cannot be used, or refuses every chat.
pub fn load_with(
    source: &DatasetSource,
    split: Split,
    options: &ReadOptions<'_>,
    hub: &HubOptions,
) -> Result<TextRows, CalibError> {
    let text = match source {
        DatasetSource::Wikitext2 => named::wikitext2(split, hub),
        DatasetSource::Ptb => named::ptb(split, hub),
        DatasetSource::C4 => named::c4(split, hub),
        DatasetSource::Alpaca => named::alpaca(split, hub),
        DatasetSource::Path(path) if path.is_dir() => from_folder(path, split, options),
        DatasetSource::Path(path) => from_files(std::slice::from_ref(path), None, "the file as a whole", options),
    }?;
    if text.rows.iter().all(|row| row.trim().is_empty()) {
        return Err(CalibError::Empty { origin: text.origin });
    }
    Ok(text)
}
