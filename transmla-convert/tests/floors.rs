//! The rules of ARCHITECTURE.md on imports, read from the sources: floors of this crate, no circles in any crate, and libraries
//! that neither print nor read the environment.

mod imports;

use std::path::{Path, PathBuf};

use imports::Sources;

/// From the lowest floor to the highest; files beside these folders stand above all of them.
const FLOORS: [&str; 5] = ["spec", "text", "layer", "solve", "output"];

/// Crates that may print and read the environment.
const PROGRAMS: [&str; 3] = ["transmla-cli", "benches", "xtask"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folders of all crates of the workspace.
fn crates() -> Vec<String> {
    let text = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let list = text.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    let names: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(
        names.len() > 8 && names.contains(&"transmla-convert".to_owned()),
        "{names:?}"
    );
    names
}

#[test]
fn files_use_their_own_floor_and_those_below() {
    let sources = Sources::read(&workspace().join("transmla-convert"));
    let floor = |file: &str| {
        let folder = file.split_once('/').map_or("", |(folder, _)| folder);
        FLOORS.iter().position(|name| *name == folder).unwrap_or(FLOORS.len())
    };
    for name in FLOORS {
        assert!(
            sources.files().any(|file| file.starts_with(&format!("{name}/"))),
            "{name}"
        );
    }
    let upwards: Vec<String> = sources
        .imports()
        .filter(|(from, to)| floor(to) > floor(from))
        .map(|(from, to)| format!("{from} uses {to}"))
        .collect();
    assert!(upwards.is_empty(), "{upwards:#?}");
}

#[test]
fn no_file_uses_itself_through_others() {
    for name in crates() {
        let circles = Sources::read(&workspace().join(&name)).circles();
        assert!(circles.is_empty(), "{name}: {circles:#?}");
    }
}

#[test]
fn libraries_do_not_print_or_read_the_environment() {
    let forbidden = [
        "println!",
        "print!",
        "dbg!",
        "env::var",
        "env::args",
        "env::current_dir",
        "env::temp_dir",
    ];
    for name in crates().iter().filter(|name| !PROGRAMS.contains(&name.as_str())) {
        let sources = Sources::read(&workspace().join(name));
        assert!(sources.files().count() > 2, "{name}");
        for file in sources.files() {
            for word in forbidden {
                assert!(!sources.code(file).contains(word), "{name}/src/{file}: {word}");
            }
        }
    }
}

/// The reader itself, on a crate that breaks every rule.
#[test]
fn circles_and_upward_imports_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("src");
    std::fs::create_dir_all(source.join("spec")).unwrap();
    for (file, text) in [
        ("lib.rs", "mod spec;\nmod top;\npub use spec::low::Low;\n"),
        ("top.rs", "use crate::Low;\n"),
        ("spec/mod.rs", "pub mod low;\npub mod other;\npub mod third;\n"),
        (
            "spec/low.rs",
            "use crate::{spec::{other::{self, Other}}, top::Top}; // crate::spec::third\n",
        ),
        (
            "spec/other.rs",
            "fn f(x: super::low::Low) {}\nmod inner { use super::super::third; }\n",
        ),
        ("spec/third.rs", "#[cfg(test)]\nmod tests { use crate::spec::low; }\n"),
    ] {
        std::fs::write(source.join(file), text).unwrap();
    }
    let sources = Sources::read(folder.path());
    let imports: Vec<(&str, &str)> = sources.imports().collect();
    assert_eq!(
        imports,
        [
            ("lib.rs", "spec/low.rs"),
            ("spec/low.rs", "spec/other.rs"),
            ("spec/low.rs", "top.rs"),
            ("spec/other.rs", "spec/low.rs"),
            ("spec/other.rs", "spec/third.rs"),
            ("top.rs", "lib.rs"),
        ]
    );
    assert_eq!(
        sources.circles(),
        [["lib.rs", "spec/low.rs", "spec/other.rs", "top.rs"]]
    );
}
