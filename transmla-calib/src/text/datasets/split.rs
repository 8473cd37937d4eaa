//! The splits of a dataset, and how files are named after them.

use std::fmt;

/// A part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// For fitting and calibration.
    Train,
    /// For choices, such as hyperparameters.
    Validation,
    /// For the results that are reported.
    Test,
}

impl Split {
    /// The name of the split on the hub.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// The names that files and folders of this split go by.
    pub(crate) fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train", "training"],
            Self::Validation => &["validation", "valid", "val", "dev"],
            Self::Test => &["test", "testing", "eval", "evaluation"],
        }
    }

    /// The splits that may be read when this one is asked for, best first.
    ///
    /// The test split never stands in for another: a model calibrated on it could not be evaluated on it.
    pub(crate) fn candidates(self) -> [Self; 2] {
        match self {
            Self::Train => [Self::Train, Self::Validation],
            Self::Validation => [Self::Validation, Self::Train],
            Self::Test => [Self::Test, Self::Validation],
        }
    }

    /// Whether a file is named after this split: `train-00000-of-00001.parquet`, `wiki.train.raw`, `Train.txt`.
    ///
    /// The split must be a word of its own in the name without the extension; the first such word counts.
    pub(crate) fn names_file(self, file_name: &str) -> bool {
        let lower = file_name.to_lowercase();
        let stem = lower.rsplit_once('.').map_or("", |(stem, _)| stem);
        let mut words = stem.split(|c: char| !c.is_alphabetic());
        let splits = [Self::Train, Self::Validation, Self::Test];
        let named = |word: &str| splits.into_iter().find(|split| split.aliases().contains(&word));
        words.find_map(named) == Some(self)
    }

    /// Whether a path inside a hub repository belongs to this split, by its file name or one of its folders.
    pub(crate) fn owns(self, path: &str) -> bool {
        let mut parts = path.rsplit('/');
        parts.next().is_some_and(|file| self.names_file(file)) || parts.any(|folder| self.aliases().contains(&folder))
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_tell_their_split() {
        assert!(Split::Train.names_file("train-00000-of-00001.parquet"));
        assert!(Split::Validation.names_file("val.txt"));
        assert!(Split::Validation.names_file("valid_1.jsonl.gz"));
        assert!(!Split::Validation.names_file("values.txt"));
        assert!(!Split::Test.names_file("test"));
        assert!(!Split::Test.names_file("tests.txt"));
        assert!(Split::Test.owns("penn_treebank/test/0000.parquet"));
        assert!(Split::Test.owns("wikitext-2-raw-v1/test-00000-of-00001.parquet"));
        assert!(!Split::Test.owns("penn_treebank/train/0000.parquet"));
    }
}
