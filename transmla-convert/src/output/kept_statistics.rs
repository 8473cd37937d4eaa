//! Statistics of the original in the resume cache: what a run need not keep in memory, and the next need not take again.
//!
//! They lie in `.NAME.layers/statistics`, a folder for each [`Basis`] with a file for each part: its contents, and behind them a SHA-256
//! of what they follow from, the part's name and the contents. So a part that is there is what this run would make.

use std::fs;
use std::path::{Path, PathBuf};

use transmla_core::checkpoint::{Fingerprint, Place, read_regular, replace_file};
use transmla_core::{CheckpointError, CoreError, Decoder, LayeredModel};

use crate::output::resume_start::{Fields, hex, statistics_start};
use crate::solve::kept::{Basis, Kept, StatisticsStore};
use crate::spec::error::ConvertError;

/// The folder in the resume cache.
const FOLDER: &str = "statistics";

/// Digits of a fingerprint that tell folders from each other; what is in them has all of it.
const DIGITS: usize = 16;

/// Most bytes of a part, which is a layer's of one batch.
const LARGEST: u64 = 1 << 36;

/// The statistics of an original beside a place.
pub(crate) struct StatisticsFolder<'a> {
    source: &'a Decoder,
    folder: PathBuf,
    /// The names of those that this run has opened.
    opened: Vec<String>,
}

impl<'a> StatisticsFolder<'a> {
    /// Those beside the place of a model.
    ///
    /// # Errors
    /// The place has no name.
    pub fn beside(save_path: &Path, source: &'a Decoder) -> Result<Self, ConvertError> {
        Ok(Self {
            source,
            folder: Place::of(save_path)?.hidden("layers").join(FOLDER),
            opened: Vec::new(),
        })
    }

    /// Folders of statistics of that name that this run has not asked for.
    fn others(&self, name: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_other = |entry: &fs::DirEntry| {
            let found = entry.file_name().to_string_lossy().into_owned();
            let same_kind = found.rsplit_once('-').is_some_and(|(kind, _)| kind == name);
            same_kind && !self.opened.contains(&found)
        };
        entries.filter(is_other).map(|entry| entry.path()).collect()
    }
}

impl StatisticsStore for StatisticsFolder<'_> {
    fn open(&mut self, basis: &Basis<'_>) -> Result<Box<dyn Kept>, ConvertError> {
        let device = format!("{:?}", self.source.device());
        let fingerprint = statistics_start(basis, self.source, &device)?;
        let name = format!("{}-{}", basis.name, &hex(&fingerprint)[..DIGITS]);
        let folder = self.folder.join(&name);
        self.opened.push(name);
        clear_partial(&folder);
        Ok(Box::new(Parts {
            folder,
            fingerprint,
            others: self.others(basis.name),
        }))
    }
}

/// Removes what a killed process has not finished.
fn clear_partial(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let partial = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    // What stays takes room and nothing else.
    partial.for_each(|entry| drop(fs::remove_file(entry.path())));
}

/// Statistics of one basis.
struct Parts {
    folder: PathBuf,
    fingerprint: Fingerprint,
    /// Folders that are of no use once this run has something of its own.
    others: Vec<PathBuf>,
}

impl Parts {
    fn file(&self, part: &str) -> PathBuf {
        self.folder.join(part)
    }

    fn checksum(&self, part: &str, contents: &[u8]) -> Fingerprint {
        let mut fields = Fields::default();
        fields.add("fingerprint", self.fingerprint);
        fields.add(part, contents);
        fields.end()
    }
}

impl Kept for Parts {
    fn write(&mut self, part: &str, mut contents: Vec<u8>) -> Result<(), ConvertError> {
        for other in self.others.drain(..) {
            fs::remove_dir_all(&other).map_err(|error| CoreError::io("remove", &other, error))?;
        }
        fs::create_dir_all(&self.folder).map_err(|error| CoreError::io("create", &self.folder, error))?;
        let checksum = self.checksum(part, &contents);
        contents.extend_from_slice(&checksum);
        let file = self.file(part);
        replace_file(&file, &contents).map_err(|error| CoreError::io("write", &file, error))?;
        Ok(())
    }

    fn read(&self, part: &str) -> Option<Vec<u8>> {
        let mut contents = read_regular(&self.file(part), LARGEST).ok()?;
        let end = contents.len().checked_sub(size_of::<Fingerprint>())?;
        let (found, checksum) = contents.split_at(end);
        if self.checksum(part, found) != checksum {
            return None;
        }
        contents.truncate(end);
        Some(contents)
    }

    fn remove(&mut self, part: &str) -> Result<(), ConvertError> {
        let file = self.file(part);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CoreError::io("remove", &file, error).into())
            }
            _ => Ok(()),
        }
    }

    fn lost(&self, part: &str) -> ConvertError {
        let error = CheckpointError::File {
            path: self.file(part),
            problem: "it is not what this conversion has written there; run the same command again".into(),
        };
        CoreError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(folder: &Path, others: Vec<PathBuf>) -> Parts {
        Parts {
            folder: folder.to_path_buf(),
            fingerprint: [7; 32],
            others,
        }
    }

    #[test]
    fn a_part_is_what_was_written_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("gradients-1");
        let mut kept = parts(&at, Vec::new());
        assert_eq!(kept.read("a"), None);
        kept.remove("a").unwrap();
        for contents in [vec![1, 2, 3], Vec::new(), vec![9; 1000]] {
            kept.write("a", contents.clone()).unwrap();
            assert_eq!(kept.read("a"), Some(contents));
        }
        // Under another name, from another start, cut short, with a flipped bit.
        fs::copy(at.join("a"), at.join("b")).unwrap();
        assert_eq!(kept.read("b"), None);
        let other = Parts {
            fingerprint: [8; 32],
            ..parts(&at, Vec::new())
        };
        assert_eq!(other.read("a"), None);
        let whole = fs::read(at.join("a")).unwrap();
        for length in [0, 31, 32, whole.len() - 1] {
            fs::write(at.join("a"), &whole[..length]).unwrap();
            assert_eq!(kept.read("a"), None, "{length}");
        }
        for position in [0, 500, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[position] ^= 4;
            fs::write(at.join("a"), damaged).unwrap();
            assert_eq!(kept.read("a"), None, "{position}");
        }
        assert!(kept.lost("a").to_string().contains("gradients-1"));
        kept.remove("a").unwrap();
        assert!(!at.join("a").exists());
    }

    #[test]
    fn what_no_run_can_use_goes_when_there_is_something_new() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("gradients-0");
        parts(&old, Vec::new()).write("a", vec![1]).unwrap();
        let mut kept = parts(&folder.path().join("gradients-1"), vec![old.clone()]);
        assert!(old.exists());
        kept.write("a", vec![1]).unwrap();
        assert!(!old.exists());
        kept.write("b", vec![1]).unwrap();
        fs::write(kept.folder.join(".b.partial-7"), "x").unwrap();
        clear_partial(&kept.folder);
        assert_eq!(fs::read_dir(&kept.folder).unwrap().count(), 2);
    }

    /// A folder where the file should be stands for a disk that takes nothing.
    #[test]
    fn what_cannot_be_written_is_an_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = parts(folder.path(), Vec::new());
        fs::create_dir(folder.path().join("a")).unwrap();
        let error = kept.write("a", vec![1]).unwrap_err().to_string();
        assert!(error.contains("write") && error.contains("/a"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(kept.read("a"), None);
    }
}
