//! Which files a model in GGUF consists of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::cursor::invalid;
use crate::checkpoint::file_names::{INDEX, SINGLE};
use crate::checkpoint::regular::is_there;
use crate::error::CheckpointError;
use crate::pickle;

/// Most files that a model is split into.
const MOST_PARTS: usize = 10_000;

/// Files that a message names at most.
const NAMED: usize = 5;

/// The (first) GGUF file of a model: the path itself, or the only one of a folder without other weights. Nothing for other
/// folders.
///
/// # Errors
/// The folder has several.
pub(super) fn locate(model: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    if is_there(model) {
        let name = model.file_name().map(|name| name.to_string_lossy().into_owned());
        let is_gguf = name.as_deref().is_some_and(is_gguf);
        return Ok(is_gguf.then(|| first_part(model)));
    }
    let others = [SINGLE, INDEX, pickle::SINGLE, pickle::INDEX];
    if others.iter().any(|name| is_there(&model.join(name))) {
        return Ok(None);
    }
    let entries = std::fs::read_dir(model).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let found: BTreeSet<PathBuf> = names
        .filter(|name| is_gguf(name) && !name.starts_with("mmproj"))
        .map(|name| first_part(&model.join(name)))
        .collect();
    match found.len() {
        0 | 1 => Ok(found.into_iter().next()),
        several => {
            let names = found.iter().take(NAMED).filter_map(|path| path.file_name());
            let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
            Err(CheckpointError::File {
                path: model.to_path_buf(),
                problem: format!(
                    "the folder has {several} GGUF files: {}{}; give the path of one of them",
                    names.join(", "),
                    if several > NAMED { ", …" } else { "" }
                ),
            })
        }
    }
}

fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

/// A file's name in front of its number, its number and their count, where it is one of several.
fn part(file: &Path) -> Option<(String, usize, usize)> {
    let name = file.file_name()?.to_str()?;
    let stem = name.get(..name.len().checked_sub(5)?)?;
    let (front, count) = stem.rsplit_once("-of-")?;
    let (front, number) = front.rsplit_once('-')?;
    let digits = |text: &str| match text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok(),
        false => None,
    };
    Some((front.to_owned(), digits(number)?, digits(count)?))
}

/// The first of the files that one belongs to.
fn first_part(file: &Path) -> PathBuf {
    match part(file) {
        Some((front, _, count)) => file.with_file_name(format!("{front}-00001-of-{count:05}.gguf")),
        None => file.to_path_buf(),
    }
}

/// All files of a model by its first one, which says that there are so many.
///
/// # Errors
/// One is missing, or name and number contradict each other.
pub(super) fn parts(first: &Path, announced: Option<u64>) -> Result<Vec<PathBuf>, CheckpointError> {
    let announced = announced.unwrap_or(1);
    let Some((front, _, count)) = part(first) else {
        return match announced {
            0 | 1 => Ok(vec![first.to_path_buf()]),
            several => Err(invalid(
                first,
                format!("it is one of {several} files, but is not called NAME-00001-of-{several:05}.gguf as they are"),
            )),
        };
    };
    if count == 0 || count > MOST_PARTS || (announced > 1 && announced != count as u64) {
        return Err(invalid(
            first,
            format!("by its name it is one of {count} files, by its header one of {announced}"),
        ));
    }
    let paths: Vec<PathBuf> = (1..=count)
        .map(|number| first.with_file_name(format!("{front}-{number:05}-of-{count:05}.gguf")))
        .collect();
    match paths.iter().find(|path| !is_there(path)) {
        Some(missing) => Err(CheckpointError::MissingFile {
            path: missing.clone(),
            hint: format!("the model is in {count} files; download all of them into one folder"),
        }),
        None => Ok(paths),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_told_by_its_name() {
        assert_eq!(
            part(Path::new("a/m-q4-00002-of-00003.gguf")),
            Some(("m-q4".into(), 2, 3))
        );
        for name in [
            "m.gguf",
            "m-1-of-2.gguf",
            "m-00001-of-0002.gguf",
            "m-0000x-of-00002.gguf",
            "é.gguf",
            "gguf",
        ] {
            assert_eq!(part(Path::new(name)), None, "{name}");
        }
        assert_eq!(
            first_part(Path::new("a/m-00002-of-00003.gguf")),
            Path::new("a/m-00001-of-00003.gguf")
        );
    }

    #[test]
    fn a_folder_has_one_model() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        assert_eq!(locate(folder.path()).unwrap(), None);
        put("mmproj-f16.gguf");
        assert_eq!(locate(folder.path()).unwrap(), None);
        put("m-00001-of-00002.gguf");
        put("m-00002-of-00002.gguf");
        let first = folder.path().join("m-00001-of-00002.gguf");
        assert_eq!(locate(folder.path()).unwrap(), Some(first.clone()));
        assert_eq!(
            locate(&folder.path().join("m-00002-of-00002.gguf")).unwrap(),
            Some(first.clone())
        );
        assert_eq!(parts(&first, Some(2)).unwrap().len(), 2);
        assert!(parts(&first, Some(3)).is_err() && parts(&folder.path().join("m.gguf"), Some(2)).is_err());
        std::fs::remove_file(folder.path().join("m-00002-of-00002.gguf")).unwrap();
        assert!(
            parts(&first, Some(2))
                .unwrap_err()
                .to_string()
                .contains("m-00002-of-00002")
        );
        put("other.gguf");
        let error = locate(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("2 GGUF files") && error.contains("other.gguf"),
            "{error}"
        );
        put(SINGLE);
        assert_eq!(locate(folder.path()).unwrap(), None);
    }
}
