//! Reading a dataset file of any format.

use std::path::Path;

use crate::error::CalibError;
use crate::text::open::SUPPORTED;
use crate::text::rows::collected::Rows;
use crate::text::rows::{json_rows, parquet_rows, plain_rows};

/// A file format, in order of preference where a folder has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    Parquet,
    Json,
    Plain,
}

/// Extensions of compressed files that are read.
const COMPRESSED: [&str; 4] = [".gz", ".gzip", ".zst", ".zstd"];

/// Extensions of compressed files and archives that are not read.
const PACKED: [&str; 9] = [".xz", ".bz2", ".zip", ".7z", ".lz4", ".br", ".lzma", ".tar", ".tgz"];

impl Format {
    /// The format by a file's name, ignoring case.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let plain = COMPRESSED
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(&name);
        match plain.rsplit_once('.')?.1 {
            "parquet" if plain == name => Some(Self::Parquet),
            "jsonl" | "ndjson" | "json" => Some(Self::Json),
            "txt" | "text" | "raw" | "md" => Some(Self::Plain),
            _ => None,
        }
    }
}

/// Reads the rows of a file, from the column `column` if one is named.
pub(crate) fn read(path: &Path, column: Option<&str>, rows: &mut Rows) -> Result<(), CalibError> {
    match Format::of(path) {
        Some(Format::Parquet) => parquet_rows::read(path, column, rows),
        Some(Format::Json) => json_rows::read(path, column, rows),
        Some(Format::Plain) => plain_rows::read(path, rows),
        None => Err(unsupported(path)),
    }
}

fn unsupported(path: &Path) -> CalibError {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let packed = PACKED.iter().find(|end| name.ends_with(**end));
    let (found, way_out) = match (packed, name.rsplit_once('.').map(|(_, end)| end)) {
        (Some(end), _) => (
            format!("{} files", &end[1..]),
            "unpack it, or compress it with gzip or zstd",
        ),
        (_, Some("csv" | "tsv" | "arrow" | "feather")) => (
            "a table of this kind".into(),
            "write it as parquet or jsonl first, e.g. datasets.load_dataset(…)[\"train\"].to_parquet(file)",
        ),
        _ => ("a file of this name".into(), "rename it if it is one of these"),
    };
    CalibError::Unsupported {
        path: path.to_path_buf(),
        found,
        supported: format!("{SUPPORTED}; {way_out}"),
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
        assert_eq!(of("A.JSONL.GZ"), Some(Format::Json));
        assert_eq!(of("a.jsonl.zst"), Some(Format::Json));
        assert_eq!(of("a.txt.gz"), Some(Format::Plain));
        assert_eq!(of("wiki.train.raw"), Some(Format::Plain));
        assert_eq!(of("a.parquet.gz"), None);
        assert_eq!(of("a.csv"), None);
        assert_eq!(of("gz"), None);
    }
}
