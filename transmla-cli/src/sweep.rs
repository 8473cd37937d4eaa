//! `transmla sweep`: what each budget costs in perplexity, as a table and a picture.

mod arguments;
mod outcome;
mod progress;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use transmla_convert::{Evaluation, MethodName, Plan, Recipe, Requests, convert_all, has_refinement};
use transmla_core::{ModelConfig, Residency};

pub use self::arguments::SweepArguments;
use self::arguments::{Curve, Files};
use self::outcome::{Outcome, Point};
use self::progress::SweepProgress;
use crate::convert::names::{self, ModelName};
use crate::convert::save_path::{self, Inputs};
use crate::convert::texts::TextPlan;
use crate::convert::{files, original_card};
use crate::interrupt;
use crate::model::ModelFolder;
use crate::printer::Printer;
use crate::table;
use crate::text::Corpus;
use crate::{embedded, memory};

/// One of the models to make.
struct Entry {
    curve: Curve,
    plan: Plan,
    recipe: Recipe,
    folder: PathBuf,
}

/// Everything that can be found wrong without reading a weight is found first.
pub fn run(arguments: &SweepArguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let printer = Printer::from(&arguments.printing);
    let recipe = arguments.recipe();
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
    let mut entries = plan(arguments, &recipe, &curves, &config, kept.unwrap_or(temporary.path()))?;
    if kept.is_some() {
        for entry in &entries {
            save_path::check(&entry.folder, arguments.force, false, &printer)?;
            Inputs::of(&entry.recipe, folder.path(), None).check_outside(&entry.folder)?;
        }
    }
    let made = entries.iter().map(|entry| (entry.folder.as_path(), &entry.plan));
    save_path::check_room(made, false, &printer)?;
    // Opening a model as streamed checks the headers and reads no weight.
    let mut source = folder.open_as(&arguments.compute, config.clone(), Residency::Streamed)?;
    let eval_options = memory::eval_options(recipe.evaluation.ppl_eval_batch_size, arguments.compute.max_memory);
    let residency = memory::residency(&config, arguments.compute.max_memory);
    printer.note(announcement(&recipe.model_path, &curves, &entries));
    let texts = read_texts(&mut entries, folder.path(), &config, &printer)?;
    let card = original_card(folder.path(), &printer)?;
    let described = entries.iter().map(|entry| {
        let origin = &texts.of(entry).origin;
        files(&entry.recipe, &entry.plan, card.as_deref(), &entry.folder, origin)
    });
    let extra_files: Vec<_> = described.collect::<anyhow::Result<_>>()?;
    let Some(evaluation) = &texts.evaluation else {
        bail!("there is no text to evaluate on");
    };
    if residency == Residency::Loaded {
        source = folder.open_as(&arguments.compute, config.clone(), Residency::Loaded)?;
    }

    let requested: Vec<transmla_convert::Entry<'_>> = entries
        .iter()
        .zip(&extra_files)
        .map(|(entry, extra_files)| transmla_convert::Entry {
            plan: &entry.plan,
            calibration: &texts.of(entry).tokens,
            save_path: &entry.folder,
            replace: arguments.force,
            keep: kept.is_some(),
            extra_files,
        })
        .collect();
    let request = Requests {
        source: &source,
        evaluation: Some(Evaluation {
            windows: &evaluation.tokens,
            options: eval_options,
        }),
        entries: &requested,
    };
    let names = entries.iter().map(|entry| (entry.curve.label(), entry.widths()));
    let reports = convert_all(&request, &mut SweepProgress::new(&printer, names.collect()))?;

    let points = entries.iter().zip(&reports).filter_map(|(entry, report)| {
        let folder = kept.map(|_| entry.folder.as_path());
        Point::new(entry.curve, &entry.plan, report, folder)
    });
    // The picture and the figures leave this machine.
    let name = ModelName::of(&recipe.model_path);
    let outcome = Outcome {
        model: match &name.id {
            Some(id) => id,
            None if recipe.model_path == embedded::MODEL => embedded::MODEL,
            None => &name.name,
        },
        text: &names::origin(&evaluation.origin, &recipe),
        window: evaluation.tokens.sequence(),
        original_cache: config.attention.cache_numbers(),
        original: reports.first().and_then(|report| report.original),
        points: points.collect(),
        curves: &curves,
        total_seconds: started.elapsed().as_secs_f64(),
        peak_bytes: memory::peak_bytes(),
    };
    // What took long is shown even if it cannot be written.
    let written = write(&outcome, &outputs);
    printer.note("");
    printer.result(&outcome.text(&outputs), &outcome.json())?;
    written
}

