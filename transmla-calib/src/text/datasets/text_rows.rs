//! The rows of a split, read from its files.

use std::path::{Path, PathBuf};

use transmla_checkpoint::hub::{RepoKind, cached_repo};

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
    /// For people: the files, the column, and the split that was read, with a note if it is not the one asked for. Files in
    /// the hub's cache are named as the hub has them, `org/name@COMMIT/file`, with the beginning of the commit.
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
            format!("{} … {name} ({} files)", name_of(first), files.len())
        }
        _ => files.iter().map(|path| name_of(path)).collect(),
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

/// A file as people know it: by its dataset and commit, if it lies in a snapshot of the hub's cache.
fn name_of(path: &Path) -> String {
    /// Characters of a commit that tell it from others.
    const COMMIT: usize = 12;
    let on_hub = |folder: &Path| {
        let repo = cached_repo(folder).filter(|repo| repo.kind == RepoKind::Dataset)?;
        let commit = repo.commit.as_deref()?.get(..COMMIT)?.to_owned();
        let file = path.strip_prefix(folder).ok()?.display();
        Some(format!("{}@{commit}/{file}", repo.id))
    };
    let found = path.ancestors().skip(1).find_map(on_hub);
    found.unwrap_or_else(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_cache_have_their_names_on_the_hub() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let named = |path: String| name_of(Path::new(&path));
        assert_eq!(
            named(format!(
                "/cache/datasets--Salesforce--wiki-text/snapshots/{commit}/a/b.parquet"
            )),
            "Salesforce/wiki-text@0123456789ab/a/b.parquet"
        );
        for other in [
            "/texts/a.txt".to_owned(),
            "datasets--a--b/a.txt".to_owned(),
            "/cache/datasets--a--b/snapshots/main/c.txt".to_owned(),
            format!("/cache/models--a--b/snapshots/{commit}/c.txt"),
        ] {
            assert_eq!(named(other.clone()), other);
        }
    }
}
