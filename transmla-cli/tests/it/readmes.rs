//! The programs in the READMEs of the libraries are the examples that are compiled and run.

use std::path::{Path, PathBuf};

/// The folders of the libraries that have a README.
fn libraries() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    folders
        .filter(|folder| folder.join("src/lib.rs").is_file() && folder.join("README.md").is_file())
        .collect()
}

#[test]
fn programs_of_readmes_are_examples() {
    let libraries = libraries();
    assert!(libraries.len() >= 2, "{libraries:?}");
    for folder in libraries {
        let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
        let program = readme
            .split("```rust\n")
            .nth(1)
            .and_then(|rest| rest.split("```\n").next());
        let program = program.unwrap_or_else(|| panic!("{} has no program", folder.display()));
        let name = readme
            .split("`examples/")
            .nth(1)
            .and_then(|rest| rest.split('`').next());
        let name = name.unwrap_or_else(|| panic!("{} names no example", folder.display()));
        let example = std::fs::read_to_string(folder.join("examples").join(name)).unwrap();
        assert_eq!(program, example, "{}", folder.display());
    }
}
