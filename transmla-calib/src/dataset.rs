//! Datasets by name or path, and their rows.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use transmla_core::hub::HubOptions;

use crate::folder::SplitFiles;
use crate::{CalibError, Split, file, folder, named};

/// Where text comes from.
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
    /// Files are parquet, JSON lines (or one JSON array of objects) or plain text, the latter two gzipped or not; the
    /// rows of a plain text are its paragraphs. The text is column `text`, else `sentence`, else `content`, else the
    /// only column of strings. In a folder the files are named after their split (`train-00000-of-00001.parquet`,
    /// `valid.txt`) or lie in a folder so named, there or in `data`; shards are read in the order of their names.
    /// A path that is spelled like one of the names above is told apart by a `./` before it.
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

/// The rows of one split of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRows {
    /// The rows in the order of the files, empty ones included.
    pub rows: Vec<String>,
    /// For people: the files, the column, the split that was read and, if it is not the one asked for, that it is not.
    pub origin: String,
    /// The split that was read; nothing for a single file, which serves as any.
    pub split: Option<Split>,
}

/// Reads one split of a dataset; of a hub dataset only that split's files are fetched.
///
/// Where a folder lacks the split, validation stands in for train and test, and train for validation; `origin` says so.
///
/// # Errors
/// The hub, a file or the split cannot be had ([`CalibError::Core`], [`CalibError::Io`], [`CalibError::NoSplit`]), a
/// file is damaged or has no text column ([`CalibError::Corrupt`], [`CalibError::Unsupported`],
/// [`CalibError::NoTextColumn`]), or there is no text in it ([`CalibError::Empty`]).
pub fn load(source: &DatasetSource, split: Split, hub: &HubOptions) -> Result<TextRows, CalibError> {
    let text = match source {
        DatasetSource::Wikitext2 => named::wikitext2(split, hub),
        DatasetSource::Ptb => named::ptb(split, hub),
        DatasetSource::C4 => named::c4(split, hub),
        DatasetSource::Alpaca => named::alpaca(split, hub),
        DatasetSource::Path(path) if path.is_dir() => from_folder(path, split),
        DatasetSource::Path(path) => from_files(std::slice::from_ref(path), None, "the file as a whole"),
    }?;
    if text.rows.iter().all(|row| row.trim().is_empty()) {
        return Err(CalibError::Empty { origin: text.origin });
    }
    Ok(text)
}

/// The rows of a split, or of its stand-in, in a folder.
pub(crate) fn from_folder(path: &Path, wanted: Split) -> Result<TextRows, CalibError> {
    let SplitFiles { split, files } = folder::find(path, wanted)?;
    let note = if split == wanted {
        format!("{split} split")
    } else {
        format!("{split} split (there is no {wanted} split)")
    };
    from_files(&files, Some(split), &note)
}

/// The rows of some files, one after the other.
pub(crate) fn from_files(files: &[PathBuf], split: Option<Split>, note: &str) -> Result<TextRows, CalibError> {
    let mut rows = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for path in files {
        let part = file::read(path)?;
        rows.extend(part.rows);
        if !part.column.is_empty() && !columns.contains(&part.column) {
            columns.push(part.column);
        }
    }
    let place = match files {
        [first, .., last] => {
            let name = last.file_name().unwrap_or_default().to_string_lossy();
            format!("{} … {name} ({} files)", first.display(), files.len())
        }
        _ => files.iter().map(|path| path.display().to_string()).collect(),
    };
    let columns = match columns.as_slice() {
        [] => String::new(),
        [paragraphs] if paragraphs == "paragraphs" => ", paragraphs".into(),
        columns => format!(", column {}", columns.join(" and ")),
    };
    Ok(TextRows {
        rows,
        origin: format!("{place}{columns}, {note}"),
        split,
    })
}
