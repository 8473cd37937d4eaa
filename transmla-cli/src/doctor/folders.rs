//! Folders that are written to: whether they can be, and how much room there is.

use std::path::Path;

use transmla_core::checkpoint::Place;

use super::finding::Finding;
use crate::{environment, table};

/// Room that a small conversion takes.
const LITTLE_ROOM: u64 = 1 << 30;

/// A folder and what it is for.
struct Folder<'a> {
    name: &'static str,
    path: &'a Path,
    /// Whether nothing works without it.
    needed: bool,
    /// What to do where it cannot be used.
    fix: &'static str,
}

/// The temporary folder, the working folder and the hub's cache.
pub fn check() -> Vec<Finding> {
    let temporary = std::env::temp_dir();
    let mut findings = vec![
        folder(&Folder {
            name: "temporary",
            path: &temporary,
            needed: true,
            fix: "set TMPDIR to a folder that can be written to",
        }),
        folder(&Folder {
            name: "working folder",
            path: Path::new("."),
            needed: false,
            fix: "go to another folder, or give --save-path and --output places that can be written to",
        }),
    ];
    findings.push(match environment::hub_cache() {
        Some(cache) => folder(&Folder {
            name: "hub cache",
            path: &cache,
            needed: false,
            fix: "set HF_HOME to a folder that can be written to; models in local folders need none",
        }),
        None => Finding::warn(
            "hub cache",
            "none: there is no home folder",
            "set HF_HOME to a folder; models in local folders need none",
        ),
    });
    findings
}

fn folder(folder: &Folder<'_>) -> Finding {
    let (name, fix) = (folder.name, folder.fix);
    let shown = match folder.path == Path::new(".") {
        true => std::env::current_dir().unwrap_or_else(|_| folder.path.to_path_buf()),
        false => folder.path.to_path_buf(),
    };
    let shown = shown.display();
    // One that is made when it is needed lies in the first folder above it that is there.
    let existing = folder.path.ancestors().find(|path| path.exists());
    let existing = existing
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let probed = tempfile::Builder::new().prefix(".transmla-").tempfile_in(existing);
    if let Err(error) = probed {
        // Without the name of the file that was tried.
        let error = error.to_string();
        let why = error.split(" at path ").next().unwrap_or_default();
        let found = format!("{shown} cannot be written to: {why}");
        return match folder.needed {
            true => Finding::fail(name, found, fix),
            false => Finding::warn(name, found, fix),
        };
    }
    let free = Place::of(&existing.join("new"))
        .ok()
        .and_then(|place| place.free_bytes());
    let state = match folder.path.exists() {
        true => "writable",
        false => "made when it is needed",
    };
    match free {
        Some(free) if free < LITTLE_ROOM => Finding::warn(
            name,
            format!("{shown}: {state}, {} free", table::bytes(free)),
            "free some room: a model of 135 million parameters takes 0.3 GiB, one of 7 billion 14 GiB",
        ),
        Some(free) => Finding::ok(name, format!("{shown}: {state}, {} free", table::bytes(free))),
        None => Finding::ok(name, format!("{shown}: {state}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn found(path: &Path, needed: bool) -> Finding {
        folder(&Folder {
            name: "place",
            path,
            needed,
            fix: "choose another",
        })
    }

    #[test]
    fn folders_are_tried_and_left_as_they_were() {
        let place = tempfile::tempdir().unwrap();
        assert!(found(place.path(), true).found.contains("writable"));
        let later = place.path().join("a/b");
        assert!(found(&later, true).found.contains("made when it is needed"));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (needed, state) in [(true, State::Fail), (false, State::Warn)] {
            let finding = found(&file.join("below"), needed);
            assert_eq!(finding.state, state, "{finding:?}");
            assert_eq!(finding.fix.as_deref(), Some("choose another"));
        }
    }
}
