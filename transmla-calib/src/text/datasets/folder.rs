//! Finding the files of a split in a folder laid out as on the hub.

use std::path::{Path, PathBuf};

use crate::error::CalibError;
use crate::text::datasets::split::Split;
use crate::text::rows::file::Format;

/// Most file names listed in an error.
const LISTED: usize = 8;

/// The files of a split, in the order of their names, and the split that was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SplitFiles {
    pub split: Split,
    pub files: Vec<PathBuf>,
}

/// Looks for a split in the folder, its `data` folder and the folders named after the split, else for a split that may stand
/// in for it. If no file is named after a split, all files are the train split.
///
/// # Errors
/// [`CalibError::NoSplit`] if there is neither, [`CalibError::Io`] if the folder cannot be listed.
pub(crate) fn find(folder: &Path, wanted: Split) -> Result<SplitFiles, CalibError> {
    for split in wanted.candidates() {
        let files = files_of(folder, split)?;
        if !files.is_empty() {
            return Ok(SplitFiles { split, files });
        }
    }
    let only_test = wanted != Split::Test && !files_of(folder, Split::Test)?.is_empty();
    Err(CalibError::NoSplit {
        folder: folder.to_path_buf(),
        wanted,
        hint: if only_test {
            "text that is evaluated on must not be calibrated on; add a train or validation file"
        } else {
            "expected a file such as train-00000-of-00001.parquet, validation.jsonl or test.txt"
        },
        found: listing(folder)?,
    })
}

