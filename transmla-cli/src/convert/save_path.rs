//! Whether a model can be saved, found out before any work is done.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Checks that the folder can be made.
///
/// What is there already must be replaced on purpose, and is only replaced if it is a model or empty.
pub fn check(target: &Path, force: bool) -> anyhow::Result<()> {
    let path = target.display();
    if target.file_name().is_none() && !target.exists() {
        bail!("--save-path {path} has no folder name; give a path such as outputs");
    }
    if target.symlink_metadata().is_ok() {
        if !force {
            bail!("--save-path {path} exists; pass --force to replace it, or choose another --save-path");
        }
        if target.file_name().is_none() || !is_replaceable(target)? {
            bail!(
                "--save-path {path} exists and is no model (it has no config.json), so --force does not replace it; \
                 choose another --save-path"
            );
        }
    }
    let parent = existing_parent(target);
    if !parent.is_dir() {
        let parent = parent.display();
        bail!("cannot create --save-path {path}: {parent} is a file, not a folder; choose another --save-path");
    }
    let probe = tempfile::Builder::new().prefix(".transmla-").tempfile_in(&parent);
    probe.with_context(|| {
        let parent = parent.display();
        format!("cannot create --save-path {path}: {parent} cannot be written to; choose another --save-path")
    })?;
    Ok(())
}

/// Checks that saving does not replace the model that is converted.
pub fn check_apart(target: &Path, model: &Path) -> anyhow::Result<()> {
    let (Ok(target_path), Ok(model)) = (target.canonicalize(), model.canonicalize()) else {
        return Ok(());
    };
    if model.starts_with(&target_path) {
        let (path, model) = (target.display(), model.display());
        bail!("--save-path {path} would replace the model to convert, {model}; choose another --save-path");
    }
    Ok(())
}

fn is_replaceable(target: &Path) -> anyhow::Result<bool> {
    if !target.is_dir() {
        return Ok(false);
    }
    if target.join("config.json").is_file() {
        return Ok(true);
    }
    let mut entries = std::fs::read_dir(target).with_context(|| format!("cannot list {}", target.display()))?;
    Ok(entries.next().is_none())
}

/// The nearest folder above that exists; the working directory for a bare name.
fn existing_parent(target: &Path) -> PathBuf {
    let above = target.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    let mut existing = above.filter(|path| path.exists());
    existing.next().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(target: &Path, force: bool) -> String {
        check(target, force).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn says_why_a_folder_cannot_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join("file"), "").unwrap();
        std::fs::create_dir_all(root.join("home/model")).unwrap();
        std::fs::create_dir(root.join("empty")).unwrap();
        std::fs::write(root.join("home/model/config.json"), "{}").unwrap();
        for (path, force, word) in [
            ("new", false, ""),
            ("a/b/c", false, ""),
            ("empty", false, "--force"),
            ("empty", true, ""),
            ("home/model", true, ""),
            ("home", true, "no model"),
            ("file", true, "no model"),
            ("file/x", false, "is a file"),
            ("file/x/y", true, "is a file"),
            ("no/..", false, "no folder name"),
        ] {
            let found = problem(&root.join(path), force);
            assert!(
                found.contains(word) && found.is_empty() == word.is_empty(),
                "{path}: {found}"
            );
        }
        assert_eq!(std::fs::read_dir(root).unwrap().count(), 3);
    }

    #[test]
    fn the_source_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        assert!(check_apart(&model, &model).is_err());
        assert!(check_apart(folder.path(), &model).is_err());
        assert!(check_apart(&model.join("mla"), &model).is_ok());
    }
}
