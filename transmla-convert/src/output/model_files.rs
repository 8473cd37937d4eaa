//! The files of a finished model: what a conversion has written, and may be handed on.

use std::fs;
use std::path::{Path, PathBuf};

use transmla_core::CheckpointError;
use transmla_core::checkpoint::read_regular_text;

use crate::output::manifest::{LARGEST_RECIPE, Manifest, RECIPE_FILE};
use crate::spec::error::ConvertError;

/// The model card, which may be completed by hand.
const CARD: &str = "README.md";

/// The files of a converted model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// What the conversion has written, by name in the folder, with its bytes.
    pub files: Vec<(String, u64)>,
    /// What else lies in the folder.
    pub others: Vec<String>,
}

impl ModelFiles {
    /// Those of a folder, by the list in its `transmla.toml`.
    ///
    /// Sizes must be those that were written, but for the model card's. Links are not followed.
    ///
    /// # Errors
    /// [`ConvertError::Unfinished`] for a folder that no conversion has written or finished, and for one without a model card.
    pub fn of(folder: &Path) -> Result<Self, ConvertError> {
        let refuse = |problem: String| ConvertError::Unfinished {
            folder: folder.to_path_buf(),
            problem,
        };
        if !folder.is_dir() {
            return Err(refuse("there is no such folder".into()));
        }
        let text = match read_regular_text(&folder.join(RECIPE_FILE), LARGEST_RECIPE) {
            Err(CheckpointError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(refuse(format!("it has no {RECIPE_FILE}, which a conversion writes")));
            }
            text => text?,
        };
        let listed = toml::from_str::<Manifest>(&text);
        let listed = listed
            .map_err(|_| refuse(format!("its {RECIPE_FILE} lists no files")))?
            .files;
        if !listed.contains_key(CARD) {
            return Err(refuse(format!("it has no model card ({CARD})")));
        }
        let mut files = vec![(RECIPE_FILE.to_owned(), text.len() as u64)];
        for (name, written) in listed {
            let bytes =
                own_bytes(folder, &name).ok_or_else(|| refuse(format!("{name} is missing, or no file of its own")))?;
            if bytes != written && name != CARD {
                return Err(refuse(format!("{name} has {bytes} bytes where {written} were written")));
            }
            files.push((name, bytes));
        }
        let is_listed = |other: &str| {
            let inside = format!("{other}/");
            files.iter().any(|(name, _)| name == other || name.starts_with(&inside))
        };
        let entries = fs::read_dir(folder).map_err(|error| CheckpointError::io("list", folder, error))?;
        let names = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut others: Vec<String> = names.filter(|name| !is_listed(name)).collect();
        others.sort();
        Ok(Self { files, others })
    }
}

/// Size of a file that lies in a folder itself, not behind a link.
fn own_bytes(folder: &Path, name: &str) -> Option<u64> {
    let path: PathBuf = folder.join(name);
    let real = path.canonicalize().ok()?;
    let data = path.symlink_metadata().ok()?;
    let is_own = real == folder.canonicalize().ok()?.join(name);
    (is_own && data.is_file()).then_some(data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(folder: &Path) -> String {
        ModelFiles::of(folder).unwrap_err().to_string()
    }

    #[test]
    fn a_model_is_what_was_listed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("m");
        assert!(problem(&folder).contains("no such folder"));
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        assert!(problem(&folder).contains("no transmla.toml"));
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("transmla.toml", "model-path = \"x\"\n");
        assert!(problem(&folder).contains("lists no files"));
        write("transmla.toml", "[files]\n\"config.json\" = 2\n");
        assert!(problem(&folder).contains("no model card"));
        write(
            "transmla.toml",
            "[files]\n\"README.md\" = 1\n\"config.json\" = 2\n\"sub/x\" = 3\n",
        );
        write("README.md", "edited");
        write("config.json", "{}");
        assert!(problem(&folder).contains("sub/x is missing"));
        write("sub/x", "xx");
        assert!(problem(&folder).contains("sub/x has 2 bytes where 3"));
        write("sub/x", "xxx");
        write("notes", "mine");
        let found = ModelFiles::of(&folder).unwrap();
        let names: Vec<&str> = found.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["transmla.toml", "README.md", "config.json", "sub/x"]);
        assert_eq!((found.files[1].1, found.others), (6, vec!["notes".to_owned()]));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_no_files_of_a_model() {
        let place = tempfile::tempdir().unwrap();
        let (folder, secret) = (place.path().join("m"), place.path().join("secret"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&secret, "xxx").unwrap();
        std::fs::write(folder.join("README.md"), "x").unwrap();
        for name in ["x", "../secret", "sub/secret"] {
            std::fs::write(
                folder.join("transmla.toml"),
                format!("[files]\n\"README.md\" = 1\n{name:?} = 3\n"),
            )
            .unwrap();
            let _ = std::os::unix::fs::symlink(&secret, folder.join("x"));
            let _ = std::os::unix::fs::symlink(place.path(), folder.join("sub"));
            assert!(problem(&folder).contains("no file of its own"), "{name}");
        }
    }
}
