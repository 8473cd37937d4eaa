//! Targets, plans and what lies in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use transmla_checkpoint::{CheckpointError, CheckpointWriter, StorageDtype, TensorSpec};

/// A folder with room for a target named `model`.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn target(&self) -> PathBuf {
        self.path().join("model")
    }

    /// Makes a target that holds one file with this text.
    pub fn put_old_target(&self, text: &str) {
        put_folder(&self.target(), text);
    }

    /// Names of everything in the folder, hidden or not.
    pub fn names(&self) -> Vec<String> {
        names(self.path())
    }
}

pub fn put_folder(folder: &Path, text: &str) {
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("text"), text).unwrap();
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A plan of two tensors, 6 and 4 numbers.
pub fn plan() -> Vec<TensorSpec> {
    vec![TensorSpec::new("a", [2, 3]), TensorSpec::new("b", [4])]
}

/// A writer of [`plan`] in F32 and one shard.
pub fn create(target: &Path, replace: bool) -> Result<CheckpointWriter, CheckpointError> {
    CheckpointWriter::create(target, &plan(), StorageDtype::F32, u64::MAX, replace)
}

/// Writes all of [`plan`].
pub fn fill(writer: &mut CheckpointWriter) {
    writer.write("a", &[1.0; 6]).unwrap();
    writer.write("b", &[2.0; 4]).unwrap();
}

/// Reads the one file of a folder of [`put_folder`].
pub fn text(folder: &Path) -> String {
    fs::read_to_string(folder.join("text")).unwrap()
}
