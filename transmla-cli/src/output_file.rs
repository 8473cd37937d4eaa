//! Files that a command writes: none that it reads, and none that exists unless that is asked for.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use transmla_core::checkpoint::replace_file;
use transmla_core::hub::is_path;

use crate::embedded;
use crate::links::{ends_of_entries, names_of, own_name};

/// What names a file of tensors that no model is loaded from.
const EXPORTED: &str = "gguf";

/// A file to write, and the option that names it.
#[derive(Debug, Clone, Copy)]
pub struct OutputFile<'a> {
    /// As on the command line.
    pub option: &'static str,
    /// Where it goes.
    pub path: &'a Path,
    /// Whether an existing file may be replaced.
    pub force: bool,
}

impl OutputFile<'_> {
    /// Checks that nothing is in its place, or a file that may be replaced.
    ///
    /// # Errors
    /// A file exists and `force` is not set; a folder, a device or a pipe is there.
    pub fn check_free(&self) -> anyhow::Result<()> {
        let (option, path) = (self.option, self.path.display());
        let own = own_name(self.path);
        // Asked of the link itself: one that leads nowhere is there too.
        if fs::symlink_metadata(&own).is_err() {
            return Ok(());
        }
        match fs::metadata(&own) {
            Ok(data) if data.is_dir() => bail!("cannot write {path}: it is a folder; give {option} a file"),
            Ok(data) if !data.is_file() => {
                bail!("cannot write {path}: it is a device or a pipe, not a regular file; give {option} a file")
            }
            _ if !self.force => bail!("{path} exists; pass --force to overwrite it, or another {option}"),
            _ => Ok(()),
        }
    }

    /// Checks that it is not one of the files that the command reads, or of a folder that it reads, by whatever links they
    /// are reached.
    ///
    /// # Errors
    /// It is, with the words that go with that input.
    pub fn check_not_read<'b>(&self, inputs: impl IntoIterator<Item = (&'b str, &'b Path)>) -> anyhow::Result<()> {
        if fs::symlink_metadata(own_name(self.path)).is_err() {
            return Ok(());
        }
        let (option, path) = (self.option, self.path.display());
        let outputs = names_of(self.path);
        for (what, input) in inputs {
            let read = everything_of(input);
            let is_read = |output: &PathBuf| {
                let of_folder = |part: &PathBuf| output.starts_with(part) && !is_exported(output);
                read.iter().any(|part| output == part || of_folder(part))
            };
            if outputs.iter().any(is_read) {
                let input = input.display();
                bail!("{option} {path} would overwrite {what}, {input}; choose another {option}");
            }
        }
        Ok(())
    }

    /// Checks that it is not one of a model's files, by the folder that the model is read from and by the path that was given.
    ///
    /// # Errors
    /// It is.
    pub fn check_not_of_model(&self, model: &str, folder: &Path) -> anyhow::Result<()> {
        let given = (model != embedded::MODEL && is_path(model)).then(|| Path::new(model));
        self.check_not_read([folder].into_iter().chain(given).map(|path| ("the model", path)))
    }

    /// Writes the file; what it replaces is replaced by its name, so that nothing is written through links.
    ///
    /// # Errors
    /// Without `force`, a file that has come to exist; the disk is full or cannot be written to.
    pub fn write(&self, contents: &[u8]) -> anyhow::Result<()> {
        self.check_free()?;
        let fail = || format!("cannot write {}", self.path.display());
        if self.force {
            return replace_file(self.path, contents).with_context(fail);
        }
        let mut file = fs::File::create_new(self.path).with_context(fail)?;
        let written = file.write_all(contents);
        if written.is_err() {
            let _ = fs::remove_file(self.path);
        }
        written.with_context(fail)
    }

    /// Whether this is the same file as another, which need not exist.
    pub fn is_same(&self, other: &Path) -> bool {
        let others = names_of(other);
        names_of(self.path).iter().any(|name| others.contains(name))
    }
}

/// A file or folder by its names, and what a folder's entries are links to; exported files are not read.
fn everything_of(input: &Path) -> Vec<PathBuf> {
    let ends = ends_of_entries(input).filter(|end| !is_exported(end));
    names_of(input).into_iter().chain(ends).collect()
}

fn is_exported(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXPORTED)
}
