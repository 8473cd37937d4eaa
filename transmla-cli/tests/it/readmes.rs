//! The programs in the READMEs of the libraries are the examples, which are compiled and run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folders of the libraries.
fn libraries() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let of_ours = |folder: &PathBuf| folder.file_name().unwrap().to_string_lossy().starts_with("transmla-");
    folders
        .filter(|folder| of_ours(folder) && folder.join("src/lib.rs").is_file())
        .collect()
}

#[test]
fn programs_of_readmes_are_the_examples() {
    let libraries = libraries();
    assert!(libraries.len() >= 7, "{libraries:?}");
    for folder in libraries {
        let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
        let blocks = readme.split("```rust\n").skip(1).map(|rest| rest.split("```\n").next());
        let programs: BTreeSet<String> = blocks.map(|block| block.unwrap().to_owned()).collect();
        let mut examples = BTreeSet::new();
        for entry in std::fs::read_dir(folder.join("examples")).unwrap() {
            let path = entry.unwrap().path();
            // What `cargo xtask synth` runs is no program to learn from.
            if !path.ends_with("synth.rs") {
                examples.insert(std::fs::read_to_string(path).unwrap());
            }
        }
        assert!(!programs.is_empty(), "{}", folder.display());
        assert_eq!(programs, examples, "{}", folder.display());
    }
}
