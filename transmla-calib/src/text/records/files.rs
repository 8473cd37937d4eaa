//! The files of a split, as the hub lays them out.

use std::path::{Path, PathBuf};

use transmla_checkpoint::hub::{HubOptions, dataset_folder};

use crate::error::CalibError;
use crate::text::records::read::read;
use crate::text::records::value::Record;
use crate::text::rows::file::Format;

/// A dataset on the hub by what its tasks ask of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSource {
    /// Repository: `allenai/ai2_arc`.
    pub dataset: String,
    /// Configuration, if it has several: `ARC-Easy`.
    pub config: Option<String>,
    /// Revision on the hub.
    pub revision: String,
    /// The file of the only split, where names do not tell it.
    pub file: Option<String>,
}

impl RecordSource {
    /// All records of a split, by its name on the hub: `train`, `validation`, `test`, `dev`.
    ///
    /// With `root` it is the folder `root/DATASET` that is read, laid out as the repository; else the hub's.
    ///
    /// # Errors
    /// [`CalibError::NoRecords`] if there is no file of that split, [`CalibError::Checkpoint`] if the hub fails, and those of
    /// damaged files.
    pub fn load(&self, split: &str, root: Option<&Path>, hub: &HubOptions) -> Result<Vec<Record>, CalibError> {
        let folder = match root {
            Some(root) => root.join(&self.dataset),
            None => {
                let wanted = |file: &str| match &self.file {
                    Some(only) => file == only,
                    None => self.place_of(file).is_some() && is_of_split(file, split),
                };
                dataset_folder(&self.dataset, &self.revision, hub, &wanted)?
            }
        };
        let files = match &self.file {
            Some(only) => vec![folder.join(only)],
            None => self.files(&folder, split)?,
        };
        if files.is_empty() {
            return Err(CalibError::NoRecords {
                folder,
                split: split.to_owned(),
                config: self.config.clone(),
            });
        }
        let mut records = Vec::new();
        for file in files {
            read(&file, &mut records)?;
        }
        Ok(records)
    }

    /// Files of a split in the folders where the hub keeps them, the first folder that has some.
    fn files(&self, folder: &Path, split: &str) -> Result<Vec<PathBuf>, CalibError> {
        let mut places: Vec<PathBuf> = self.config.iter().map(|config| folder.join(config)).collect();
        places.push(folder.join("data"));
        places.push(folder.to_path_buf());
        // A converted script has a folder for each split.
        places.extend(self.config.iter().map(|config| folder.join(config).join(split)));
        for place in places {
            let mut files = listed(&place)?;
            let in_own_folder = place.file_name().is_some_and(|name| name == split);
            files.retain(|file| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                matches!(Format::of(file), Some(Format::Parquet | Format::Json))
                    && (in_own_folder || is_of_split(&name, split))
            });
            let best = files.iter().filter_map(|file| Format::of(file)).min();
            files.retain(|file| Format::of(file) == best);
            files.sort();
            if !files.is_empty() {
                return Ok(files);
            }
        }
        Ok(Vec::new())
    }

    /// Which of the folders a path of the repository is in.
    fn place_of(&self, file: &str) -> Option<()> {
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let config = self.config.as_deref().unwrap_or("data");
        let of_config = folder == config || folder.strip_prefix(config).is_some_and(|rest| rest.starts_with('/'));
        (of_config || folder == "data" || folder.is_empty()).then_some(())
    }
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, CalibError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect());
    let mut entries: Vec<PathBuf> = entries.map_err(|e| CalibError::io("list", folder, e))?;
    entries.retain(|path| !path.is_dir());
    Ok(entries)
}

/// Whether the first word of a path that is the name of a split, in its file or its folders, names this one.
fn is_of_split(path: &str, split: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let words = name.split(|c: char| !c.is_alphanumeric()).chain(folder.rsplit('/'));
    let named = words.map(canonical).find(|word| SPLITS.contains(word));
    named == Some(canonical(split))
}

/// Names of splits.
const SPLITS: [&str; 4] = ["train", "validation", "test", "dev"];

fn canonical(word: &str) -> &str {
    match word {
        "training" => "train",
        "valid" | "val" => "validation",
        "testing" => "test",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(config: Option<&str>) -> RecordSource {
        RecordSource {
            dataset: "a/b".into(),
            config: config.map(str::to_owned),
            revision: "main".into(),
            file: None,
        }
    }

    fn found(files: &[&str], config: Option<&str>, split: &str) -> usize {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join("a/b").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{\"a\": 1}\n").unwrap();
        }
        source(config)
            .load(split, Some(root.path()), &HubOptions::default())
            .map_or(0, |records| records.len())
    }

    #[test]
    fn splits_are_found_in_every_layout() {
        assert_eq!(
            found(
                &["C/test-0.jsonl", "C/test-1.jsonl", "D/test-0.jsonl"],
                Some("C"),
                "test"
            ),
            2
        );
        assert_eq!(found(&["C/validation-0.jsonl", "C/dev-0.jsonl"], Some("C"), "dev"), 1);
        assert_eq!(found(&["C/val.jsonl"], Some("C"), "validation"), 1);
        assert_eq!(found(&["data/x_test.jsonl", "README.md"], Some("default"), "test"), 1);
        assert_eq!(found(&["test.json"], None, "test"), 1);
        assert_eq!(found(&["C/test/0000.jsonl"], Some("C"), "test"), 1);
        assert_eq!(found(&["C/test-0.jsonl"], Some("C"), "train"), 0);
        let error = source(None)
            .load("test", Some(Path::new("nowhere")), &HubOptions::default())
            .unwrap_err();
        let says = error.to_string();
        assert!(says.contains("nowhere/a/b") && says.contains("test"), "{says}");
    }

    #[test]
    fn of_the_hub_only_what_is_read_is_fetched() {
        let source = source(Some("C"));
        let wanted = |file: &str| source.place_of(file).is_some() && is_of_split(file, "test");
        assert!(wanted("C/test-00000-of-00001.parquet") && wanted("C/test/0000.parquet") && wanted("data/test.jsonl"));
        assert!(!wanted("D/test-0.parquet") && !wanted("C/train-0.parquet") && !wanted("Cd/test-0.parquet"));
    }
}
