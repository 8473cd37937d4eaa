//! What the files that are written call models and texts: hub ids and names, never paths of this machine.
//!
//! A path becomes one that is relative to the recipe if it lies beside the saved model or below that place
//! (`../model`), otherwise the bare name of the file or folder (`./model`). A recipe is read the same way: what it names is
//! looked for relative to the recipe, then relative to the working folder; `--model-path` and its like go first.

use std::path::{Component, Path, PathBuf};

use transmla_core::hub::{RepoKind, cached_repo, is_path};
use transmla_eval::tasks::is_task_file;

use crate::spec::recipe::Recipe;
use crate::text::mix::{TextMix, replace_names};
use crate::text::source::LocalText;

/// The model that was converted, as written files call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// Its id on the hub, if it is from there.
    pub id: Option<String>,
    /// The commit, where a path into a cache tells it.
    commit: Option<String>,
    /// Its name alone.
    pub name: String,
}

impl ModelName {
    /// Of a model as it was asked for.
    pub fn of(model: &str) -> Self {
        if !is_path(model) {
            return Self {
                id: Some(model.to_owned()),
                commit: None,
                name: last_part(model),
            };
        }
        let path = lexical(Path::new(model));
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let repo = cached_repo(&path).or_else(|| cached_repo(&real));
        match repo.filter(|repo| repo.kind == RepoKind::Model) {
            Some(repo) => Self {
                name: last_part(&repo.id),
                id: Some(repo.id),
                commit: repo.commit,
            },
            None => Self::plain(&bare_name(&path)),
        }
    }

    /// Of a model that goes by a name alone.
    pub fn plain(name: &str) -> Self {
        Self {
            id: None,
            commit: None,
            name: name.to_owned(),
        }
    }
}

/// What the machine knows that files do not tell, and what the program calls things.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// The name of the model, where it is no path and no repository.
    pub model_name: Option<&'a str>,
    /// The program's own texts.
    pub locals: &'a [LocalText],
    /// The user's name, which no path tells.
    pub user: Option<&'a str>,
}

impl Surroundings<'_> {
    /// What a recipe's model is called.
    pub(crate) fn model(&self, model_path: &str) -> ModelName {
        self.model_name
            .map_or_else(|| ModelName::of(model_path), ModelName::plain)
    }
}

/// The recipe as it is written to a folder.
pub(crate) fn written(recipe: &Recipe, save_path: &Path, around: Surroundings<'_>) -> Recipe {
    let mut recipe = recipe.clone();
    let name = |path: &Path| written_path(path, save_path, around.user);
    let model = around.model(&recipe.model_path);
    match model.id {
        Some(id) => {
            recipe.model_path = id;
            recipe.revision = model.commit.unwrap_or(recipe.revision);
        }
        None if around.model_name.is_none() => recipe.model_path = name(Path::new(&recipe.model_path)),
        None => {}
    }
    let datasets = [&mut recipe.calibration.cal_dataset, &mut recipe.evaluation.eval_dataset];
    for dataset in datasets.into_iter().flatten() {
        if let Ok(mix) = TextMix::parse(dataset, around.locals) {
            *dataset = mix.with_paths(&|path| name(path).into()).to_string();
        }
    }
    let (calibration, evaluation, tasks) = (&mut recipe.calibration, &mut recipe.evaluation, &mut recipe.tasks);
    for file in [
        &mut calibration.cal_tokens,
        &mut evaluation.eval_tokens,
        &mut tasks.data,
    ] {
        *file = file.as_deref().map(|path| name(path).into());
    }
    for task in tasks.names.iter_mut().filter(|task| is_task_file(task)) {
        *task = name(Path::new(task));
    }
    recipe
}

