//! `transmla sweep`: what each budget costs in perplexity, as a table and a picture.

mod arguments;
mod outcome;
mod progress;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use transmla_convert::{CalibrationText, KeyNorm, Plan, Recipe, Setup, Sweep, TextPurpose, has_refinement};
use transmla_core::{Checkpoint, ModelConfig};
use transmla_report::Fact;

pub use self::arguments::SweepArguments;
use self::arguments::{Budget, Curve, Files};
use self::outcome::{Outcome, Point};
use self::progress::SweepProgress;
use crate::advice::with_hint;
use crate::convert::save_path::{self, Inputs};
use crate::convert::stages::ReadText;
use crate::interrupt;
use crate::model::ModelFolder;
use crate::printer::Printer;
use crate::setup::Surroundings;
use crate::table;
use crate::{embedded, memory};

/// One of the models to make.
struct Model {
    curve: Curve,
    recipe: Recipe,
    /// The two of them, as `--budgets` has them.
    widths: String,
    folder: PathBuf,
}

/// Everything that can be found wrong without reading a weight is found first.
pub fn run(arguments: &SweepArguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let printer = Printer::from(&arguments.printing);
    let recipe = arguments.recipe()?;
    let curves = arguments.curves()?;
    if recipe.evaluation.ppl_eval_batch_size == 0 {
        bail!("a sweep compares perplexities: --ppl-eval-batch-size must be at least 1");
    }
    arguments.compute.device.open()?;
    let outputs = arguments.files();
    outputs.check()?;
    let folder = ModelFolder::locate(&recipe.model_path, &recipe.revision, &printer)?;
    let read = Inputs::of(&recipe, folder.path(), None);
    for output in outputs.all() {
        output.check_not_read(read.paths())?;
        output.check_not_of_model(&recipe.model_path, folder.path())?;
    }
    let config = ModelConfig::read(folder.path())?;
    let temporary = interrupt::temporary_folder().context("cannot create a temporary folder")?;
    let kept = arguments.save_path.as_deref();
    let models = plan(arguments, &recipe, &curves, &config, kept.unwrap_or(temporary.path()))?;
    if kept.is_some() {
        for model in &models {
            save_path::check(&model.folder, arguments.force, false, &printer)?;
            Inputs::of(&model.recipe, folder.path(), None).check_outside(&model.folder)?;
        }
    }
    let around = Surroundings::of(&recipe, &folder, &arguments.compute, arguments.force, &printer)?;
    let names = models.iter().map(|model| (model.curve.label(), model.widths.clone()));
    let mut progress = SweepProgress::new(&printer, names.collect(), kept.is_some());
    let recipes = models.iter().map(|model| (model.recipe.clone(), model.folder.clone()));
    let sweep = Sweep::new(recipes.collect())?.with(around.setup.clone());
    let planned = sweep.plan(&mut progress).map_err(with_hint)?;
    let made = models
        .iter()
        .map(|model| model.folder.as_path())
        .zip(planned.disk_needs());
    save_path::check_room(made, false, &printer)?;
    // Says what is missing, if something is.
    Checkpoint::open(folder.path())?;
    printer.note(announcement(&recipe.model_path, &curves, &models));
    let reports = match kept {
        Some(_) => planned.run(&mut progress),
        None => planned.measure(&mut progress),
    };
    let reports = reports.map_err(with_hint)?;

    let points = models.iter().zip(planned.plans()).zip(&reports);
    let points = points.filter_map(|((model, plan), report)| {
        let folder = kept.map(|_| model.folder.as_path());
        Point::new(model.curve, plan, report, folder)
    });
    // The picture and the figures leave this machine.
    let name = around.setup.name_of(&recipe.model_path);
    let text = progress.stages.evaluation_text.take();
    let (Some(text), Some(window)) = (text, planned.window_tokens()) else {
        bail!("no text was evaluated, so there are no perplexities to compare");
    };
    let outcome = Outcome {
        model: match &name.id {
            Some(id) => id,
            None if recipe.model_path == embedded::MODEL => embedded::MODEL,
            None => &name.name,
        },
        text: &around.setup.bare_origin(&text, &recipe),
        window,
        original_cache: config.attention.cache_numbers(),
        original: reports.first().and_then(|report| report.original),
        points: points.collect(),
        curves: &curves,
        total_seconds: started.elapsed().as_secs_f64(),
        peak_bytes: memory::peak_bytes(),
        facts: calibration_facts(&progress.stages.texts, planned.plans(), &around.setup, &recipe),
        recipe: common_lines(&recipes_of(planned.plans(), &models, &around.setup)?),
    };
    // What took long is shown even if it cannot be written.
    let written = write(&outcome, &outputs);
    printer.note("");
    printer.result(&outcome.text(&outputs), &outcome.json())?;
    written
}

