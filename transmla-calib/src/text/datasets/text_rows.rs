//! The rows of a split, read from its files.

use std::path::{Path, PathBuf};

use crate::error::CalibError;
use crate::text::datasets::folder::{self, SplitFiles};
use crate::text::datasets::split::Split;
use crate::text::rows::chat_form::ChatForm;
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
    /// Whether the rows are chats in a model's template, which writes special tokens itself: no others go around them, and
    /// nothing goes between them.
    pub templated: bool,
}

/// What is read of a dataset, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadOptions<'a> {
    /// The column that is the text; `data.text` is the field `text` inside the column `data`. Ignored for plain text, which
    /// has no columns, and for the datasets known by name.
    pub column: Option<&'a str>,
    /// The folder of the model whose chat template chats are rendered with. Without one, or if it has no template, they are
    /// plain text.
    pub chat_model: Option<&'a Path>,
}

/// The rows of a split in a folder, or of the split that stands in for it.
pub(crate) fn from_folder(path: &Path, wanted: Split, options: &ReadOptions<'_>) -> Result<TextRows, CalibError> {
    let SplitFiles { split, files } = folder::find(path, wanted)?;
    let note = if split == wanted {
        format!("{split} split")
    } else {
        format!("{split} split (there is no {wanted} split)")
    };
    from_files(&files, Some(split), &note, options)
}

/// The rows of several files, in order.
pub(crate) fn from_files(
    files: &[PathBuf],
    split: Option<Split>,
    note: &str,
    options: &ReadOptions<'_>,
) -> Result<TextRows, CalibError> {
    let mut rows = Rows::with(ChatForm::of(options.chat_model));
    for path in files {
        if rows.is_full() {
            break;
        }
        file::read(path, options.column, &mut rows)?;
    }
    let templated = rows.chats.is_templated();
    rows.remarks.extend(std::mem::take(&mut rows.chats).finish()?);
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
        templated,
    })
}
