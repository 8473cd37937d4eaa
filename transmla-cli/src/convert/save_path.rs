//! Whether a model can be saved, found out before any work is done.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use transmla_convert::{DiskNeeds, Recipe, check_replaceable, check_space};
use transmla_core::checkpoint::{Claim, Place, real_path};
use transmla_eval::tasks::is_task_file;

use crate::links::{ends_of_entries, names_of};
use crate::printer::{self, Printer};
use crate::setup::parse_mix;

/// Checks that the folder can be made.
///
/// What is there already must be replaced on purpose, and only what a conversion has written is replaced. A dry run is
/// told of that, and fails only where nothing could be written at all.
pub fn check(save_path: &Path, force: bool, dry_run: bool, printer: &Printer) -> anyhow::Result<()> {
    let path = save_path.display();
    if save_path.file_name().is_none() && !save_path.exists() {
        bail!("--save-path {path} has no folder name; give a path such as outputs");
    }
    // Nothing makes a folder only to leave it again.
    if let Some(part) = save_path
        .ancestors()
        .find(|part| part.ends_with("..") && !part.exists())
    {
        let part = part.display();
        bail!("cannot create --save-path {path}: {part} leads through a folder that does not exist; leave it out");
    }
    let parent = match Place::of(save_path) {
        Ok(place) if place.is_inside() => place.folder().to_path_buf(),
        _ => existing_parent(save_path),
    };
    if !parent.is_dir() {
        let parent = parent.display();
        bail!("cannot create --save-path {path}: {parent} is a file, not a folder; choose another --save-path");
    }
    let probe = tempfile::Builder::new().prefix(".transmla-").tempfile_in(&parent);
    probe.with_context(|| {
        let parent = parent.display();
        format!("cannot create --save-path {path}: {parent} cannot be written to; choose another --save-path")
    })?;
    match is_free(save_path, force) {
        Err(problem) if dry_run => printer.warn(printer::flat(&problem)),
        result => result?,
    }
    Ok(())
}

/// Checks that nothing is there that may not be replaced, and that no other process writes there.
fn is_free(save_path: &Path, force: bool) -> anyhow::Result<()> {
    let path = save_path.display();
    // Of a folder that links lead to, the link would be replaced and the folder left.
    if let Some(end) = end_of_link(save_path) {
        let end = end.display();
        bail!("--save-path {path} is a link to {end}; to write there, give that path as --save-path");
    }
    if save_path.symlink_metadata().is_ok() {
        if !force {
            bail!("--save-path {path} exists; pass --force to replace it, or choose another --save-path");
        }
        if save_path.file_name().is_none() {
            bail!("--save-path {path} cannot be replaced; give a folder by its name");
        }
        check_replaceable(save_path).with_context(|| format!("--force does not replace --save-path {path}"))?;
    }
    // The conversion claims it for as long as it takes; this is to know before there is work that would be lost.
    if Place::of(save_path)?.folder().is_dir() {
        drop(Claim::of(save_path).with_context(|| format!("--save-path {path} is in use"))?);
    }
    Ok(())
}

/// Where a path that is a link itself leads to; also one with a slash or a dot behind it.
fn end_of_link(save_path: &Path) -> Option<PathBuf> {
    let place = Place::of(save_path).ok()?;
    let end = place.target().read_link().ok()?;
    let end = place.target().parent().map_or(end.clone(), |parent| parent.join(&end));
    Some(real_path(&end))
}

/// Checks that there is room for the models; a dry run is only told of it.
pub fn check_room<'a>(
    models: impl IntoIterator<Item = (&'a Path, DiskNeeds)>,
    dry_run: bool,
    printer: &Printer,
) -> anyhow::Result<()> {
    match check_space(models) {
        Err(problem) if dry_run => printer.warn(problem),
        result => result?,
    }
    Ok(())
}

