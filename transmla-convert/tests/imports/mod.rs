//! Which file of a crate uses which other, by the paths in its code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The source files of a crate, by their paths below `src`.
pub struct Sources {
    /// Code without comments and test modules.
    code: BTreeMap<String, String>,
    imports: BTreeSet<(String, String)>,
}

impl Sources {
    /// Reads the crate in a folder.
    pub fn read(folder: &Path) -> Self {
        let mut code = BTreeMap::new();
        add_files(&folder.join("src"), "", &mut code);
        let modules: BTreeMap<Vec<String>, String> = code.keys().map(|file| (module_of(file), file.clone())).collect();
        let mut imports = BTreeSet::new();
        for (file, text) in &code {
            for path in Paths::of(text, &module_of(file), &modules) {
                // The longest beginning that is a file; the rest are items in it.
                let found = (0..=path.len()).rev().find_map(|length| modules.get(&path[..length]));
                if let Some(used) = found.filter(|used| *used != file) {
                    imports.insert((file.clone(), used.clone()));
                }
            }
        }
        Self { code, imports }
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.code.keys().map(String::as_str)
    }

    /// What is compiled of a file outside of tests.
    pub fn code(&self, file: &str) -> &str {
        &self.code[file]
    }

    /// Who uses whom.
    pub fn imports(&self) -> impl Iterator<Item = (&str, &str)> {
        self.imports.iter().map(|(from, to)| (from.as_str(), to.as_str()))
    }

    /// Sets of files each of which uses every other, directly or not.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.files().map(|file| (file, self.reached_from(file))).collect();
        let mut circles = BTreeSet::new();
        for (file, others) in &reached {
            if others.contains(file) {
                let mutual = others.iter().filter(|other| reached[*other].contains(file));
                circles.insert(mutual.map(|other| (*other).to_owned()).collect::<Vec<_>>());
            }
        }
        circles.into_iter().collect()
    }

    fn reached_from(&self, file: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![file];
        while let Some(from) = open.pop() {
            for (_, to) in self.imports().filter(|(by, _)| *by == from) {
                if reached.insert(to) {
                    open.push(to);
                }
            }
        }
        reached
    }
}

fn add_files(folder: &Path, path: &str, code: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{path}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            add_files(&entry.path(), &format!("{name}/"), code);
        } else if name.ends_with(".rs") {
            code.insert(name, code_of(&fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// A text without comments and without the test module at its end.
fn code_of(text: &str) -> String {
    let text = match text.find("#[cfg(test)]\nmod ") {
        Some(tests) => &text[..tests],
        None => text,
    };
    let lines = text.lines().map(|line| match line.find("//") {
        // Not the two strokes of an address.
        Some(comment) if !line[..comment].ends_with(':') => &line[..comment],
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The module that a file is.
fn module_of(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts
        .last()
        .is_some_and(|last| ["lib", "main", "mod"].contains(&last.as_str()))
    {
        parts.pop();
    }
    parts
}

/// Reads the paths of a text.
struct Paths<'a> {
    text: &'a str,
    module: &'a [String],
    modules: &'a BTreeMap<Vec<String>, String>,
    found: Vec<Vec<String>>,
}

impl<'a> Paths<'a> {
    /// All paths of a file that lead to its own crate, from its root.
    fn of(text: &'a str, module: &'a [String], modules: &'a BTreeMap<Vec<String>, String>) -> Vec<Vec<String>> {
        let mut paths = Self {
            text,
            module,
            modules,
            found: Vec::new(),
        };
        paths.read();
        paths.found
    }

    fn read(&mut self) {
        // Modules that are written out in the file, with the depth of their braces.
        let mut inner: Vec<(usize, String)> = Vec::new();
        let (mut at, mut depth) = (0, 0usize);
        let mut previous = String::new();
        let mut before_previous = String::new();
        while at < self.text.len() {
            let rest = &self.text[at..];
            let word = word_at(rest);
            if word.is_empty() {
                let letter = rest.chars().next().unwrap();
                match letter {
                    '{' => {
                        depth += 1;
                        if before_previous == "mod" {
                            inner.push((depth, previous.clone()));
                        }
                    }
                    '}' => {
                        inner.retain(|(opened, _)| *opened != depth);
                        depth = depth.saturating_sub(1);
                    }
                    _ => {}
                }
                if !letter.is_whitespace() {
                    before_previous = std::mem::take(&mut previous);
                }
                at += letter.len_utf8();
                continue;
            }
            let here: Vec<String> = self
                .module
                .iter()
                .cloned()
                .chain(inner.iter().map(|(_, name)| name.clone()))
                .collect();
            let is_start = !self.text[..at].ends_with("::");
            let start = match word {
                "crate" => Some(Vec::new()),
                "self" => Some(here.clone()),
                "super" => Some(here[..here.len().saturating_sub(1)].to_vec()),
                // A path may begin with a module of the file.
                name => {
                    let child = [&here[..], &[name.to_owned()]].concat();
                    self.modules.contains_key(&child).then_some(child)
                }
            };
            let behind = &rest[word.len()..];
            match start.filter(|_| is_start && behind.starts_with("::")) {
                Some(start) => {
                    let length = self.tree(start, &behind[2..]);
                    at += word.len() + 2 + length;
                    previous = String::new();
                }
                None => {
                    before_previous = std::mem::replace(&mut previous, word.to_owned());
                    at += word.len();
                }
            }
        }
    }

    /// Adds the paths of a tree behind `start::`; gives the length of its text.
    fn tree(&mut self, start: Vec<String>, text: &str) -> usize {
        if let Some(list) = text.strip_prefix('{') {
            let mut at = 0;
            loop {
                let rest = &list[at..];
                let blank = rest.len() - rest.trim_start().len();
                at += blank;
                match list[at..].chars().next() {
                    Some('}') => return at + 2,
                    Some(',') => at += 1,
                    Some(_) => at += self.tree(start.clone(), &list[at..]).max(1),
                    None => return text.len(),
                }
            }
        }
        let word = word_at(text);
        if word.is_empty() {
            self.found.push(start);
            return 0;
        }
        let mut path = start;
        match word {
            "self" => {}
            "super" => drop(path.pop()),
            name => path.push(name.to_owned()),
        }
        match text[word.len()..].strip_prefix("::") {
            Some(behind) => word.len() + 2 + self.tree(path, behind),
            None => {
                self.found.push(path);
                word.len()
            }
        }
    }
}

/// The word at the beginning of a text.
fn word_at(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    &text[..end]
}
