//! What the documents of this repository name is there: files, and commands with their options.

use std::path::{Path, PathBuf};

use crate::support::transmla;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documents for users: those at the top and in docs.
fn documents() -> Vec<PathBuf> {
    let folders = [root(), root().join("docs")];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths
}

#[test]
fn links_lead_somewhere() {
    let mut found = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let file = link.split('#').next().unwrap_or_default();
            let path = document.parent().unwrap().join(file);
            assert!(file.is_empty() || path.exists(), "{}: {link}", document.display());
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
}

#[test]
fn files_that_are_named_exist() {
    let tops = [
        "transmla-",
        "xtask/",
        "benches/",
        "docs/",
        "recipes/",
        "scripts/",
        ".ci/",
    ];
    let mut found = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        // What stands in backquotes and begins with a folder of this repository is a path in it, up to a test's name.
        let spans = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|span| !span.contains([' ', '\n', '*', '{', '<']));
        for path in spans.filter(|span| span.contains('/') && tops.iter().any(|top| span.starts_with(top))) {
            let path = path.split("::").next().unwrap_or_default();
            assert!(root().join(path).exists(), "{}: {path}", document.display());
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
}

/// The commands in the blocks of a document, a line each, without what a shell does with them.
fn commands(text: &str) -> Vec<String> {
    let blocks = text
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let lines = blocks.map(|block| block.replace("\\\n", " ")).collect::<String>();
    let commands = lines.lines().filter(|line| line.trim_start().starts_with("transmla "));
    let ends = [" #", " >", " |", " &&", " 2>"];
    let cut = |line: &str| {
        let end = ends.iter().filter_map(|end| line.find(end)).min();
        line[..end.unwrap_or(line.len())].trim().to_owned()
    };
    commands.map(cut).collect()
}

/// Words as a shell splits them, as far as the documents need it.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in command.chars() {
        match (character, quote) {
            ('"' | '\'', None) => quote = Some(character),
            (character, Some(open)) if character == open => quote = None,
            (' ', None) => words.push(String::new()),
            (character, _) => words.last_mut().unwrap().push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn commands_and_their_options_are_known() {
    let mut found = 0;
    for document in documents() {
        for command in commands(&std::fs::read_to_string(&document).unwrap()) {
            let mut words = words(&command);
            words.remove(0);
            // What stands before it is read first.
            words.push("--help".into());
            let ran = transmla(&words);
            assert_eq!(ran.code, Some(0), "{}: {command}: {}", document.display(), ran.stderr);
            found += 1;
        }
    }
    assert!(found > 10, "{found}");
    assert_eq!(words("a 'b c'  \"d\""), ["a", "b c", "d"]);
    assert_eq!(transmla(&["convert", "--no-such-option", "--help"]).code, Some(2));
}
