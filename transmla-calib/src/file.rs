//! One dataset file, whatever its format.

use std::path::Path;

use crate::column::FileRows;
use crate::{CalibError, line_rows, parquet_rows};

/// A file format, in the order of preference where a folder has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    Parquet,
    Json,
    Paragraphs,
}

impl Format {
    /// The format that a file's name promises.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        match plain.rsplit_once('.')?.1 {
            "parquet" if plain == name => Some(Self::Parquet),
            "jsonl" | "ndjson" | "json" => Some(Self::Json),
            "txt" => Some(Self::Paragraphs),
            _ => None,
        }
    }
}

/// Reads the rows of a file.
pub(crate) fn read(path: &Path) -> Result<FileRows, CalibError> {
    match Format::of(path) {
        Some(Format::Parquet) => parquet_rows::read(path),
        Some(Format::Json) => line_rows::read_json(path),
        Some(Format::Paragraphs) => line_rows::read_paragraphs(path),
        None => Err(CalibError::Unsupported {
            path: path.to_path_buf(),
            found: "a file of this name".into(),
            supported: ".parquet, .jsonl, .ndjson, .json, .txt, and all but the first with .gz",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_formats() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!(of("d/train-00000-of-00001.parquet"), Some(Format::Parquet));
        assert_eq!(of("c4-train.00000-of-01024.json.gz"), Some(Format::Json));
        assert_eq!(of("A.JSONL"), Some(Format::Json));
        assert_eq!(of("a.txt.gz"), Some(Format::Paragraphs));
        assert_eq!(of("a.parquet.gz"), None);
        assert_eq!(of("a.csv"), None);
        assert_eq!(of("gz"), None);
    }
}