/// Makes the paths of a recipe that was read from a file those of what lies relative to it.
pub fn resolve_paths(recipe: &mut Recipe, file: &Path) {
    let folder = file.parent().unwrap_or(Path::new(""));
    let found = |text: &str| {
        let relative = Path::new(text)
            .components()
            .next()
            .is_some_and(|first| matches!(first, Component::CurDir | Component::ParentDir));
        let path = folder.join(text);
        (relative && path.exists()).then(|| path.to_string_lossy().into_owned())
    };
    let within = |mix: &str| replace_names(mix, &found);
    if let Some(model) = found(&recipe.model_path) {
        recipe.model_path = model;
    }
    for dataset in [&mut recipe.calibration.cal_dataset, &mut recipe.evaluation.eval_dataset] {
        *dataset = dataset.as_deref().map(within);
    }
    let (calibration, evaluation, tasks) = (&mut recipe.calibration, &mut recipe.evaluation, &mut recipe.tasks);
    for file in [
        &mut calibration.cal_tokens,
        &mut evaluation.eval_tokens,
        &mut tasks.data,
    ] {
        if let Some(path) = file.as_deref().and_then(|path| found(&path.to_string_lossy())) {
            *file = Some(path.into());
        }
    }
    for task in &mut tasks.names {
        if let Some(path) = found(task) {
            *task = path;
        }
    }
}

/// Where a text is from, without the folders that it was read from.
pub(crate) fn bare_origin(origin: &str, recipe: &Recipe, around: Surroundings<'_>) -> String {
    let datasets = [&recipe.calibration.cal_dataset, &recipe.evaluation.eval_dataset];
    let mixes: Vec<TextMix> = datasets
        .into_iter()
        .flatten()
        .filter_map(|text| TextMix::parse(text, around.locals).ok())
        .collect();
    let mut paths: Vec<PathBuf> = mixes
        .iter()
        .flat_map(|mix| mix.paths().map(Path::to_path_buf))
        .collect();
    paths.extend(
        [&recipe.calibration.cal_tokens, &recipe.evaluation.eval_tokens]
            .into_iter()
            .flatten()
            .cloned(),
    );
    // The longest first: one may lie in another.
    paths.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    let mut text = origin.to_owned();
    for folder in paths.iter().filter_map(|path| path.parent()) {
        if folder.file_name().is_some() || folder.components().any(|part| part == Component::ParentDir) {
            text = text.replace(&format!("{}{}", folder.display(), std::path::MAIN_SEPARATOR), "");
        }
    }
    text
}

/// A path as a file in the folder `save_path` names it.
fn written_path(path: &Path, save_path: &Path, user: Option<&str>) -> String {
    let (path, save_path) = (lexical(path), lexical(save_path));
    let bare = || format!("./{}", bare_name(&path));
    let Some(place) = save_path.parent().filter(|place| place.parent().is_some()) else {
        return bare();
    };
    let Ok(rest) = path.strip_prefix(place) else {
        return bare();
    };
    let parts: Vec<String> = rest
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if parts.iter().any(|part| Some(part.as_str()) == user) || !place.join(rest).exists() {
        return bare();
    }
    [vec!["..".to_owned()], parts].concat().join("/")
}

fn bare_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn last_part(id: &str) -> String {
    id.rsplit('/').next().unwrap_or(id).to_owned()
}