/// What a conversion reads, and what it is to it.
pub struct Inputs(Vec<(&'static str, PathBuf)>);

impl Inputs {
    /// Those of a recipe, whose model is in this folder, and the recipe's own file.
    pub fn of(recipe: &Recipe, model: &Path, recipe_file: Option<&Path>) -> Self {
        let mut inputs = vec![("the model to convert", model.to_path_buf())];
        let (calibration, evaluation) = (&recipe.calibration, &recipe.evaluation);
        let mut texts = |what, name: &str| {
            if let Ok(mix) = parse_mix(name) {
                inputs.extend(mix.paths().map(|path| (what, path.to_path_buf())));
            }
        };
        if let (None, Some(name)) = (&calibration.cal_tokens, &calibration.cal_dataset) {
            texts("the calibration text", name);
        }
        if let Some(name) = &evaluation.eval_dataset {
            texts("the evaluation text", name);
        }
        let tasks = recipe.tasks.names.iter().filter(|name| is_task_file(name));
        inputs.extend(tasks.map(|file| ("the file with tasks", PathBuf::from(file))));
        let files = [
            ("the data of tasks", recipe.tasks.data.as_deref()),
            ("the calibration tokens", calibration.cal_tokens.as_deref()),
            ("the evaluation tokens", evaluation.eval_tokens.as_deref()),
            ("the recipe", recipe_file),
        ];
        inputs.extend(
            files
                .into_iter()
                .filter_map(|(what, path)| Some((what, path?.to_path_buf()))),
        );
        Self(inputs)
    }

    /// What each is, and where.
    pub fn paths(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.iter().map(|(what, path)| (*what, path.as_path()))
    }

    /// Checks that saving replaces none of them, by whatever names and links they are reached, and that nothing is saved
    /// into the hub's cache.
    pub fn check_outside(&self, save_path: &Path) -> anyhow::Result<()> {
        let (path, real_place) = (save_path.display(), real_path(save_path));
        for (what, input) in &self.0 {
            if everything_of(input).any(|part| part.starts_with(&real_place)) {
                let input = input.display();
                bail!("--save-path {path} would replace {what}, {input}; choose another --save-path");
            }
        }
        if in_hub_cache(&real_place) {
            bail!("--save-path {path} is inside the cache of the hub, which is not to be written to; choose another");
        }
        Ok(())
    }
}

/// A file or folder by its name and by the end of its links, and what a folder's entries are links to.
fn everything_of(input: &Path) -> impl Iterator<Item = PathBuf> {
    names_of(input).into_iter().chain(ends_of_entries(input))
}

/// `models--ORG--NAME/snapshots/…`, whose files are links to what other programs share.
fn in_hub_cache(save_path: &Path) -> bool {
    let names: Vec<_> = save_path.iter().map(|name| name.to_string_lossy()).collect();
    names.windows(2).any(|pair| {
        let kinds = ["models--", "datasets--", "spaces--"];
        kinds.iter().any(|kind| pair[0].starts_with(kind)) && ["snapshots", "blobs", "refs"].contains(&&*pair[1])
    })
}

/// The nearest folder above that exists; the working directory for a bare name.
fn existing_parent(save_path: &Path) -> PathBuf {
    let above = save_path
        .ancestors()
        .skip(1)
        .filter(|path| !path.as_os_str().is_empty());
    let mut existing = above.filter(|path| path.exists());
    existing.next().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(save_path: &Path, force: bool, dry_run: bool) -> String {
        let checked = check(save_path, force, dry_run, &Printer::silent());
        checked.map_or_else(|error| format!("{error:#}"), |()| String::new())
    }

    #[test]
    fn says_why_a_folder_cannot_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join("file"), "").unwrap();
        std::fs::create_dir_all(root.join("home/model")).unwrap();
        std::fs::create_dir(root.join("empty")).unwrap();
        std::fs::write(root.join("home/model/config.json"), "{}").unwrap();
        std::fs::create_dir(root.join("made")).unwrap();
        std::fs::write(root.join("made/transmla.toml"), "[files]\n'config.json' = 2\n").unwrap();
        std::fs::write(root.join("made/config.json"), "{}").unwrap();
        for (path, force, word) in [
            ("new", false, ""),
            ("a/b/c", false, ""),
            ("empty", false, "--force"),
            ("empty", true, ""),
            ("made", false, "--force"),
            ("made", true, ""),
            ("home/model", true, "no transmla.toml"),
            ("home", true, "model"),
            ("file", true, "no folder"),
            ("file/x", false, "is a file"),
            ("file/x/y", true, "is a file"),
            ("no/..", false, "no folder name"),
            ("no/../made", true, "does not exist"),
            ("made/../new", false, ""),
        ] {
            let found = problem(&root.join(path), force, false);
            assert!(
                found.contains(word) && found.is_empty() == word.is_empty(),
                "{path}: {found}"
            );
            // A dry run fails only where nothing could be written.
            let fails = ["is a file", "no folder name", "does not exist"].contains(&word);
            assert_eq!(problem(&root.join(path), force, true).is_empty(), !fails, "{path}");
        }
        assert_eq!(std::fs::read_dir(root).unwrap().count(), 4);
    }

    #[test]
    fn inputs_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let (model, texts) = (root.join("model"), root.join("texts"));
        std::fs::create_dir(&model).unwrap();
        std::fs::create_dir(&texts).unwrap();
        std::fs::write(texts.join("a.txt"), "words").unwrap();
        let mut recipe = Recipe::default();
        recipe.calibration.cal_dataset = Some(format!("{}:2,wikitext2:1", texts.join("a.txt").display()));
        recipe.evaluation.eval_tokens = Some(root.join("ids.safetensors"));
        let recipe_file = root.join("recipes/r.toml");
        let problem = |save_path: &Path| {
            let inputs = Inputs::of(&recipe, &model, Some(&recipe_file));
            inputs
                .check_outside(save_path)
                .map_or_else(|error| error.to_string(), |()| String::new())
        };
        for (save_path, word) in [
            (model.clone(), "the model to convert"),
            (root.to_path_buf(), "the model to convert"),
            (model.join("mla"), ""),
            (root.join("new/../model"), "the model to convert"),
            (texts.clone(), "the calibration text"),
            (texts.join("out"), ""),
            (root.join("ids.safetensors"), "the evaluation tokens"),
            (root.join("recipes"), "the recipe"),
            (root.join("out"), ""),
            (root.join("hub/models--a--b/snapshots/main/mla"), "cache of the hub"),
        ] {
            let found = problem(&save_path);
            assert!(
                found.contains(word) && found.is_empty() == word.is_empty(),
                "{}: {found}",
                save_path.display()
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_replaced() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("link", root.join("chain")).unwrap();
        symlink("nothing", root.join("dangling")).unwrap();
        for (path, end) in [
            ("link", "real"),
            ("link/", "real"),
            ("link/.", "real"),
            ("chain", "real"),
            ("dangling", "nothing"),
        ] {
            let expected = format!("is a link to {};", root.join(end).display());
            for force in [false, true] {
                let found = problem(&root.join(path), force, false);
                assert!(found.contains(&expected), "{path}: {found}");
            }
        }
        assert_eq!(problem(&root.join("real"), true, false), "");
        assert_eq!(problem(&root.join("link/new"), false, false), "");
    }

    #[cfg(unix)]
    #[test]
    fn inputs_behind_links_are_not_replaced() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let (model, stored) = (root.join("model"), root.join("stored"));
        std::fs::create_dir(&model).unwrap();
        std::fs::create_dir(&stored).unwrap();
        std::fs::write(stored.join("weights"), "").unwrap();
        let check = |save_path: &Path| Inputs::of(&Recipe::default(), &model, None).check_outside(save_path);
        assert!(check(&stored).is_ok());
        // A model whose weights are links, as the hub's cache has them.
        symlink(stored.join("weights"), model.join("model.safetensors")).unwrap();
        assert!(check(&stored).is_err());
        // The save path as a link to the model, and as a path through one.
        symlink(&model, root.join("link")).unwrap();
        symlink(root, root.join("around")).unwrap();
        assert!(check(&root.join("link")).is_err());
        assert!(check(&root.join("around/model")).is_err());
        assert!(check(&root.join("around/new")).is_ok());
    }
}
