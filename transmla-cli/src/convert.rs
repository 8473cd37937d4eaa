//! `transmla convert`: from arguments to a converted model.

pub mod arguments;
pub mod estimate;
mod page;
mod plan_view;
pub mod progress;
mod samples;
pub mod save_path;
pub mod stages;
mod summary;

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use transmla_convert::{Conversion, Setup};
use transmla_core::hub::is_path;
use transmla_core::{Checkpoint, ModelConfig, Residency};

pub use self::arguments::ConvertArguments;
use self::estimate::Estimate;
use self::page::Origin;
use self::plan_view::PlanView;
use self::progress::Progress;
use self::samples::first_sentences;
use self::save_path::Inputs;
use self::summary::Summary;
use crate::advice::with_hint;
use crate::memory;
use crate::model::ModelFolder;
use crate::options::budget;
use crate::printer::{Hint, Printer};
use crate::setup::Surroundings;

/// Everything that can be found wrong without reading a weight is found first.
pub fn run(arguments: &ConvertArguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let printer = Printer::from(&arguments.output);
    let mut recipe = arguments.recipe()?;
    arguments.compute.device.open()?;
    // By its name first, as far as that is known without the hub: what would be lost is the better reason.
    let inputs = |model: &Path| Inputs::of(&recipe, model, arguments.recipe_file());
    inputs(Path::new(&recipe.model_path)).check_outside(&arguments.save_path)?;
    save_path::check(&arguments.save_path, arguments.force, arguments.dry_run, &printer)?;
    let located = ModelFolder::locate(&recipe.model_path, &recipe.revision, &printer);
    let folder = match arguments.recipe_file().is_some() && is_path(&recipe.model_path) {
        true => located.context(Hint(
            "recipes hold no paths of other places: say where the model is by --model-path",
        ))?,
        false => located?,
    };
    inputs(folder.path()).check_outside(&arguments.save_path)?;
    let config = ModelConfig::read(folder.path())?;
    for note in &config.notes {
        printer.note(format!("note: {note}"));
    }
    arguments.apply_budget(&mut recipe, &config)?;
    let around = Surroundings::of(&recipe, &folder, &arguments.compute, arguments.force, &printer)?;
    let page = (!arguments.no_report).then_some(Origin {
        setup: &around.setup,
        started,
    });
    let mut progress = Progress::new(&printer).with_page(page);
    let conversion = Conversion::new(recipe)?.with(Setup {
        earlier: arguments.recipe_file().and_then(Path::parent).map(Path::to_path_buf),
        ..around.setup.clone()
    });
    let planned = conversion.plan(&mut progress).map_err(with_hint)?;
    let plan = planned.plan();
    let (original, kept) = plan.cache_numbers();
    budget::warning(original, kept)
        .iter()
        .for_each(|warning| printer.warn(warning));
    let more = arguments.compute.warning_of(planned.peak_bytes());
    more.iter().for_each(|warning| printer.warn(warning));
    let room = [(arguments.save_path.as_path(), planned.disk_needs())];
    save_path::check_room(room, arguments.dry_run, &printer)?;
    if planned.source_bytes().is_none() && !arguments.dry_run {
        // Says what is missing.
        Checkpoint::open(folder.path())?;
    }
    let model = &plan.recipe().model_path;
    let estimate = Estimate::new(&planned, &around.setup.device)?;
    let view = PlanView {
        model,
        save_path: &arguments.save_path,
        planned: &planned,
        estimate: &estimate,
    };
    if arguments.dry_run {
        return printer.result(&view.table().to_string(), &view.json());
    }
    printer.note(view.table());
    printer.detail(format!(
        "  device {}; the original's weights are {}",
        arguments.compute.device,
        match planned.residency() {
            Residency::Loaded => "kept in memory",
            Residency::Streamed => "read layer by layer",
        }
    ));
    progress.estimate = Some(estimate);
    let report = planned.run(&arguments.save_path, &mut progress).map_err(with_hint)?;
    let total_seconds = started.elapsed().as_secs_f64();
    let summary = Summary {
        model,
        save_path: &arguments.save_path,
        plan,
        report: &report,
        text: progress.evaluation_text.as_deref(),
        stages: &progress.stages,
        total_seconds,
        cpu_seconds: memory::cpu_seconds(),
        peak_bytes: memory::peak_bytes(),
        sample: first_sentences(&progress.samples),
        has_tokenizer: arguments.save_path.join("tokenizer.json").is_file(),
    };
    printer.note("");
    printer.result(&summary.text(), &summary.json())
}
