//! `transmla heal`: a converted model is trained on its original.

pub mod arguments;
mod progress;
mod view;

use std::time::Instant;

use transmla_convert::Heal;

pub use self::arguments::HealArguments;
use self::progress::HealProgress;
use self::view::{HealSummary, HealView};
use crate::advice::with_hint;
use crate::convert::save_path::{self, Inputs};
use crate::model::ModelFolder;
use crate::printer::Printer;
use crate::setup::Surroundings;
use crate::{memory, room};

/// Everything that can be found wrong without reading a weight is found first.
pub fn run(arguments: &HealArguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let printer = Printer::from(&arguments.output);
    arguments.compute.device.open()?;
    save_path::check(&arguments.save_path, arguments.force, arguments.dry_run, &printer)?;
    let converted = arguments.model.locate(&printer)?;
    let original = ModelFolder::locate(&arguments.against, &arguments.against_revision, &printer)?;
    let mut recipe = arguments.text_recipe();
    Inputs::of(&recipe, converted.path(), None).check_outside(&arguments.save_path)?;
    recipe.model_path = arguments.against.clone();
    Inputs::of(&recipe, original.path(), None).check_outside(&arguments.save_path)?;
    let around = Surroundings::of(&recipe, &original, &arguments.compute, arguments.force, &printer)?;
    let mut progress = HealProgress::new(&printer);
    let heal = Heal {
        healing: arguments.healing(),
        converted: converted.path().to_path_buf(),
        original: original.path().to_path_buf(),
    };
    let planned = heal.plan(around.setup.clone(), &mut progress).map_err(with_hint)?;
    let view = HealView::new(arguments, &planned, &around.setup.device)?;
    if arguments.dry_run {
        return printer.result(&view.table().to_string(), &view.json());
    }
    room::check(planned.peak_bytes())?;
    printer.note(view.table());
    let report = planned.run(&arguments.save_path, &mut progress).map_err(with_hint)?;
    let summary = HealSummary {
        save_path: &arguments.save_path,
        planned: &planned,
        report: &report,
        pace: progress.pace(),
        total_seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: memory::cpu_seconds(),
        peak_bytes: memory::peak_bytes(),
    };
    if report.kept == 0 {
        printer.warn(
            "no step predicted the held-out text better: the model is what it was; try a smaller --learning-rate, or more text",
        );
    }
    printer.note("");
    printer.result(&summary.text(), &summary.json())
}
