//! The tasks that are known by name, and those of files.

use std::collections::BTreeMap;
use std::path::Path;

use crate::tasks::error::TaskError;
use crate::tasks::spec::{Group, TaskSpec, parse};

/// The task that has no dataset.
pub(super) const NEEDLE: &str = "needle";

const CATALOGUE: &str = include_str!("catalogue.toml");

/// Largest file with tasks in bytes.
const LARGEST_FILE: u64 = 4 << 20;

/// A task with one dataset: a whole one, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// `mmlu_anatomy`.
    pub name: String,
    /// `anatomy`.
    pub alias: String,
    /// What it is.
    pub spec: TaskSpec,
}

/// A task that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Selected {
    /// One with a dataset.
    Task(Part),
    /// One of parts, in groups.
    Parts {
        /// `mmlu`.
        name: String,
        /// What all parts are.
        spec: TaskSpec,
        /// `mmlu_stem`, `stem`, and its parts.
        groups: Vec<(String, String, Vec<Part>)>,
    },
    /// Needles in haystacks, made from a seed.
    Needle,
}

/// Whether a name is that of a file with tasks.
pub fn is_task_file(name: &str) -> bool {
    name.ends_with(".toml")
}

/// Finds tasks by name: of the catalogue, parts of them (`mmlu_anatomy`, `mmlu_stem`), and all tasks of a file.
///
/// # Errors
/// [`TaskError::Unknown`], and [`TaskError::Definition`] for files.
pub fn select(names: &[String]) -> Result<Vec<Selected>, TaskError> {
    let known = parse("catalogue.toml", CATALOGUE)?;
    let mut found = Vec::new();
    for name in names {
        if is_task_file(name) {
            let path = Path::new(name);
            let own = parse(name, &read(path)?)?;
            found.extend(own.iter().map(|(name, spec)| whole(name, spec)));
        } else if name == NEEDLE {
            found.push(Selected::Needle);
        } else {
            let unknown = || TaskError::Unknown {
                name: name.clone(),
                known: names_of(&known),
            };
            found.push(of_name(name, &known).ok_or_else(unknown)?);
        }
    }
    Ok(found)
}

/// The names of all tasks, without parts.
pub fn task_names() -> Result<Vec<String>, TaskError> {
    let known = parse("catalogue.toml", CATALOGUE)?;
    Ok(known.into_keys().chain([NEEDLE.to_owned()]).collect())
}

fn names_of(known: &BTreeMap<String, TaskSpec>) -> String {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    format!(
        "{}, {NEEDLE}, a part such as mmlu_stem or mmlu_anatomy",
        names.join(", ")
    )
}

fn read(path: &Path) -> Result<String, TaskError> {
    transmla_core::checkpoint::read_regular_text(path, LARGEST_FILE).map_err(|error| TaskError::Definition {
        file: path.display().to_string(),
        problem: error.to_string(),
    })
}

fn whole(name: &str, spec: &TaskSpec) -> Selected {
    if spec.groups.is_empty() {
        return Selected::Task(Part {
            name: name.to_owned(),
            alias: name.to_owned(),
            spec: spec.clone(),
        });
    }
    let group = |group: &Group| {
        let parts = group.configs.iter().map(|config| part(name, spec, config));
        (
            format!("{name}_{}", group.name),
            group.name.replace('_', " "),
            parts.collect(),
        )
    };
    Selected::Parts {
        name: name.to_owned(),
        spec: spec.clone(),
        groups: spec.groups.iter().map(group).collect(),
    }
}

fn part(task: &str, spec: &TaskSpec, config: &str) -> Part {
    Part {
        name: format!("{task}_{config}"),
        alias: config.to_owned(),
        spec: TaskSpec {
            config: Some(config.to_owned()),
            groups: Vec::new(),
            ..spec.clone()
        },
    }
}

fn of_name(name: &str, known: &BTreeMap<String, TaskSpec>) -> Option<Selected> {
    if let Some(spec) = known.get(name) {
        return Some(whole(name, spec));
    }
    // `mmlu_cloze_anatomy` is a part of mmlu_cloze, not of mmlu.
    known.iter().find_map(|(task, spec)| {
        let rest = name.strip_prefix(task.as_str())?.strip_prefix('_')?;
        if let Some(group) = spec.groups.iter().find(|group| group.name == rest) {
            let only = TaskSpec {
                groups: vec![group.clone()],
                ..spec.clone()
            };
            let Selected::Parts { groups, .. } = whole(task, &only) else {
                return None;
            };
            let (name, _, parts) = groups.into_iter().next()?;
            return Some(Selected::Parts {
                name: name.clone(),
                spec: spec.clone(),
                groups: vec![(name, String::new(), parts)],
            });
        }
        let has = |group: &Group| group.configs.iter().any(|config| config == rest);
        spec.groups
            .iter()
            .any(has)
            .then(|| Selected::Task(part(task, spec, rest)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str) -> Result<Selected, TaskError> {
        select(&[name.to_owned()]).map(|mut found| found.remove(0))
    }

    #[test]
    fn tasks_and_parts_are_found_by_name() {
        for name in task_names().unwrap() {
            one(&name).unwrap();
        }
        let Selected::Parts { groups, .. } = one("mmlu").unwrap() else {
            panic!()
        };
        let names: Vec<&str> = groups.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            ["mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities"]
        );
        assert_eq!(groups.iter().map(|(.., parts)| parts.len()).sum::<usize>(), 57);
        let Selected::Task(part) = one("mmlu_cloze_anatomy").unwrap() else {
            panic!()
        };
        assert_eq!(
            (part.spec.config.as_deref(), part.spec.metrics.len()),
            (Some("anatomy"), 2)
        );
        let Selected::Parts { groups, .. } = one("mmlu_stem").unwrap() else {
            panic!()
        };
        assert_eq!((groups.len(), groups[0].2.len()), (1, 19));
    }

    #[test]
    fn what_is_not_known_is_told_what_is() {
        let says = one("arc_esy").unwrap_err().to_string();
        assert!(
            says.contains("arc_esy") && says.contains("arc_easy, boolq") && says.contains(".toml"),
            "{says}"
        );
        assert!(one("nowhere.toml").unwrap_err().to_string().contains("nowhere.toml"));
    }

    #[test]
    fn files_have_tasks_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let good = "[mine]\ndataset = \"a/b\"\nsplit = \"test\"\nquestion = \"{{ q }}\"\nchoices = [\"x\", \"y\"]\nanswer = \"0\"\nmetrics = [\"acc\"]\n";
        let problem = |text: &str| {
            std::fs::write(&path, text).unwrap();
            one(path.to_str().unwrap())
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(problem(good), "");
        for (text, words) in [
            (
                good.replace("question", "questoin"),
                vec!["mine.toml", "line 4", "questoin"],
            ),
            (good.replace("answer = \"0\"\n", ""), vec!["task mine", "`answer`"]),
            (good.replace("\"acc\"", "\"f1\""), vec!["line 7", "f1"]),
            (good.replace("\"acc\"", "\"perplexity\""), vec!["last-word"]),
        ] {
            let says = problem(&text);
            assert!(words.iter().all(|word| says.contains(word)), "{says}");
        }
    }
}
