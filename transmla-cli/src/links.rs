//! Files and folders by every name that leads to them.

use std::fs;
use std::path::{Path, PathBuf};

use transmla_core::checkpoint::real_path;

/// The name in its real folder, as writers find it: a path may lead out of a folder that is not there.
pub fn own_name(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real_path(parent).join(name),
        _ => real_path(path),
    }
}

/// A path by its own name and by the end of its links.
pub fn names_of(path: &Path) -> Vec<PathBuf> {
    let own = own_name(path);
    let end = own.canonicalize().ok();
    [own].into_iter().chain(end).collect()
}

/// Where the links among a folder's entries end, and the entries that are none.
pub fn ends_of_entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.path().canonicalize().ok())
}