fn files_of(folder: &Path, split: Split) -> Result<Vec<PathBuf>, CalibError> {
    let files = named_after(folder, split)?;
    if !files.is_empty() || split != Split::Train {
        return Ok(files);
    }
    for other in [Split::Validation, Split::Test] {
        if !named_after(folder, other)?.is_empty() {
            return Ok(Vec::new());
        }
    }
    for root in [folder.to_path_buf(), folder.join("data")] {
        let files = of_one_format(entries(&root)?);
        if !files.is_empty() {
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

/// The files named after a split, or in a folder named after it.
fn named_after(folder: &Path, split: Split) -> Result<Vec<PathBuf>, CalibError> {
    for root in [folder.to_path_buf(), folder.join("data")] {
        let mut files = entries(&root)?;
        files.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| split.names_file(name))
        });
        if files.is_empty() {
            for alias in split.aliases() {
                files.extend(entries(&root.join(alias))?);
            }
        }
        let files = of_one_format(files);
        if !files.is_empty() {
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

/// The data files of the most preferred format: the same rows are often stored in several formats.
fn of_one_format(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    // What is not a regular file is kept: reading it fails with an error that says what it is.
    files.retain(|path| !is_beside_data(path) && !path.is_dir());
    let best = files.iter().filter_map(|path| Format::of(path)).min();
    files.retain(|path| best.is_some() && Format::of(path) == best);
    files.sort();
    files
}

/// Whether a file is documentation or metadata that lies beside the data.
fn is_beside_data(path: &Path) -> bool {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let stem = name.split('.').next().unwrap_or_default();
    name.starts_with(['.', '_'])
        || [
            "readme",
            "license",
            "licence",
            "notice",
            "citation",
            "changelog",
            "contributing",
        ]
        .contains(&stem)
        || [
            "dataset_info.json",
            "dataset_infos.json",
            "dataset_dict.json",
            "state.json",
        ]
        .contains(&name.as_str())
}

/// The entries of a folder; none if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, CalibError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(|e| CalibError::io("list", folder, e))
}

fn listing(folder: &Path) -> Result<String, CalibError> {
    let mut names: Vec<String> = entries(folder)?
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    Ok(match (names.is_empty(), more) {
        (true, _) => "nothing".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        folder
    }

    fn found(files: &[&str], wanted: Split) -> Option<(Split, Vec<String>)> {
        let folder = folder(files);
        let found = find(folder.path(), wanted).ok()?;
        let relative = |path: &PathBuf| path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
        Some((found.split, found.files.iter().map(relative).collect()))
    }

    #[test]
    fn finds_shards_in_every_layout() {
        let shards = [
            "train-00001-of-00002.parquet",
            "train-00000-of-00002.parquet",
            "test.txt",
            "README.md",
        ];
        let (split, files) = found(&shards, Split::Train).unwrap();
        assert_eq!(split, Split::Train);
        assert_eq!(files, ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]);
        let one = |files: &[&str], wanted| found(files, wanted).unwrap().1;
        assert_eq!(one(&["data/train-0.parquet"], Split::Train), ["data/train-0.parquet"]);
        assert_eq!(
            one(&["test/0000.parquet", "train/0000.parquet"], Split::Test),
            ["test/0000.parquet"]
        );
        assert_eq!(
            one(&["data/dev/a.jsonl", "data/dev/state.json"], Split::Validation),
            ["data/dev/a.jsonl"]
        );
        assert_eq!(
            one(&["val.txt", "val.parquet", "val.csv"], Split::Validation),
            ["val.parquet"]
        );
    }

    #[test]
    fn splits_are_named_in_many_ways() {
        let one = |file: &str, wanted| found(&[file, "README.md"], wanted).map(|(split, _)| split);
        for file in [
            "wiki.train.raw",
            "my-train-data.jsonl",
            "Train.TXT",
            "train0.jsonl",
            "train_1.json.gz",
            "training.jsonl.zst",
            "data/c4-train.00000-of-01024.json",
        ] {
            assert_eq!(one(file, Split::Train), Some(Split::Train), "{file}");
            assert_eq!(one(file, Split::Test), None, "{file}");
        }
        for file in ["wiki.valid.raw", "dev.txt", "x_val.jsonl", "Validation.parquet"] {
            assert_eq!(one(file, Split::Validation), Some(Split::Validation), "{file}");
        }
        for file in ["wiki.test.raw", "test1.txt", "eval.jsonl"] {
            assert_eq!(one(file, Split::Test), Some(Split::Test), "{file}");
            assert_eq!(one(file, Split::Train), None, "{file}");
        }
        // The first name counts.
        assert_eq!(one("test-of-train.txt", Split::Train), None);
    }

    #[test]
    fn files_without_split_names_are_the_train_split() {
        let beside = [
            "README.md",
            "LICENSE.txt",
            "dataset_infos.json",
            ".hidden.txt",
            "_SUCCESS.txt",
        ];
        let with = |files: &[&'static str], wanted| found(&[&beside[..], files].concat(), wanted);
        let (split, files) = with(&["part-1.jsonl", "part-0.jsonl", "attest.txt"], Split::Train).unwrap();
        assert_eq!(
            (split, files),
            (Split::Train, vec!["part-0.jsonl".into(), "part-1.jsonl".into()])
        );
        assert_eq!(with(&["data/0.parquet"], Split::Validation).unwrap().0, Split::Train);
        // Never for what is evaluated on, and not beside files that are named after one.
        assert_eq!(with(&["part-0.jsonl"], Split::Test), None);
        assert_eq!(with(&["part-0.jsonl", "test.jsonl"], Split::Train), None);
        assert_eq!(with(&[], Split::Train), None);
    }

    #[test]
    fn stands_in_but_never_with_the_test_split() {
        let (train, validation, test) = ("train.txt", "valid.txt", "test.txt");
        let split = |files: &[&str], wanted| found(files, wanted).map(|(split, _)| split);
        assert_eq!(split(&[validation, test], Split::Train), Some(Split::Validation));
        assert_eq!(split(&[train, test], Split::Validation), Some(Split::Train));
        assert_eq!(split(&[train, validation], Split::Test), Some(Split::Validation));
        assert_eq!(split(&[train], Split::Test), None);
        assert_eq!(split(&[test], Split::Train), None);
        assert_eq!(split(&[test], Split::Validation), None);
        let error = find(folder(&[test]).path(), Split::Train).unwrap_err().to_string();
        assert!(
            error.contains("must not be calibrated on") && error.contains("found: test.txt"),
            "{error}"
        );
        let error = find(folder(&[]).path(), Split::Test).unwrap_err().to_string();
        assert!(
            error.contains("no test split") && error.contains("found: nothing"),
            "{error}"
        );
        let many: Vec<String> = (0..11).map(|i| format!("{i}.csv")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = find(folder(&many).path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("and 3 more"), "{error}");
    }
}
