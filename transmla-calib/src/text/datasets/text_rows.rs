//! The rows of a split, read from its files.

use std::path::{Path, PathBuf};

use crate::error::CalibError;
use crate::text::datasets::folder::{self, SplitFiles};
use crate::text::datasets::split::Split;
use crate::text::rows::collected::Rows;
use crate::text::rows::file;

/// The rows of one split of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRows {
    /// The rows in the order of the files, empty ones included.
    pub rows: Vec<String>,
    /// For people: the files, the column, and the split that was read, with a note if it is not the one asked for.
    pub origin: String,
    /// The split that was read; `None` for a single file, which serves as any split.
    pub split: Option<Split>,
}

/// The rows of a split in a folder, or of the split that stands in for it.
pub(crate) fn from_folder(path: &Path, wanted: Split, column: Option<&str>) -> Result<TextRows, CalibError> {
    let SplitFiles { split, files } = folder::find(path, wanted)?;
    let note = if split == wanted {
        format!("{split} split")
    } else {
        format!("{split} split (there is no {wanted} split)")
    };
    from_files(&files, Some(split), &note, column)
}

/// The rows of several files, in order.
pub(crate) fn from_files(
    files: &[PathBuf],
    split: Option<Split>,
    note: &str,
    column: Option<&str>,
) -> Result<TextRows, CalibError> {
    let mut rows = Rows::default();
    for path in files {
        if rows.is_full() {
            break;
        }
        file::read(path, column, &mut rows)?;
    }
    let place = match files {
        [first, .., last] => {
            let name = last.file_name().unwrap_or_default().to_string_lossy();
            format!("{} … {name} ({} files)", first.display(), files.len())
        }
        _ => files.iter().map(|path| path.display().to_string()).collect(),
    };
    let columns = match rows.columns.as_slice() {
        [] => String::new(),
        [what] if what == "paragraphs" || what == "lines" => format!(", {what}"),
        columns => format!(", column {}", columns.join(" and ")),
    };
    let remarks: String = rows.remarks.iter().map(|remark| format!(", {remark}")).collect();
    Ok(TextRows {
        rows: rows.rows,
        origin: format!("{place}{remarks}{columns}, {note}"),
        split,
    })
}