/// An absolute path without `.` and `..`, by its text alone.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in std::path::absolute(path)
        .unwrap_or_else(|_| path.to_path_buf())
        .components()
    {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn around() -> Surroundings<'static> {
        static LOCALS: LazyLock<Vec<LocalText>> = LazyLock::new(|| {
            vec![LocalText {
                name: "stories".into(),
                kind: "embedded".into(),
                folder: PathBuf::new(),
            }]
        });
        Surroundings {
            model_name: None,
            locals: &LOCALS,
            user: None,
        }
    }

    #[test]
    fn paths_are_named_relative_to_the_recipe_or_bare() {
        let place = tempfile::tempdir().unwrap();
        for folder in ["work/models/llama", "work/model", "elsewhere/model", "work/alice/model"] {
            std::fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        let save_path = place.path().join("work/outputs");
        let name = |path: &str| written_path(&place.path().join(path), &save_path, Some("alice"));
        assert_eq!(name("work/model"), "../model");
        assert_eq!(name("work/model/"), "../model");
        assert_eq!(name("work/outputs/../models/llama"), "../models/llama");
        assert_eq!(name("work"), "..");
        assert_eq!(name("elsewhere/model"), "./model");
        assert_eq!(name("work/alice/model"), "./model");
        assert_eq!(name("work/gone"), "./gone");
    }

    #[test]
    fn recipes_find_what_lies_beside_them() {
        let place = tempfile::tempdir().unwrap();
        for file in ["notes.txt", "a, b:2.txt", "ids.safetensors"] {
            std::fs::write(place.path().join(file), "x").unwrap();
        }
        std::fs::create_dir_all(place.path().join("model")).unwrap();
        let save_path = place.path().join("outputs");
        std::fs::create_dir(&save_path).unwrap();
        let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
        let mut recipe = Recipe {
            model_path: at("model"),
            ..Recipe::default()
        };
        recipe.calibration.cal_dataset = Some(format!("stories:2,{}:1", at("notes.txt")));
        recipe.evaluation.eval_dataset = Some(at("a, b:2.txt"));
        recipe.evaluation.eval_tokens = Some(at("ids.safetensors").into());
        let mut read = written(&recipe, &save_path, around());
        assert_eq!(read.model_path, "../model");
        assert_eq!(
            read.calibration.cal_dataset.as_deref(),
            Some("stories:2,../notes.txt:1")
        );
        assert_eq!(read.evaluation.eval_dataset.as_deref(), Some("../a, b:2.txt"));
        let list = format!("\"{}\":0.5,stories:2", at("a, b:2.txt"));
        recipe.calibration.cal_dataset = Some(list);
        let mut with_odd_name = written(&recipe, &save_path, around());
        let list = |recipe: &Recipe| recipe.calibration.cal_dataset.clone().unwrap();
        assert_eq!(list(&with_odd_name), "\"../a, b:2.txt\":0.5,stories:2");
        resolve_paths(&mut with_odd_name, &save_path.join("transmla.toml"));
        let mix = TextMix::parse(&list(&with_odd_name), around().locals).unwrap();
        assert_eq!(
            mix.paths().map(lexical).collect::<Vec<_>>(),
            [place.path().join("a, b:2.txt")]
        );
        let text = read.to_toml().unwrap();
        assert!(!text.contains(place.path().to_str().unwrap()), "{text}");
        resolve_paths(&mut read, &save_path.join("transmla.toml"));
        assert_eq!(lexical(Path::new(&read.model_path)), place.path().join("model"));
        let mix = TextMix::parse(&list(&read), around().locals).unwrap();
        assert_eq!(
            mix.paths().map(lexical).collect::<Vec<_>>(),
            [place.path().join("notes.txt")]
        );
        assert!(read.evaluation.eval_tokens.unwrap().is_file());
        // Hub ids and the names of datasets stay what they are.
        let mut other = Recipe {
            model_path: "org/model".into(),
            ..Recipe::default()
        };
        other.calibration.cal_dataset = Some("wikitext2".into());
        resolve_paths(&mut other, &save_path.join("transmla.toml"));
        assert_eq!(
            (other.model_path.as_str(), list(&other).as_str()),
            ("org/model", "wikitext2")
        );
    }

    #[test]
    fn a_model_in_a_cache_goes_by_its_id() {
        let place = tempfile::tempdir().unwrap();
        let snapshot = place.path().join("models--org--tiny/snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        let name = ModelName::of(snapshot.to_str().unwrap());
        assert_eq!((name.id.as_deref(), name.name.as_str()), (Some("org/tiny"), "tiny"));
        let recipe = Recipe {
            model_path: snapshot.to_str().unwrap().into(),
            ..Recipe::default()
        };
        let written = written(&recipe, place.path(), around());
        assert_eq!(
            (written.model_path.as_str(), written.revision.as_str()),
            ("org/tiny", "abc")
        );
        // A folder of two parts is no repository.
        let local = place.path().join("models/llama");
        std::fs::create_dir_all(&local).unwrap();
        assert_eq!(ModelName::of(local.to_str().unwrap()), ModelName::plain("llama"));
        assert_eq!(ModelName::of("org/model").id.as_deref(), Some("org/model"));
    }

    #[test]
    fn origins_lose_their_folders() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("notes.txt");
        std::fs::write(&file, "x").unwrap();
        let mut recipe = Recipe::default();
        recipe.calibration.cal_dataset = Some(file.to_str().unwrap().into());
        let told = format!(
            "4 x {}, paragraphs, the file as a whole; embedded stories",
            file.display()
        );
        assert_eq!(
            bare_origin(&told, &recipe, around()),
            "4 x notes.txt, paragraphs, the file as a whole; embedded stories"
        );
    }
}