/// All budgets on all curves, each known to fit.
fn plan(
    arguments: &SweepArguments,
    recipe: &Recipe,
    curves: &[Curve],
    config: &ModelConfig,
    parent: &Path,
) -> anyhow::Result<Vec<Model>> {
    let mut models: Vec<Model> = Vec::new();
    for curve in curves {
        for budget in &arguments.budgets {
            let mut recipe = recipe.clone();
            let (rope, rank) = budget
                .shapes(config, KeyNorm::chosen(&recipe, config).scales(config))
                .map_err(|error| budget.refused(error))?;
            (recipe.qk_mqa_dim, recipe.kv_lora_rank) = (Some(rope), Some(rank));
            recipe.method = curve.method;
            recipe.refine = has_refinement(curve.method).then_some(curve.refine);
            let plan = Plan::new(config, &recipe);
            plan.map_err(|error| Budget::Shapes(rope, rank).refused(error))?;
            let name = format!("{}-{rope}-{rank}", curve.slug());
            let folder = parent.join(name);
            // Two budgets may come to the same shapes.
            if models.iter().all(|model| model.folder != folder) {
                models.push(Model {
                    curve: *curve,
                    recipe,
                    widths: format!("{rope}+{rank}"),
                    folder,
                });
            }
        }
    }
    Ok(models)
}

/// What is about to be done, on one line.
fn announcement(model: &str, curves: &[Curve], models: &[Model]) -> String {
    let of_curve = |curve: &Curve| {
        let models = models.iter().filter(|model| model.curve == *curve);
        let widths: Vec<String> = models.map(|model| model.widths.clone()).collect();
        format!("{} at {}", curve.label(), widths.join(", "))
    };
    let curves: Vec<String> = curves.iter().map(of_curve).collect();
    let models = table::plural(models.len(), "model");
    format!("Sweep: {model} to {models}: {}", curves.join("; "))
}

/// The texts that the models are calibrated on, in the order that they were read in, and by which methods if there are several.
fn calibration_facts(texts: &[ReadText], plans: &[Plan], setup: &Setup, recipe: &Recipe) -> Vec<Fact> {
    let mut used: Vec<(&CalibrationText, Vec<String>)> = Vec::new();
    for recipe in plans.iter().map(Plan::recipe) {
        let method = recipe.method.to_string();
        match used.iter_mut().find(|(text, _)| **text == recipe.calibration) {
            Some((_, methods)) if methods.contains(&method) => {}
            Some((_, methods)) => methods.push(method),
            None => used.push((&recipe.calibration, vec![method])),
        }
    }
    let calibration = texts.iter().filter(|text| text.purpose == TextPurpose::Calibration);
    let fact = |(text, (_, methods)): (&ReadText, &(_, Vec<String>))| Fact {
        name: match used.len() {
            1 => "Calibration".into(),
            _ => format!("Calibration, {}", methods.join(" and ")),
        },
        value: text.describe("sample", setup, recipe),
    };
    calibration.zip(&used).map(fact).collect()
}

/// What the models' folders say, or would say, of how they were made.
fn recipes_of(plans: &[Plan], models: &[Model], setup: &Setup) -> anyhow::Result<Vec<String>> {
    let recipes = plans.iter().zip(models);
    let text = |(plan, model): (&Plan, &Model)| Ok(setup.recipe_toml(plan.recipe(), &model.folder)?);
    recipes.map(text).collect()
}

/// The lines that all texts have, in the order of the first.
fn common_lines(texts: &[String]) -> String {
    let Some((first, others)) = texts.split_first() else {
        return String::new();
    };
    let in_all = |line: &&str| others.iter().all(|text| text.lines().any(|other| other == *line));
    // A comment says what the whole file is.
    let lines = first.lines().filter(|line| !line.starts_with('#')).filter(in_all);
    lines.collect::<Vec<_>>().join("\n")
}

fn write(outcome: &Outcome<'_>, files: &Files) -> anyhow::Result<()> {
    let mut figures = outcome.json();
    for model in figures["models"].as_array_mut().into_iter().flatten() {
        // Beside the figures, or told by whoever passes them on.
        let name = model["save_path"].as_str().and_then(|path| Path::new(path).file_name());
        model["save_path"] = name.map(|name| name.to_string_lossy().into_owned()).into();
    }
    let mut json = serde_json::to_string_pretty(&figures)?;
    json.push('\n');
    if let Some(file) = files.figures() {
        file.write(json.as_bytes())?;
    }
    let report = outcome.report();
    if let Some(file) = files.picture() {
        file.write(report.svg()?.as_bytes())?;
    }
    if let Some(file) = files.page() {
        file.write(report.html()?.as_bytes())?;
    }
    Ok(())
}