/// The texts of all entries: methods differ in what they are calibrated on.
struct SweepTexts {
    calibration: Vec<(MethodName, Corpus)>,
    evaluation: Option<Corpus>,
}

impl SweepTexts {
    fn of(&self, entry: &Entry) -> &Corpus {
        let own = |(method, _): &&(MethodName, Corpus)| *method == entry.curve.method;
        &self.calibration.iter().find(own).unwrap_or(&self.calibration[0]).1
    }
}

/// Reads the texts, and completes the recipes from them.
fn read_texts(
    entries: &mut [Entry],
    folder: &Path,
    config: &ModelConfig,
    printer: &Printer,
) -> anyhow::Result<SweepTexts> {
    let mut texts = SweepTexts {
        calibration: Vec::new(),
        evaluation: None,
    };
    for entry in entries {
        let plan = TextPlan::new(&entry.recipe, config, printer)?;
        plan.complete(&mut entry.recipe);
        let method = entry.curve.method;
        if texts.calibration.iter().any(|(known, _)| *known == method) {
            continue;
        }
        let calibration = match texts.evaluation {
            Some(_) => plan.read_calibration(folder, config, printer)?,
            None => {
                let first = plan.read(folder, config, printer)?;
                texts.evaluation = first.evaluation;
                first.calibration
            }
        };
        texts.calibration.push((method, calibration));
    }
    Ok(texts)
}

/// All budgets on all curves, each known to fit.
fn plan(
    arguments: &SweepArguments,
    recipe: &Recipe,
    curves: &[Curve],
    config: &ModelConfig,
    parent: &Path,
) -> anyhow::Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for curve in curves {
        for budget in &arguments.budgets {
            let fail = || format!("cannot use --budgets {budget}");
            let mut recipe = recipe.clone();
            (recipe.qk_mqa_dim, recipe.kv_lora_rank) = budget.shapes(config).with_context(fail)?;
            recipe.method = curve.method;
            recipe.refine = has_refinement(curve.method).then_some(curve.refine);
            let plan = Plan::new(config, &recipe).with_context(fail)?;
            let name = format!("{}-{}-{}", curve.slug(), recipe.qk_mqa_dim, recipe.kv_lora_rank);
            let folder = parent.join(name);
            // Two budgets may come to the same shapes.
            if entries.iter().all(|entry| entry.folder != folder) {
                entries.push(Entry {
                    curve: *curve,
                    plan,
                    recipe,
                    folder,
                });
            }
        }
    }
    Ok(entries)
}

impl Entry {
    /// The two widths, as `--budgets` has them.
    fn widths(&self) -> String {
        let latent = self.plan.latent();
        format!("{}+{}", latent.qk_rope_head_dim, latent.kv_lora_rank)
    }
}

/// What is about to be done, on one line.
fn announcement(model: &str, curves: &[Curve], entries: &[Entry]) -> String {
    let of_curve = |curve: &Curve| {
        let entries = entries.iter().filter(|entry| entry.curve == *curve);
        let widths: Vec<String> = entries.map(Entry::widths).collect();
        format!("{} at {}", curve.label(), widths.join(", "))
    };
    let curves: Vec<String> = curves.iter().map(of_curve).collect();
    let models = table::plural(entries.len(), "model");
    format!("Sweep: {model} to {models}: {}", curves.join("; "))
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
